//! The verbs over HTTP/1.1, as kube-scheduler speaks it.
//!
//! Answers are whole, with a Content-Length: kube-scheduler's client gives a connection up whose chunked answer it
//! has not read to the end. A connection may idle for longer than that client keeps it, so that we never close
//! one while a request is on its way; but a request that has begun must be there within seconds.
//!
//! A request that panics is answered with a 500 and counted; the state ends the process if it was left half-changed.

mod pace;
mod route;
#[cfg(test)]
mod tests;

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use hyper_util::server::graceful::GracefulShutdown;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;

use self::pace::{Pace, Paced};
use self::route::respond;
use crate::binding::Binder;
use crate::metrics::Metrics;
use crate::verbs::Verbs;

/// Connections at once. kube-scheduler keeps two and opens one more for each bind under way.
const CONNECTIONS_MAX: usize = 512;
/// How long after a failed `accept` the next one is tried: running out of files does not mend itself at once.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// What the server needs to answer.
pub struct Server {
    /// filter and prioritize.
    pub verbs: Arc<Verbs>,
    /// bind.
    pub binder: Binder,
    /// What is counted.
    pub metrics: Arc<Metrics>,
}

impl Server {
    /// Serves until `stop` resolves; then answers what was asked, for at most `grace`, and returns.
    pub async fn serve(self, listener: TcpListener, stop: impl Future<Output = ()>, grace: Duration) {
        let local = listener.local_addr().ok();
        let server = Arc::new(self);
        let slots = Arc::new(Semaphore::new(CONNECTIONS_MAX));
        let graceful = GracefulShutdown::new();
        let mut stop = std::pin::pin!(stop);
        loop {
            let accept = async {
                let slot = slots.clone().acquire_owned().await;
                (listener.accept().await, slot)
            };
            let (accepted, slot) = tokio::select! {
                () = &mut stop => break,
                accepted = accept => accepted,
            };
            let stream = match accepted {
                Ok((stream, _)) => stream,
                Err(error) => {
                    tracing::warn!(%error, "A connection could not be accepted.");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                    continue;
                }
            };
            let connection = graceful.watch(connection(stream, server.clone(), local));
            let metrics = server.metrics.clone();
            metrics.connection(1);
            tokio::spawn(async move {
                if let Err(error) = connection.await {
                    tracing::debug!(%error, "A connection ended early.");
                }
                metrics.connection(-1);
                drop(slot);
            });
        }
        drop(listener);
        if tokio::time::timeout(grace, graceful.shutdown()).await.is_err() {
            tracing::warn!("Some requests were not answered in time.");
        }
    }
}

type Connection<S> = http1::Connection<TokioIo<Paced<TcpStream>>, S>;

fn connection(
    stream: TcpStream,
    server: Arc<Server>,
    local: Option<SocketAddr>,
) -> Connection<
    impl hyper::service::Service<
        hyper::Request<hyper::body::Incoming>,
        Response = hyper::Response<http_body_util::Full<bytes::Bytes>>,
        Error = Infallible,
        Future: Send,
    >,
> {
    // Small answers are sent at once. If it cannot be set, they are only later.
    let _ = stream.set_nodelay(true);
    let pace = Arc::new(Pace::default());
    let io = TokioIo::new(Paced::new(stream, pace.clone()));
    let service = service_fn(move |request| {
        let (server, pace) = (server.clone(), pace.clone());
        async move {
            let response = respond(&server, request, &pace, local).await;
            Ok::<_, Infallible>(response)
        }
    });
    http1::Builder::new().serve_connection(io, service)
}
