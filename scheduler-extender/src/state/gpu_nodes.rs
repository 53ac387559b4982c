//! What a GpuNode tells, checked, and until when it is believed.

use std::sync::Arc;
use std::time::{Duration, Instant};

use jiff::Timestamp;
use ops::chain;
use stowage_shared::contract::GPU_NODE_STALE;
use stowage_shared::gpu::Gpu;
use stowage_shared::gpu_node::AllocationStatus;
use stowage_shared::resource::ResourceName;

use super::classes::Classes;
use super::event;
use super::interned::Interned;
use crate::clock::Now;

/// A GpuNode as it was last received.
#[derive(Debug)]
pub(super) struct GpuNode {
    /// What it tells; `Err` with the reason where it cannot be believed.
    pub(super) content: Result<Content, String>,
    observed_at: String,
    received: Instant,
    /// Until when it is believed.
    pub(super) fresh_until: Instant,
}

/// What a GpuNode tells.
#[derive(Debug)]
pub(super) struct Content {
    pub(super) node_uid: String,
    /// By index.
    pub(super) gpus: Vec<Arc<Gpu>>,
    pub(super) allocations: Box<[Allocation]>,
}

/// What a container holds: an [`AllocationStatus`], with one copy of what many say alike.
#[derive(Debug)]
pub(super) struct Allocation {
    pub(super) namespace: Arc<str>,
    pub(super) pod: Box<str>,
    pub(super) uid: Box<str>,
    container: Arc<str>,
    pub(super) resource: Arc<ResourceName>,
    pub(super) device_ids: Box<[String]>,
}

/// One copy of each namespace, name of a container, and resource name.
#[derive(Debug, Default)]
pub(super) struct Words {
    texts: Interned<str>,
    resources: Interned<ResourceName>,
}

impl Allocation {
    fn of(held: AllocationStatus, words: &mut Words) -> Self {
        Self {
            namespace: words.texts.of(held.namespace),
            pod: held.pod.into(),
            uid: held.uid.into(),
            container: words.texts.of(held.container),
            resource: words.resources.of(held.resource),
            device_ids: held.device_ids.into(),
        }
    }

    /// As the GpuNode had it.
    pub(super) fn status(&self) -> AllocationStatus {
        AllocationStatus {
            namespace: self.namespace.to_string(),
            pod: self.pod.to_string(),
            uid: self.uid.to_string(),
            container: self.container.to_string(),
            resource: (*self.resource).clone(),
            device_ids: self.device_ids.to_vec(),
        }
    }
}

impl GpuNode {
    /// Reads what was received; `before` is what was known of the same node.
    pub(super) fn read(
        seen: event::GpuNode,
        before: Option<&Self>,
        classes: &mut Classes,
        words: &mut Words,
        now: Now,
    ) -> (String, Self) {
        let observed_at = seen.status.as_ref().map_or("", |status| &status.observed_at).to_owned();
        let (received, fresh_until) = match before {
            Some(before) if before.observed_at == observed_at => (before.received, before.fresh_until),
            _ => {
                let age = age(&observed_at, before.map(|before| before.received), now);
                (now.monotonic, now.monotonic + GPU_NODE_STALE.saturating_sub(age))
            }
        };
        let content = seen.status.and_then(|status| {
            if observed_at.parse::<Timestamp>().is_err() {
                return Err(format!(
                    "observedAt is {observed_at:?}, not a time such as 2026-01-31T12:00:00Z"
                ));
            }
            let mut gpus = status.inventory().map_err(|error| chain(&error))?;
            gpus.sort_by_key(|gpu| gpu.index);
            let shared = |mut gpu: Gpu| {
                gpu.part_uuids.shrink_to_fit();
                Arc::new(Gpu { kind: classes.kind(&gpu.kind), ..gpu })
            };
            let gpus = gpus.into_iter().map(shared).collect();
            let allocations = status.allocations.into_iter().map(|held| Allocation::of(held, words));
            Ok(Content { node_uid: status.node_uid, gpus, allocations: allocations.collect() })
        });
        (seen.name, Self { content, observed_at, received, fresh_until })
    }
}

/// How old a GpuNode is that was just received.
///
/// The timestamp was written by another machine, and either clock may be wrong. But it cannot be older than the
/// last time that another one was received from the same node: so a clock that jumps makes no node stale that
/// goes on publishing. At the first sight there is only the timestamp.
fn age(observed_at: &str, received: Option<Instant>, now: Now) -> Duration {
    let by_clock = observed_at.parse::<Timestamp>().map_or(GPU_NODE_STALE, |observed| {
        // In the future means written by a clock that is ahead of ours: as good as now.
        Duration::try_from(now.wall.duration_since(observed)).unwrap_or_default()
    });
    let since_last = received.map(|received| now.monotonic.saturating_duration_since(received));
    since_last.map_or(by_clock, |since| since.min(by_clock))
}
