//! When the GpuNode is written: at once where others must know it, soon where they know it already, and where nothing
//! changes often enough to be believed. And when the Node is read, whose UID it tells. Pure.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::time::Duration;

use stowage_shared::contract::{GPU_NODE_CONFIRM, GPU_NODE_HEARTBEAT};
use stowage_shared::gpu_node::GpuNodeStatus;
use tokio::time::Instant;

use super::status;

/// So long before [`GPU_NODE_HEARTBEAT`] a write is due at least and at most, so that it is never too late.
const EARLY: (Duration, Duration) = (Duration::from_secs(20), Duration::from_secs(80));

/// When one node's GpuNode is written.
pub(super) struct When {
    /// How long after a write the next one is due although nothing changed, and so for the reading of the Node.
    heartbeat: Duration,
    last: Option<Last>,
    /// When the Node was read last.
    node_read: Option<Instant>,
    /// Until when a change waits that nobody needs to know at once.
    put_off: Option<Instant>,
}

/// What there is to write.
pub(super) struct News {
    /// The status.
    pub(super) status: GpuNodeStatus,
    /// How many allocations were not as planned, ever.
    pub(super) unplanned: u64,
    /// Whether an allocation is not in the status yet: pod-resources has still to show it.
    pub(super) awaited: bool,
}

/// What was written last.
struct Last {
    at: Instant,
    status: GpuNodeStatus,
    /// How many allocations that were not as planned it tells for sure.
    unplanned: u64,
}

impl When {
    /// Nothing is written yet.
    pub(super) fn new(node: &str) -> Self {
        Self { heartbeat: heartbeat(node), last: None, node_read: None, put_off: None }
    }

    /// Whether a write is due although nothing may have changed.
    fn is_due(&self, now: Instant) -> bool {
        self.heartbeat_at().is_none_or(|at| now >= at)
    }

    fn heartbeat_at(&self) -> Option<Instant> {
        self.last.as_ref().map(|last| last.at + self.heartbeat)
    }

    /// Whether the Node is to be read again: one that was deleted and made again has another UID. That counts from the last
    /// reading, since a busy node's GpuNode is written so often that it is never due.
    pub(super) fn is_node_due(&self, now: Instant) -> bool {
        self.node_at().is_none_or(|at| now >= at)
    }

    fn node_at(&self) -> Option<Instant> {
        self.node_read.map(|at| at + self.heartbeat)
    }

    /// The Node was read.
    pub(super) fn node_read(&mut self, now: Instant) {
        self.node_read = Some(now);
    }

    /// When there is something to do if nothing else changes.
    pub(super) fn next(&self) -> Option<Instant> {
        self.put_off.or_else(|| self.heartbeat_at().into_iter().chain(self.node_at()).min())
    }

    /// Whether this is to be written now. A change that says only that pods got what was planned for them is no sooner than
    /// [`GPU_NODE_CONFIRM`] after it was first seen.
    pub(super) fn is_now(&mut self, News { status, unplanned, .. }: &News, now: Instant) -> bool {
        let Some(last) = self.last.as_ref().filter(|_| !self.is_due(now)) else { return true };
        if last.status == *status {
            self.put_off = None;
            return false;
        }
        let can_wait = last.unplanned == *unplanned && status::confirms(&last.status, status);
        !can_wait || now >= *self.put_off.get_or_insert(now + GPU_NODE_CONFIRM)
    }

    /// It was written.
    pub(super) fn written(&mut self, News { status, unplanned, awaited }: News, now: Instant) {
        // Which allocation is awaited is not known: it may be one that was not as planned, and is still to be told.
        let told = self.last.as_ref().map_or(0, |last| last.unplanned);
        let unplanned = if awaited { told } else { unplanned };
        self.last = Some(Last { at: now, status, unplanned });
        self.put_off = None;
    }
}

/// How long after a write a node's next one is due: each node has its own time, or plugins that began together, as in a rolling
/// update, would write together ever after.
fn heartbeat(node: &str) -> Duration {
    let (least, most) = EARLY;
    let mut hasher = DefaultHasher::new();
    node.hash(&mut hasher);
    let thousandths = u32::try_from(hasher.finish() % 1000).unwrap_or(0);
    GPU_NODE_HEARTBEAT - least - (most - least) * thousandths / 1000
}

#[cfg(test)]
mod tests {
    use stowage_shared::gpu_node::AllocationStatus;

    use super::*;

    const MOMENT: Duration = Duration::from_millis(1);

