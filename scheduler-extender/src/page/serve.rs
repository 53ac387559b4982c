//! The map's own port.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use hyper::header::HeaderMap;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use kube::Client;
use ops::Fault;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;

use super::access::{Access, Audience, Denied};
use super::guard;
use super::hub::Hub;
use super::route::respond;
use super::stall::Stall;
use crate::state::Store;
use crate::verbs::Memo;

/// Connections at once; a browser opens up to six.
const CONNECTIONS_MAX: usize = 128;
/// How long a request's head may take, and a connection may idle.
const HEADER_TIMEOUT: Duration = Duration::from_secs(30);
/// How long a reader may read nothing of what is sent.
const STALL_MAX: Duration = Duration::from_secs(20);
/// How long after a failed `accept` the next one is tried: running out of files does not mend itself at once.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// What the map answers from.
pub struct Page {
    pub(super) store: Arc<Store>,
    pub(super) hub: Arc<Hub>,
    pub(super) memo: Memo,
    /// One survey at a time.
    pub(super) turn: Semaphore,
    /// Who may see it; `None` on the loopback, where whoever reaches it may.
    pub(super) access: Option<Access>,
}

impl Page {
    /// A map of this state, for this port.
    ///
    /// # Errors
    /// A [`Fault`] where the port's address cannot be told.
    pub fn new(store: Arc<Store>, client: Client, listener: &TcpListener) -> Result<Arc<Self>, Fault> {
        let address =
            listener.local_addr().context("the map's address cannot be told").map_err(Fault::unavailable)?;
        let access = (!address.ip().is_loopback()).then(|| Access::new(client));
        if access.is_some() {
            tracing::warn!(
                map_address = %address,
                "The map is served to others than this machine, without TLS: put something before it that has it, or tokens can be read on their way."
            );
        }
        Ok(Self::of(store, access))
    }

    pub(super) fn of(store: Arc<Store>, access: Option<Access>) -> Arc<Self> {
        let hub = Arc::new(Hub::new(store.clone()));
        Arc::new(Self { store, hub, memo: Memo::default(), turn: Semaphore::new(1), access })
    }

    /// What whoever makes a request may see.
    pub(super) async fn audience(&self, headers: &HeaderMap) -> Result<Audience, Denied> {
        match &self.access {
            None => Ok(Audience::Names),
            Some(access) => access.of(guard::bearer(headers)).await,
        }
    }
}

/// Serves the map until the process ends.
///
/// # Errors
/// A [`Fault`] where the state cannot be trusted any more.
pub async fn serve(listener: TcpListener, page: Arc<Page>) -> Result<(), Fault> {
    tokio::select! {
        ended = page.hub.clone().run() => ended,
        () = accept(listener, page) => Ok(()),
    }
}

async fn accept(listener: TcpListener, page: Arc<Page>) {
    let slots = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    loop {
        let Ok(slot) = slots.clone().acquire_owned().await else { return };
        let stream = match listener.accept().await {
            Ok((stream, _)) => stream,
            Err(error) => {
                tracing::warn!(%error, "A connection to the map could not be accepted.");
                tokio::time::sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        let page = page.clone();
        tokio::spawn(async move {
            if let Err(error) = connection(stream, page).await {
                tracing::debug!(%error, "A connection to the map ended early.");
            }
            drop(slot);
        });
    }
}

async fn connection(stream: TcpStream, page: Arc<Page>) -> hyper::Result<()> {
    // A change is told at once. If it cannot be set, it is only later.
    let _ = stream.set_nodelay(true);
    let answer = service_fn(move |request| {
        let page = page.clone();
        async move { Ok::<_, Infallible>(respond(&page, request).await) }
    });
    http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEADER_TIMEOUT)
        .serve_connection(TokioIo::new(Stall::new(stream, STALL_MAX)), answer)
        .await
}

#[cfg(test)]
mod tests;
