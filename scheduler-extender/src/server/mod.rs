//! The verbs over HTTP/1.1, as kube-scheduler speaks it; over TLS with client certificates, where there is a [`Tls`].
//!
//! Answers are whole, with a Content-Length: kube-scheduler's client gives a connection up whose chunked answer it
//! has not read to the end. A connection may idle for longer than that client keeps it, so that we never close
//! one while a request is on its way; but a request that has begun must be there within seconds.
//!
//! A request that panics is answered with a 500 and counted; the state ends the process if it was left half-changed.

mod handshake;
mod pace;
mod route;
#[cfg(test)]
pub(crate) mod tests;

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use hyper_util::server::graceful::{GracefulShutdown, Watcher};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, oneshot};

use self::handshake::{Handshakes, Peer};
use self::pace::{Pace, Paced};
use self::route::{respond, turn_away};
use crate::binding::Binder;
use crate::lease::Held;
use crate::metrics::Metrics;
use crate::planner::rush::Rush;
use crate::seldom::Seldom;
use crate::tls::Tls;
use crate::verbs::Verbs;

/// Connections at once. kube-scheduler keeps two and opens one more for each bind under way.
const CONNECTIONS_MAX: usize = 512;
/// How long after a failed `accept` the next one is tried: running out of files does not mend itself at once.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

static FULL: Seldom = Seldom::every(Duration::from_secs(60));

/// What the server needs to answer.
pub struct Server {
    /// filter and prioritize.
    pub verbs: Arc<Verbs>,
    /// bind.
    pub binder: Binder,
    /// What is counted.
    pub metrics: Arc<Metrics>,
    /// TLS, where the verbs are served over a network.
    pub tls: Option<Arc<Tls>>,
    /// The Lease, where its holder alone is to be asked: clients keep connections to one that holds it no longer.
    pub leads: Option<Held>,
    /// Where pods are nominated: while many are, filter's answers wait for the next ones.
    pub rush: Option<Arc<Rush>>,
}

impl Server {
    /// Serves until `stop` resolves; then answers what was asked, for at most `grace`, and returns.
    pub async fn serve(self, listener: TcpListener, stop: impl Future<Output = ()>, grace: Duration) {
        let local = listener.local_addr().ok();
        let server = Arc::new(self);
        let slots = Arc::new(Semaphore::new(CONNECTIONS_MAX));
        let graceful = GracefulShutdown::new();
        let mut handshakes = Handshakes::default();
        let mut stop = std::pin::pin!(stop);
        loop {
            let accept = async {
                // With TLS a place is taken after the handshake.
                let slot = match &server.tls {
                    None => slots.clone().acquire_owned().await.ok(),
                    Some(_) => None,
                };
                (listener.accept().await, slot)
            };
            let (accepted, slot) = tokio::select! {
                () = &mut stop => break,
                accepted = accept => accepted,
            };
            let (stream, from) = match accepted {
                Ok(accepted) => accepted,
                Err(error) => {
                    tracing::warn!(%error, "A connection could not be accepted.");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                    continue;
                }
            };
            // Small answers are sent at once. If it cannot be set, they are only later.
            let _ = stream.set_nodelay(true);
            let (server, watcher) = (server.clone(), graceful.watcher());
            match (server.tls.clone(), slot) {
                (Some(tls), _) => {
                    let greeted = Greeted { tls, from, given_up: handshakes.begin(), slots: slots.clone() };
                    tokio::spawn(greet_and_run(stream, server, greeted, watcher));
                }
                (None, slot) => {
                    tokio::spawn(run(stream, server, Caller { local, peer: None }, slot, watcher));
                }
            }
        }
        drop(listener);
        // Who is not in yet need not come in.
        drop(handshakes);
        if tokio::time::timeout(grace, graceful.shutdown()).await.is_err() {
            tracing::warn!("Some requests were not answered in time.");
        }
    }

    /// Why a caller is not answered, whatever it asks.
    fn turns_away(&self, caller: &Caller) -> Option<Response> {
        if let Some(Err(error)) = caller.peer.as_ref().map(Peer::still_accepted) {
            return Some(turn_away(403, format!("the client certificate is accepted no more: {error}\n")));
        }
        let waits = self.leads.as_ref().is_some_and(|held| !held.now());
        waits.then(|| turn_away(503, "another replica holds the Lease, and is to be asked\n".to_owned()))
    }
}

type Response = hyper::Response<http_body_util::Full<bytes::Bytes>>;

/// At which address a connection is served, and to whom.
struct Caller {
    local: Option<SocketAddr>,
    /// Without TLS nobody knows.
    peer: Option<Peer>,
}

/// What it takes to let somebody in.
struct Greeted {
    tls: Arc<Tls>,
    from: SocketAddr,
    given_up: oneshot::Receiver<()>,
    slots: Arc<Semaphore>,
}

async fn greet_and_run(stream: TcpStream, server: Arc<Server>, greeted: Greeted, watcher: Watcher) {
    let Greeted { tls, from, given_up, slots } = greeted;
    let shaken = handshake::shake(tls, stream, from, given_up, &server.metrics).await;
    let Some((stream, peer)) = shaken else { return };
    let Ok(slot) = slots.try_acquire_owned() else {
        if FULL.now() {
            tracing::warn!(
                %from,
                "All connections of the verbs are taken; more of these are not logged for a minute."
            );
        }
        return;
    };
    // What is served on the loopback alone is not served over TLS.
    run(stream, server, Caller { local: None, peer: Some(peer) }, Some(slot), watcher).await;
}

async fn run<S: AsyncRead + AsyncWrite + Unpin + Send + 'static>(
    stream: S,
    server: Arc<Server>,
    caller: Caller,
    slot: Option<OwnedSemaphorePermit>,
    watcher: Watcher,
) {
    let metrics = server.metrics.clone();
    metrics.connection(1);
    if let Err(error) = watcher.watch(connection(stream, server, caller)).await {
        tracing::debug!(%error, "A connection ended early.");
    }
    metrics.connection(-1);
    drop(slot);
}

type Connection<S, H> = http1::Connection<TokioIo<Paced<S>>, H>;

fn connection<S: AsyncRead + AsyncWrite + Unpin>(
    stream: S,
    server: Arc<Server>,
    caller: Caller,
) -> Connection<
    S,
    impl hyper::service::Service<
        hyper::Request<hyper::body::Incoming>,
        Response = Response,
        Error = Infallible,
        Future: Send,
    >,
> {
    let pace = Arc::new(Pace::default());
    let io = TokioIo::new(Paced::new(stream, pace.clone()));
    let caller = Arc::new(caller);
    let service = service_fn(move |request| {
        let (server, pace, caller) = (server.clone(), pace.clone(), caller.clone());
        async move {
            let response = match server.turns_away(&caller) {
                Some(response) => response,
                None => respond(&server, request, &pace, caller.local).await,
            };
            Ok::<_, Infallible>(response)
        }
    });
    http1::Builder::new().serve_connection(io, service)
}