    /// These pods hold something, and so many allocations were not as planned, all of them shown.
    fn held_by(pods: &[&str], unplanned: u64) -> News {
        let held = |pod: &&str| AllocationStatus {
            namespace: "default".into(),
            pod: (*pod).into(),
            uid: String::new(),
            container: "main".into(),
            resource: "nvidia.com/gpu".parse().unwrap(),
            device_ids: vec![format!("GPU-{pod}")],
        };
        let allocations = pods.iter().map(held).collect();
        let status = GpuNodeStatus { allocations, ..GpuNodeStatus::default() };
        News { status, unplanned, awaited: false }
    }

    #[test]
    fn what_was_planned_waits_a_little_and_everything_else_not_at_all() {
        let (mut when, start) = (When::new("n"), Instant::now());
        assert!(when.is_now(&held_by(&[], 0), start), "nobody has been told anything");
        when.written(held_by(&[], 0), start);
        assert!(!when.is_now(&held_by(&[], 0), start + MOMENT), "nothing has changed");

        let seen = start + MOMENT;
        assert!(!when.is_now(&held_by(&["a"], 0), seen), "it was planned");
        assert_eq!(when.next(), Some(seen + GPU_NODE_CONFIRM));
        assert!(!when.is_now(&held_by(&["a", "b"], 0), seen + GPU_NODE_CONFIRM - MOMENT), "so was this");
        assert!(
            when.is_now(&held_by(&["a", "b"], 0), seen + GPU_NODE_CONFIRM),
            "the first has waited enough"
        );
        when.written(held_by(&["a", "b"], 0), seen + GPU_NODE_CONFIRM);

        assert!(when.is_now(&held_by(&["a"], 0), seen + GPU_NODE_CONFIRM), "something is free");
        assert!(when.is_now(&held_by(&["a", "b", "c"], 1), seen + GPU_NODE_CONFIRM), "it was not planned");
    }

    #[test]
    fn what_is_taken_back_before_it_was_told_is_not_told() {
        let (mut when, start) = (When::new("n"), Instant::now());
        when.written(held_by(&[], 0), start);
        assert!(!when.is_now(&held_by(&["a"], 0), start));
        assert!(!when.is_now(&held_by(&[], 0), start + MOMENT));
        assert!(when.next() > Some(start + GPU_NODE_CONFIRM), "nothing is put off");
    }

    /// Another write between the two once made the second look like what was planned.
    #[test]
    fn an_allocation_that_was_not_planned_is_told_at_once_however_often_is_written_before_it_is_shown() {
        let (mut when, start) = (When::new("n"), Instant::now());
        when.written(held_by(&["a"], 0), start);
        let freed = || News { awaited: true, ..held_by(&[], 1) };
        assert!(when.is_now(&freed(), start), "something is free");
        when.written(freed(), start);
        assert!(when.is_now(&held_by(&["b"], 1), start + MOMENT), "it was not planned");
        when.written(held_by(&["b"], 1), start + MOMENT);
        assert!(!when.is_now(&held_by(&["b", "c"], 1), start + MOMENT), "this was");
    }

    /// It was once read with the heartbeat only, which counts from the last write: the UID of a Node that was made again was
    /// never learned while its pods came and went.
    #[test]
    fn the_node_is_read_again_however_often_is_written() {
        let (mut when, start) = (When::new("n"), Instant::now());
        assert!(when.is_node_due(start), "it was never read");
        when.node_read(start);
        let mut now = start;
        while !when.is_node_due(now) {
            when.written(held_by(&[], 0), now);
            assert!(when.next().unwrap() - start < GPU_NODE_HEARTBEAT);
            now += Duration::from_secs(1);
        }
        when.node_read(now);
        assert!(!when.is_node_due(now));
    }

    #[test]
    fn an_unchanged_status_is_repeated() {
        let (mut when, start) = (When::new("n"), Instant::now());
        when.written(held_by(&["a"], 0), start);
        let due = when.next().unwrap();
        assert!(!when.is_now(&held_by(&["a"], 0), due - MOMENT) && when.is_now(&held_by(&["a"], 0), due));
        assert!(when.is_due(due) && due - start < GPU_NODE_HEARTBEAT);
    }

    #[test]
    fn heartbeats_are_never_late_and_spread() {
        let all: Vec<Duration> = (0..1000).map(|n| heartbeat(&format!("gpu-node-{n}"))).collect();
        assert!(
            all.iter().all(|it| (GPU_NODE_HEARTBEAT - EARLY.1..=GPU_NODE_HEARTBEAT - EARLY.0).contains(it))
        );
        let early = all.iter().filter(|it| **it < GPU_NODE_HEARTBEAT - (EARLY.0 + EARLY.1) / 2).count();
        assert!((400..600).contains(&early), "{early} of 1000 in the first half");
    }
}
