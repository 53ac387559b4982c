//! Which pod is next: kube-scheduler's three queues, with the time as an argument.
//!
//! *Active* pods are tried by priority, then by how long ago they came or were last tried. A pod that no node takes
//! is *parked* until something happens that may help it (kube-scheduler's queueing hints, roughly), or
//! for at most [`QueueOptions::parked_max`]. Whoever comes back before its back-off has passed waits
//! that long in *backing off*; a pod that failed with an error goes there at once.

use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::choose::Rejectors;
use super::objects::Pod;

/// How patient the queue is. The default is kube-scheduler's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct QueueOptions {
    /// The first back-off of a pod; it doubles with each failed try.
    pub backoff_initial: Duration,
    /// The longest back-off.
    pub backoff_max: Duration,
    /// How long a pod is parked at most before it is tried again without a reason.
    pub parked_max: Duration,
}

impl Default for QueueOptions {
    fn default() -> Self {
        Self {
            backoff_initial: Duration::from_secs(1),
            backoff_max: Duration::from_secs(10),
            parked_max: Duration::from_secs(300),
        }
    }
}

/// Something that may let a parked pod in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum ClusterEvent {
    /// A node came or changed.
    Node,
    /// A pod got its node.
    PodPlaced,
    /// A pod gave its node up.
    PodGone,
    /// Somebody asks for another try of everything.
    Flush,
}

/// What came of a try.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Failure {
    /// No node takes the pod.
    Unfit(Rejectors),
    /// Something went wrong.
    Error,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Place {
    Active,
    BackingOff {
        until: Instant,
    },
    Parked {
        since: Instant,
        by: Rejectors,
    },
    /// Being tried, or bound.
    Out,
}

#[derive(Debug)]
struct Waiting {
    pod: Arc<Pod>,
    failures: u32,
    failed_at: Option<Instant>,
    /// Counts up with each arrival and each failure: the order among equals.
    order: u64,
    place: Place,
}

/// How many pods wait where.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Counts {
    pub(super) active: usize,
    pub(super) backing_off: usize,
    pub(super) parked: usize,
}

/// The queues. A pod is in at most one, under its UID.
#[derive(Debug, Default)]
pub(super) struct Queue {
    options: QueueOptions,
    waiting: BTreeMap<String, Waiting>,
    active: BTreeMap<(Reverse<i64>, u64), String>,
    /// The last order given out.
    orders: u64,
}

impl Queue {
    pub(super) fn new(options: QueueOptions) -> Self {
        Self { options, ..Self::default() }
    }

    /// A pod that wants a node, new or changed. A changed pod is tried again at once if it was parked.
    pub(super) fn put(&mut self, pod: Arc<Pod>, now: Instant) {
        let uid = pod.uid.clone();
        let Some(known) = self.waiting.get_mut(&uid) else {
            self.orders += 1;
            let (order, place) = (self.orders, Place::Out);
            self.waiting.insert(uid.clone(), Waiting { pod, failures: 0, failed_at: None, order, place });
            return self.activate(&uid);
        };
        // Only what the pod wants counts as a change: its status is written by schedulers themselves.
        let changed = known.pod.object["spec"] != pod.object["spec"];
        known.pod = pod;
        if changed && matches!(known.place, Place::Parked { .. }) {
            self.wake_one(&uid, now);
        }
    }

    /// A pod that wants no node any more: bound, gone, or held back.
    pub(super) fn remove(&mut self, uid: &str) -> Option<Arc<Pod>> {
        self.leave(uid);
        self.waiting.remove(uid).map(|waiting| waiting.pod)
    }

    /// The next pod to try; it stays known until [`remove`](Self::remove)d.
    pub(super) fn pop(&mut self, now: Instant) -> Option<Arc<Pod>> {
        self.ripen(now);
        let (_, uid) = self.active.pop_first()?;
        let waiting = self.waiting.get_mut(&uid)?;
        waiting.place = Place::Out;
        Some(waiting.pod.clone())
    }

