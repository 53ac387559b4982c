//! The watches on pods, nodes and GpuNodes: they feed the state, for as long as the process lives.
//!
//! A watch that breaks is taken up again where it stopped, with growing waits; where the API server has forgotten
//! that place, everything is listed anew. Each list is a consistent read, so it is never older than what the watch
//! told before. A watch is renewed every 50 seconds, so that one that silently stalled is noticed.

use std::sync::Arc;

use futures::{Stream, StreamExt};
use kube::runtime::watcher::{self, Event as Watch};
use kube::runtime::{WatchStreamExt, watcher as watch};
use kube::{Api, Client};
use serde::de::DeserializeOwned;

use crate::api::{self, Watched};
use crate::clock::Now;
use crate::health::{Kind, Progress};
use crate::memory;
use crate::metrics::Metrics;
use crate::state::event::{Change, Event};
use crate::state::{Broken, Store};

/// How long one watch call lasts, in seconds. A connection that died silently is noticed 5 seconds later.
const WATCH_SECONDS: u32 = 50;
/// Pods that a page of a list has. A page is in memory as a whole, as text and as objects: so it is kept to some
/// megabytes.
const PODS_PAGE: u32 = 500;
/// Nodes that a page has: each lists its images.
const NODES_PAGE: u32 = 100;
/// GpuNodes that a page has: each lists what its GPUs are offered as.
const GPU_NODES_PAGE: u32 = 50;
/// Events that are applied under one lock and told in one snapshot.
const BATCH_MAX: usize = 512;
/// Pods that never run again hold nothing: they are not sent at all.
const LIVE_PODS: &str = "status.phase!=Succeeded,status.phase!=Failed";

/// What the watches share.
#[derive(Debug, Clone)]
pub struct Feed {
    /// Where events go.
    pub store: Arc<Store>,
    /// What readiness says.
    pub progress: Arc<Progress>,
    /// What is counted.
    pub metrics: Arc<Metrics>,
}

/// Why a watch ended. Neither happens in ordinary operation: the process must end.
#[derive(Debug, thiserror::Error)]
pub enum WatchEnded {
    /// The stream of events, which has no end, ended.
    #[error("the watch on {0} ended")]
    Stream(Kind),
    /// The same, of one that not everybody needs.
    #[error("the watch on poddisruptionbudgets ended")]
    Budgets,
    /// The state cannot be trusted.
    #[error(transparent)]
    Broken(#[from] Broken),
}

/// Watches pods.
///
/// # Errors
/// [`WatchEnded`].
pub async fn pods(client: Client, feed: Feed) -> Result<(), WatchEnded> {
    run::<api::Pod>(Kind::Pods, client, live_pods(), feed, Event::Pod).await
}

/// Watches nodes.
///
/// # Errors
/// [`WatchEnded`].
pub async fn nodes(client: Client, feed: Feed) -> Result<(), WatchEnded> {
    let config = watcher::Config::default().page_size(NODES_PAGE);
    run::<api::Node>(Kind::Nodes, client, config, feed, Event::Node).await
}

/// Watches GpuNodes.
///
/// # Errors
/// [`WatchEnded`].
pub async fn gpu_nodes(client: Client, feed: Feed) -> Result<(), WatchEnded> {
    let config = watcher::Config::default().page_size(GPU_NODES_PAGE);
    run::<api::GpuNode>(Kind::GpuNodes, client, config, feed, Event::GpuNode).await
}

/// A watch without end: lists, then follows; failures are told, and tried again with growing waits.
pub(crate) fn stream<K: Watched + DeserializeOwned>(
    client: Client,
    config: watcher::Config,
) -> impl Stream<Item = watcher::Result<Watch<K>>> + Send {
    let config = config.timeout(WATCH_SECONDS);
    watch(Api::<K>::all_with(client, &K::resource()), config).default_backoff()
}

/// Pods that are or may come to be.
pub(crate) fn live_pods() -> watcher::Config {
    watcher::Config::default().fields(LIVE_PODS).page_size(PODS_PAGE)
}

/// Feeds the state with what a watch tells, as `event` words it.
pub(crate) async fn run<K: Watched + DeserializeOwned>(
    kind: Kind,
    client: Client,
    config: watcher::Config,
    feed: Feed,
    event: impl Fn(Change<K::Seen>) -> Event,
) -> Result<(), WatchEnded> {
    let Feed { store, progress, metrics } = feed;
    let mut stream = std::pin::pin!(stream::<K>(client, config).ready_chunks(BATCH_MAX));
    while let Some(batch) = stream.next().await {
        let now = Now::read();
        let listed = batch.iter().any(|told| matches!(told, Ok(Watch::InitDone)));
        let mut events = Vec::with_capacity(batch.len());
        for told in batch {
            match told {
                Ok(told) => {
                    // A list "begins" before the API server was asked for it.
                    if !matches!(told, Watch::Init) {
                        progress.works(kind);
                    }
                    events.push(event(change(told)));
                }
                Err(error) => {
                    metrics.watch_error(kind);
                    progress.failed(kind, &error);
                }
            }
        }
        if !events.is_empty() {
            let synced = store.change(|state| {
                events.into_iter().for_each(|event| state.apply(event, now));
                state.synced()
            })?;
            progress.synced(synced);
        }
        if listed {
            // Nobody waits for it: a request that comes now is not held up.
            tokio::task::spawn_blocking(memory::give_back);
        }
    }
    Err(WatchEnded::Stream(kind))
}

/// What a watch tells, in the state's words.
pub(crate) fn change<K: Watched>(told: Watch<K>) -> Change<K::Seen> {
    match told {
        Watch::Init => Change::ListBegins,
        Watch::InitApply(object) => Change::Listed(object.seen()),
        Watch::InitDone => Change::ListEnds,
        Watch::Apply(object) => Change::Applied(object.seen()),
        Watch::Delete(object) => Change::Deleted(object.key()),
    }
}
