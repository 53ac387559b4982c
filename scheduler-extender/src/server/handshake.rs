//! Handshakes: bounded in time and in number, so that whoever has no certificate keeps nobody out who has one.
//!
//! A connection takes a place among those that are served only after its handshake. Before that it is one of the
//! latest [`LATEST`], and is given up where so many more have come since: those who connect and say nothing push each
//! other out, while a handshake that goes on is done within milliseconds.

use std::collections::VecDeque;
use std::io::ErrorKind;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use ops::chain;
use rustls::pki_types::{CertificateDer, UnixTime};
use tokio::net::TcpStream;
use tokio::sync::oneshot;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

use crate::metrics::{Handshake, Metrics};
use crate::seldom::Seldom;
use crate::tls::{Current, Tls};

/// Handshakes at once, at most.
pub(super) const LATEST: usize = 128;
/// How long one may take.
pub(super) const HANDSHAKE_MAX: Duration = Duration::from_secs(5);
/// How often it is checked again whether a client that stays connected is still to be served; at once where the files
/// have changed.
const CHECK_EVERY: Duration = Duration::from_secs(30);

static FAILED: Seldom = Seldom::every(Duration::from_secs(60));

/// The latest handshakes.
#[derive(Debug, Default)]
pub(super) struct Handshakes {
    /// The oldest is first. Those that are done stay until others have come: they no longer listen.
    latest: VecDeque<oneshot::Sender<()>>,
}

impl Handshakes {
    /// One more begins, and the oldest of too many ends: what is given back then resolves.
    pub(super) fn begin(&mut self) -> oneshot::Receiver<()> {
        if self.latest.len() >= LATEST {
            self.latest.pop_front();
        }
        let (given_up, listens) = oneshot::channel();
        self.latest.push_back(given_up);
        listens
    }
}

/// A client that has shown its certificate.
pub(super) struct Peer {
    tls: Arc<Tls>,
    certificates: Vec<CertificateDer<'static>>,
    checked: Mutex<Checked>,
}

struct Checked {
    by: Arc<Current>,
    at: Instant,
}

impl Peer {
    /// Whether it is still to be served: its certificate may have expired since, or its authority may be trusted no more.
    ///
    /// # Errors
    /// Why not.
    pub(super) fn still_accepted(&self) -> Result<(), rustls::Error> {
        let (current, now) = (self.tls.current(), Instant::now());
        // Each change is one assignment, so a panic leaves nothing half-done.
        let mut checked = self.checked.lock().unwrap_or_else(PoisonError::into_inner);
        if Arc::ptr_eq(&checked.by, &current) && now.saturating_duration_since(checked.at) < CHECK_EVERY {
            return Ok(());
        }
        self.tls.accepts(&self.certificates, UnixTime::now())?;
        *checked = Checked { by: current, at: now };
        Ok(())
    }
}

/// Shakes hands until `given_up` resolves; `None` where that came to nothing, which is counted and, at times, logged.
pub(super) async fn shake(
    tls: Arc<Tls>,
    stream: TcpStream,
    from: SocketAddr,
    given_up: oneshot::Receiver<()>,
    metrics: &Metrics,
) -> Option<(TlsStream<TcpStream>, Peer)> {
    let current = tls.current();
    let accept = TlsAcceptor::from(current.server.clone()).accept(stream);
    let accepted = tokio::select! {
        accepted = tokio::time::timeout(HANDSHAKE_MAX, accept) => accepted,
        _ = given_up => {
            metrics.handshake(Handshake::GivenUp);
            return None;
        }
    };
    let stream = match accepted {
        Ok(Ok(stream)) => stream,
        Ok(Err(error)) => {
            metrics.handshake(Handshake::Refused);
            // Who connects and goes again, as a probe does, has not tried.
            if !matches!(error.kind(), ErrorKind::UnexpectedEof | ErrorKind::ConnectionReset) && FAILED.now()
            {
                let error = chain(&error);
                tracing::warn!(
                    %from,
                    error,
                    "A client of the verbs is refused; more of these are not logged for a minute."
                );
            }
            return None;
        }
        Err(_) => {
            metrics.handshake(Handshake::TimedOut);
            return None;
        }
    };
    metrics.handshake(Handshake::Done);
    let shown = stream.get_ref().1.peer_certificates().unwrap_or_default();
    let certificates = shown.iter().map(|certificate| certificate.clone().into_owned()).collect();
    let checked = Mutex::new(Checked { by: current, at: Instant::now() });
    Some((stream, Peer { tls, certificates, checked }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_oldest_of_too_many_handshakes_is_given_up() {
        let mut handshakes = Handshakes::default();
        let mut all: Vec<_> = (0..LATEST + 2).map(|_| handshakes.begin()).collect();
        let given_up: Vec<bool> =
            all.iter_mut().map(|one| one.try_recv() == Err(oneshot::error::TryRecvError::Closed)).collect();
        assert_eq!(given_up[..3], [true, true, false]);
        assert!(!given_up[3..].contains(&true));
        // And all of them where nobody serves any more.
        drop(handshakes);
        assert!(all.iter_mut().all(|one| one.try_recv().is_err()));
    }
}