    /// Takes a pod back after a try that failed.
    pub(super) fn fail(&mut self, uid: &str, failure: Failure, now: Instant) {
        let Some(waiting) = self.waiting.get_mut(uid).filter(|waiting| waiting.place == Place::Out) else {
            return;
        };
        waiting.failures = waiting.failures.saturating_add(1);
        waiting.failed_at = Some(now);
        self.orders += 1;
        waiting.order = self.orders;
        match failure {
            Failure::Unfit(by) => waiting.place = Place::Parked { since: now, by },
            Failure::Error => self.wake_one(uid, now),
        }
    }

    /// Something happened: parked pods that it may help are tried again.
    pub(super) fn wake(&mut self, event: ClusterEvent, now: Instant) {
        let helps = |by: &Rejectors| match event {
            ClusterEvent::Node | ClusterEvent::Flush => true,
            ClusterEvent::PodGone => by.resources || by.extender,
            ClusterEvent::PodPlaced => by.extender,
        };
        let parked =
            self.waiting.iter().filter(|(_, w)| matches!(&w.place, Place::Parked { by, .. } if helps(by)));
        let parked: Vec<String> = parked.map(|(uid, _)| uid.clone()).collect();
        parked.iter().for_each(|uid| self.wake_one(uid, now));
    }

    /// When time alone will make a pod active; `None` for never.
    pub(super) fn next_deadline(&self) -> Option<Instant> {
        let deadline = |waiting: &Waiting| match waiting.place {
            Place::BackingOff { until } => Some(until),
            Place::Parked { since, .. } => Some(since + self.options.parked_max),
            Place::Active | Place::Out => None,
        };
        self.waiting.values().filter_map(deadline).min()
    }

    pub(super) fn counts(&self) -> Counts {
        let mut counts = Counts::default();
        for waiting in self.waiting.values() {
            match waiting.place {
                Place::Active => counts.active += 1,
                Place::BackingOff { .. } => counts.backing_off += 1,
                Place::Parked { .. } => counts.parked += 1,
                Place::Out => {}
            }
        }
        counts
    }

    /// Makes active what has waited long enough.
    fn ripen(&mut self, now: Instant) {
        let parked_max = self.options.parked_max;
        let (mut ripe, mut stale) = (Vec::new(), Vec::new());
        for (uid, waiting) in &self.waiting {
            match waiting.place {
                Place::BackingOff { until } if until <= now => ripe.push(uid.clone()),
                Place::Parked { since, .. } if since + parked_max <= now => stale.push(uid.clone()),
                _ => {}
            }
        }
        ripe.iter().for_each(|uid| self.activate(uid));
        stale.iter().for_each(|uid| self.wake_one(uid, now));
    }

    /// Out of where it is: to the active pods, or to those that back off if it has not been long enough.
    fn wake_one(&mut self, uid: &str, now: Instant) {
        let Some(waiting) = self.waiting.get_mut(uid) else { return };
        let doubled = 2_u32.saturating_pow(waiting.failures.saturating_sub(1));
        let backoff = self.options.backoff_initial.saturating_mul(doubled).min(self.options.backoff_max);
        let until = waiting.failed_at.map_or(now, |at| at + backoff);
        if until <= now {
            return self.activate(uid);
        }
        waiting.place = Place::BackingOff { until };
    }

    fn activate(&mut self, uid: &str) {
        if let Some(waiting) = self.waiting.get_mut(uid) {
            waiting.place = Place::Active;
            self.active.insert((Reverse(waiting.pod.priority), waiting.order), uid.to_owned());
        }
    }

