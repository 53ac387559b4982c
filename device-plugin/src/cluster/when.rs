//! When the GpuNode is written: at once where others must know it, soon where they know it already, and where nothing
//! changes often enough to be believed. Pure.

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
    /// How long after a write the next one is due although nothing changed.
    heartbeat: Duration,
    last: Option<Last>,
    /// Until when a change waits that nobody needs to know at once.
    put_off: Option<Instant>,
}

/// What was written last.
struct Last {
    at: Instant,
    status: GpuNodeStatus,
    /// How many allocations there had been by then that were not as planned.
    unplanned: u64,
}

impl When {
    /// Nothing is written yet.
    pub(super) fn new(node: &str) -> Self {
        Self { heartbeat: heartbeat(node), last: None, put_off: None }
    }

    /// Whether a write is due although nothing may have changed.
    pub(super) fn is_due(&self, now: Instant) -> bool {
        self.heartbeat_at().is_none_or(|at| now >= at)
    }

    fn heartbeat_at(&self) -> Option<Instant> {
        self.last.as_ref().map(|last| last.at + self.heartbeat)
    }

    /// When the next write is due if nothing else changes.
    pub(super) fn next(&self) -> Option<Instant> {
        self.put_off.or(self.heartbeat_at())
    }

    /// Whether this is to be written now. A change that says only that pods got what was planned for them is no sooner than
    /// [`GPU_NODE_CONFIRM`] after it was first seen. `unplanned` is how many allocations were not as planned, ever.
    pub(super) fn is_now(&mut self, status: &GpuNodeStatus, unplanned: u64, now: Instant) -> bool {
        let Some(last) = self.last.as_ref().filter(|_| !self.is_due(now)) else { return true };
        if last.status == *status {
            self.put_off = None;
            return false;
        }
        let can_wait = last.unplanned == unplanned && status::confirms(&last.status, status);
        !can_wait || now >= *self.put_off.get_or_insert(now + GPU_NODE_CONFIRM)
    }

    /// It was written.
    pub(super) fn written(&mut self, status: GpuNodeStatus, unplanned: u64, now: Instant) {
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

    fn held_by(pods: &[&str]) -> GpuNodeStatus {
        let held = |pod: &&str| AllocationStatus {
            namespace: "default".into(),
            pod: (*pod).into(),
            uid: String::new(),
            container: "main".into(),
            resource: "nvidia.com/gpu".parse().unwrap(),
            device_ids: vec![format!("GPU-{pod}")],
        };
        GpuNodeStatus { allocations: pods.iter().map(held).collect(), ..GpuNodeStatus::default() }
    }

    #[test]
    fn what_was_planned_waits_a_little_and_everything_else_not_at_all() {
        let (mut when, start) = (When::new("n"), Instant::now());
        assert!(when.is_now(&held_by(&[]), 0, start), "nobody has been told anything");
        when.written(held_by(&[]), 0, start);
        assert!(!when.is_now(&held_by(&[]), 0, start + MOMENT), "nothing has changed");

        let seen = start + MOMENT;
        assert!(!when.is_now(&held_by(&["a"]), 0, seen), "it was planned");
        assert_eq!(when.next(), Some(seen + GPU_NODE_CONFIRM));
        assert!(!when.is_now(&held_by(&["a", "b"]), 0, seen + GPU_NODE_CONFIRM - MOMENT), "so was this");
        assert!(
            when.is_now(&held_by(&["a", "b"]), 0, seen + GPU_NODE_CONFIRM),
            "the first has waited enough"
        );
        when.written(held_by(&["a", "b"]), 0, seen + GPU_NODE_CONFIRM);

        assert!(when.is_now(&held_by(&["a"]), 0, seen + GPU_NODE_CONFIRM), "something is free");
        assert!(when.is_now(&held_by(&["a", "b", "c"]), 1, seen + GPU_NODE_CONFIRM), "it was not planned");
    }

    #[test]
    fn what_is_taken_back_before_it_was_told_is_not_told() {
        let (mut when, start) = (When::new("n"), Instant::now());
        when.written(held_by(&[]), 0, start);
        assert!(!when.is_now(&held_by(&["a"]), 0, start));
        assert!(!when.is_now(&held_by(&[]), 0, start + MOMENT));
        assert!(when.next() > Some(start + GPU_NODE_CONFIRM), "nothing is put off");
    }

    #[test]
    fn an_unchanged_status_is_repeated() {
        let (mut when, start) = (When::new("n"), Instant::now());
        when.written(held_by(&["a"]), 0, start);
        let due = when.next().unwrap();
        assert!(!when.is_now(&held_by(&["a"]), 0, due - MOMENT) && when.is_now(&held_by(&["a"]), 0, due));
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
