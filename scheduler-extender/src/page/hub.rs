//! Keeps the picture while somebody watches.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use anyhow::anyhow;
use ops::Fault;
use stowage_shared::contract::MAP_READERS_MAX;
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore, watch};

use super::paint::Painter;
use super::scene::{Change, Scene};
use crate::state::{Broken, Snapshot, Store};

/// How often it is looked whether there is a newer snapshot: a pointer is compared.
const LOOK: Duration = Duration::from_millis(20);
/// Between two looks at the nodes, at least: who watches a busy cluster is told four times a second.
const NODES_EVERY: Duration = Duration::from_millis(250);
/// The same for the pods that wait.
const CLUSTER_EVERY: Duration = Duration::from_secs(1);
/// How often it is looked which nodes have become too old, if nothing else happens.
const AGES_EVERY: Duration = Duration::from_secs(5);
/// How long the picture is kept when nobody watches: a page that is loaded again needs none made.
const KEEP: Duration = Duration::from_secs(30);

/// The picture, who keeps it, and for whom.
#[derive(Debug)]
pub(super) struct Hub {
    store: Arc<Store>,
    scene: Mutex<Scene>,
    version: watch::Sender<u64>,
    slots: Arc<Semaphore>,
    came: Notify,
}

/// A reader's place.
#[derive(Debug)]
pub(super) struct Reader {
    _slot: OwnedSemaphorePermit,
    /// Changes with the picture.
    pub(super) version: watch::Receiver<u64>,
}

impl Hub {
    pub(super) fn new(store: Arc<Store>) -> Self {
        Self {
            store,
            scene: Mutex::default(),
            version: watch::Sender::new(0),
            slots: Arc::new(Semaphore::new(MAP_READERS_MAX)),
            came: Notify::new(),
        }
    }

    /// A place, if one is free.
    pub(super) fn join(&self) -> Option<Reader> {
        let slot = self.slots.clone().try_acquire_owned().ok()?;
        self.came.notify_one();
        Some(Reader { _slot: slot, version: self.version.subscribe() })
    }

    /// The picture. Whoever holds it does so for microseconds.
    pub(super) fn scene(&self) -> MutexGuard<'_, Scene> {
        // Changes are taken in node by node, each whole: a panic leaves none half-done.
        self.scene.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Keeps the picture, without end.
    ///
    /// # Errors
    /// A [`Fault`] where the state cannot be trusted any more.
    pub(super) async fn run(self: Arc<Self>) -> Result<(), Fault> {
        loop {
            self.came.notified().await;
            self.watch().await?;
            self.scene().clear();
        }
    }

    fn is_watched(&self) -> bool {
        self.slots.available_permits() < MAP_READERS_MAX
    }

    /// Keeps the picture until nobody has watched for a while.
    async fn watch(self: &Arc<Self>) -> Result<(), Fault> {
        let mut look = Look::default();
        let mut watched = Instant::now();
        loop {
            let now = Instant::now();
            if self.is_watched() {
                watched = now;
            } else if now.duration_since(watched) >= KEEP {
                return Ok(());
            }
            let snapshot = self.store.snapshot();
            if snapshot.synced && look.is_due(&snapshot, now) {
                let hub = self.clone();
                // Looking at thousands of nodes takes longer than a filter may wait.
                let looked =
                    tokio::task::spawn_blocking(move || look.take(&hub, snapshot).map(|()| look)).await;
                look = looked
                    .map_err(|panic| Fault::software(anyhow!("the map's painter failed: {panic}")))?
                    .map_err(Fault::software)?;
            }
            tokio::time::sleep(LOOK).await;
        }
    }

    fn tell(&self, change: Change) {
        let version = {
            let mut scene = self.scene();
            if !scene.apply(change) {
                return;
            }
            scene.version()
        };
        self.version.send_replace(version);
    }
}

/// What was looked at when.
#[derive(Default)]
struct Look {
    painter: Painter,
    nodes: Option<(Instant, Arc<Snapshot>)>,
    cluster: Option<(Instant, Arc<Snapshot>)>,
}

impl Look {
    fn is_due(&self, snapshot: &Arc<Snapshot>, now: Instant) -> bool {
        self.nodes_due(snapshot, now) || self.cluster_due(snapshot, now)
    }

    fn nodes_due(&self, snapshot: &Arc<Snapshot>, now: Instant) -> bool {
        due(self.nodes.as_ref(), NODES_EVERY, snapshot, now)
    }

    fn cluster_due(&self, snapshot: &Arc<Snapshot>, now: Instant) -> bool {
        due(self.cluster.as_ref(), CLUSTER_EVERY, snapshot, now)
    }

    fn take(&mut self, hub: &Hub, snapshot: Arc<Snapshot>) -> Result<(), Broken> {
        let now = Instant::now();
        // Nodes first: they are what a reader waits for.
        if self.nodes_due(&snapshot, now) {
            self.painter.nodes(&hub.store, &snapshot, now, &mut |change| hub.tell(change))?;
            self.nodes = Some((now, snapshot.clone()));
        }
        if self.cluster_due(&snapshot, now) {
            hub.tell(self.painter.cluster(&hub.store, &snapshot, now)?);
            self.cluster = Some((now, snapshot));
        }
        Ok(())
    }
}

fn due(
    last: Option<&(Instant, Arc<Snapshot>)>,
    every: Duration,
    snapshot: &Arc<Snapshot>,
    now: Instant,
) -> bool {
    last.is_none_or(|(at, seen)| {
        let since = now.saturating_duration_since(*at);
        since >= every && !Arc::ptr_eq(seen, snapshot) || since >= AGES_EVERY
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn readers_are_bounded_and_leave_their_place() {
        let hub = Hub::new(Arc::default());
        let readers: Vec<Reader> = (0..MAP_READERS_MAX).map(|_| hub.join().unwrap()).collect();
        assert!(hub.join().is_none() && hub.is_watched());
        drop(readers);
        assert!(hub.join().is_some() && !hub.is_watched());
    }

    #[test]
    fn a_busy_cluster_is_told_of_a_few_times_a_second() {
        let (start, old, new) = (Instant::now(), Arc::default(), Arc::default());
        let last = (start, Arc::clone(&old));
        let at =
            |millis, snapshot| due(Some(&last), NODES_EVERY, snapshot, start + Duration::from_millis(millis));
        assert_eq!(
            [at(249, &new), at(250, &new), at(4_999, &old), at(5_000, &old)],
            [false, true, false, true]
        );
        assert!(due(None, NODES_EVERY, &new, start), "the first look is at once");
    }
}