    fn leave(&mut self, uid: &str) {
        if let Some(waiting) = self.waiting.get(uid) {
            self.active.remove(&(Reverse(waiting.pod.priority), waiting.order));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const EXTENDER: Failure = Failure::Unfit(Rejectors { nodes: false, resources: false, extender: true });
    const RESOURCES: Failure = Failure::Unfit(Rejectors { nodes: false, resources: true, extender: false });
    const NODES: Failure = Failure::Unfit(Rejectors { nodes: true, resources: false, extender: false });

    fn pod(uid: &str, priority: i64) -> Arc<Pod> {
        Arc::new(Pod { uid: uid.into(), priority, ..Pod::default() })
    }

    fn pop(queue: &mut Queue, now: Instant) -> String {
        queue.pop(now).map(|pod| pod.uid.clone()).unwrap_or_default()
    }

    fn queue(backoff: Duration) -> (Queue, Instant) {
        let options = QueueOptions { backoff_initial: backoff, ..QueueOptions::default() };
        (Queue::new(options), Instant::now())
    }

    #[test]
    fn higher_priority_comes_first_and_then_the_older_one() {
        let (mut queue, now) = queue(Duration::ZERO);
        for (uid, priority) in [("a", 0), ("b", 9), ("c", 0), ("d", 9)] {
            queue.put(pod(uid, priority), now);
        }
        let order: Vec<String> = (0..4).map(|_| pop(&mut queue, now)).collect();
        assert_eq!(order, ["b", "d", "a", "c"]);
    }

    #[test]
    fn who_waits_longest_for_another_try_is_tried_first() {
        let (mut queue, now) = queue(Duration::ZERO);
        for uid in ["c", "b", "a"] {
            queue.put(pod(uid, 0), now);
            queue.pop(now).unwrap();
            queue.fail(uid, RESOURCES, now);
        }
        queue.put(pod("new", 0), now);
        queue.wake(ClusterEvent::PodGone, now);
        let order: Vec<String> = (0..4).map(|_| pop(&mut queue, now)).collect();
        assert_eq!(order, ["c", "b", "a", "new"]);
    }

    #[test]
    fn a_parked_pod_wakes_only_for_what_may_help_it() {
        use ClusterEvent::{Flush, Node, PodGone, PodPlaced};
        for (failure, waking) in [
            (NODES, vec![Node, Flush]),
            (RESOURCES, vec![Node, Flush, PodGone]),
            (EXTENDER, vec![Node, Flush, PodGone, PodPlaced]),
        ] {
            for event in [Node, PodPlaced, PodGone, Flush] {
                let (mut queue, now) = queue(Duration::ZERO);
                queue.put(pod("a", 0), now);
                queue.pop(now).unwrap();
                queue.fail("a", failure, now);
                assert_eq!(queue.counts().parked, 1);
                queue.wake(event, now);
                assert_eq!(queue.counts().active == 1, waking.contains(&event), "{failure:?} {event:?}");
            }
        }
    }

    #[test]
    fn back_off_doubles_up_to_its_bound() {
        let (mut queue, mut now) = queue(Duration::from_secs(1));
        queue.put(pod("a", 0), now);
        for seconds in [1, 2, 4, 8, 10, 10] {
            assert_eq!(pop(&mut queue, now), "a");
            queue.fail("a", Failure::Error, now);
            assert_eq!((pop(&mut queue, now), queue.counts().backing_off), (String::new(), 1));
            assert_eq!(queue.next_deadline(), Some(now + Duration::from_secs(seconds)));
            now += Duration::from_secs(seconds);
        }
    }

    #[test]
    fn nobody_is_parked_for_ever() {
        let (mut queue, now) = queue(Duration::from_secs(1));
        queue.put(pod("a", 0), now);
        queue.pop(now).unwrap();
        queue.fail("a", NODES, now);
        assert_eq!(pop(&mut queue, now + Duration::from_secs(299)), "");
        assert_eq!(pop(&mut queue, now + Duration::from_secs(300)), "a");
    }

    #[test]
    fn a_removed_pod_is_never_tried_and_takes_no_failure() {
        let (mut queue, now) = queue(Duration::ZERO);
        queue.put(pod("a", 0), now);
        queue.remove("a");
        queue.fail("a", Failure::Error, now);
        assert_eq!((pop(&mut queue, now), queue.counts()), (String::new(), Counts::default()));
    }
}
