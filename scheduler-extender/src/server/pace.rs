//! A bound on how long a request may take to arrive, which does not end idle connections early.
//!
//! hyper's own bound on headers also counts while a kept-alive connection idles, and would close it under a
//! request that is already on its way. This one starts with a request's first byte.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Instant, Sleep, sleep_until};

/// From a request's first byte to its last.
pub(super) const ARRIVAL_MAX: Duration = Duration::from_secs(5);
/// How long a connection may idle; kube-scheduler's client closes its own after 90 s.
pub(super) const IDLE_MAX: Duration = Duration::from_secs(120);

/// Whether a request is being answered, so that nothing need arrive.
#[derive(Debug, Default)]
pub(super) struct Pace {
    answering: AtomicBool,
}

impl Pace {
    /// The request is here: what follows is our time, until the guard is dropped.
    pub(super) fn arrived(&self) -> Answering<'_> {
        self.answering.store(true, Ordering::Relaxed);
        Answering(self)
    }
}

/// A request is being answered.
pub(super) struct Answering<'a>(&'a Pace);

impl Drop for Answering<'_> {
    fn drop(&mut self) {
        self.0.answering.store(false, Ordering::Relaxed);
    }
}

/// A connection whose requests must arrive in time.
pub(super) struct Paced<S> {
    inner: S,
    pace: Arc<Pace>,
    /// Whether bytes have come since the last answer.
    begun: bool,
    deadline: Pin<Box<Sleep>>,
}

impl<S> Paced<S> {
    pub(super) fn new(inner: S, pace: Arc<Pace>) -> Self {
        Self { inner, pace, begun: false, deadline: Box::pin(sleep_until(Instant::now() + IDLE_MAX)) }
    }

    /// An answer goes out: the next byte that comes in begins another request.
    fn answered(&mut self) {
        self.begun = false;
        self.deadline.as_mut().reset(Instant::now() + IDLE_MAX);
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Paced<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let read = Pin::new(&mut self.inner).poll_read(cx, buf);
        if self.pace.answering.load(Ordering::Relaxed) {
            // hyper only looks whether the client is still there.
            return read;
        }
        if read.is_ready() {
            if !self.begun {
                self.begun = true;
                self.deadline.as_mut().reset(Instant::now() + ARRIVAL_MAX);
            }
            return read;
        }
        self.deadline.as_mut().poll(cx).map(|()| Err(io::ErrorKind::TimedOut.into()))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Paced<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        self.answered();
        Pin::new(&mut self.inner).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_shutdown(cx)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.answered();
        Pin::new(&mut self.inner).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.inner.is_write_vectored()
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex};

    use super::*;

    fn pair() -> (Paced<DuplexStream>, DuplexStream, Arc<Pace>) {
        let (server, client) = duplex(64);
        let pace = Arc::new(Pace::default());
        (Paced::new(server, pace.clone()), client, pace)
    }

    /// Reads until it fails; the time that took.
    async fn time_until_given_up(server: &mut Paced<DuplexStream>) -> Duration {
        let start = Instant::now();
        let error = server.read_to_end(&mut Vec::new()).await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
        start.elapsed().max(ARRIVAL_MAX)
    }

    #[tokio::test(start_paused = true)]
    async fn a_request_that_dawdles_is_given_up() {
        let (mut server, mut client, _) = pair();
        client.write_all(b"POST /fil").await.unwrap();
        assert!(time_until_given_up(&mut server).await < ARRIVAL_MAX * 2);
    }

    #[tokio::test(start_paused = true)]
    async fn an_idle_connection_is_kept_longer_than_its_client_keeps_it() {
        let (mut server, mut client, _) = pair();
        client.write_all(b"request").await.unwrap();
        server.read_exact(&mut [0; 7]).await.unwrap();
        server.write_all(b"answer").await.unwrap();
        assert!(time_until_given_up(&mut server).await >= Duration::from_secs(100));
    }

    #[tokio::test(start_paused = true)]
    async fn the_time_that_an_answer_takes_does_not_count() {
        let (mut server, mut client, pace) = pair();
        client.write_all(b"request").await.unwrap();
        server.read_exact(&mut [0; 7]).await.unwrap();
        let answering = pace.arrived();
        let waited = tokio::time::timeout(ARRIVAL_MAX * 4, server.read_u8()).await;
        assert!(waited.is_err(), "the connection is still open");
        drop(answering);
    }
}
