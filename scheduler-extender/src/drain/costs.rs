//! Which pods of a ReplicaSet should go first when it is scaled down: pure.
//!
//! Kubernetes deletes the pod with the lowest `controller.kubernetes.io/pod-deletion-cost` first. Stowage gives the
//! lowest to the pod whose going makes most room for the requests to come. The numbers are coarse, so that they seldom
//! change; a number that somebody else wrote is never touched.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::time::{Duration, Instant};

use crate::book::objects::Pod;

/// One step of the cost: an eighth of a GPU, in thousandths.
const STEP_MILLI: u64 = 125;
/// The lowest cost that is written.
const LOWEST: i32 = -1000;
/// How long the cost of one pod stays as it was written.
const STAYS: Duration = Duration::from_secs(300);
/// How long until a write that failed is tried again: pods of which none succeeds leave something to the others.
const AGAIN: Duration = MINUTE;
const MINUTE: Duration = Duration::from_secs(60);

/// What a pod's going would free, as a cost: the more, the lower.
pub fn cost_of(freed_milli: u64) -> i32 {
    i32::try_from(freed_milli / STEP_MILLI).map_or(LOWEST, |steps| (-steps).max(LOWEST))
}

/// A cost to be written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Write {
    /// The pod.
    pub uid: String,
    /// Its cost.
    pub cost: i32,
}

/// Whether we may write a pod's cost: nobody has written one, or it is what we wrote.
fn is_ours(pod: &Pod) -> bool {
    pod.deletion_cost.is_none() || pod.deletion_cost == pod.our_deletion_cost
}

/// The cost as Kubernetes reads it.
fn current(pod: &Pod) -> i32 {
    pod.deletion_cost.as_deref().and_then(|text| text.parse().ok()).unwrap_or(0)
}

/// What should be written for the pods of one ReplicaSet, with their costs. Nothing where one pod is as good as another,
/// nor where somebody else decides for any of them: costs of two authors do not compare.
pub fn writes(pods: &[(&Pod, i32)]) -> Vec<Write> {
    let differ = |of: &dyn Fn(&(&Pod, i32)) -> i32| pods.windows(2).any(|two| of(&two[0]) != of(&two[1]));
    let needed = differ(&|(_, wanted)| *wanted) || differ(&|(pod, _)| current(pod));
    if !needed || !pods.iter().all(|(pod, _)| is_ours(pod)) {
        return Vec::new();
    }
    let stale = pods.iter().filter(|(pod, wanted)| current(pod) != *wanted);
    stale.map(|(pod, cost)| Write { uid: pod.uid.clone(), cost: *cost }).collect()
}

/// The pods whose order matters, by the ReplicaSet that made them: of those with one pod, it does not.
pub fn replica_sets<'a>(
    pods: impl Iterator<Item = (&'a Pod, i32)>,
) -> BTreeMap<&'a str, Vec<(&'a Pod, i32)>> {
    let mut sets: BTreeMap<&str, Vec<(&Pod, i32)>> = BTreeMap::new();
    for (pod, cost) in pods {
        if let Some((kind, uid)) = &pod.owner
            && kind == "ReplicaSet"
            && !pod.deleting
        {
            sets.entry(uid).or_default().push((pod, cost));
        }
    }
    sets.retain(|_, pods| pods.len() > 1);
    sets.values_mut().for_each(|pods| pods.sort_by(|(one, _), (two, _)| one.uid.cmp(&two.uid)));
    sets
}

/// How often something is written.
#[derive(Debug)]
pub struct Pace {
    per_minute: usize,
    written: VecDeque<Instant>,
    /// Until when nothing is written for a pod.
    pods: HashMap<String, Instant>,
}

impl Pace {
    /// So many writes a minute at most.
    pub fn new(per_minute: u32) -> Self {
        let per_minute = usize::try_from(per_minute).unwrap_or(usize::MAX);
        Self { per_minute, written: VecDeque::new(), pods: HashMap::new() }
    }

    /// Whether a pod's cost may be written now; if so, that is taken as done.
    pub fn may(&mut self, uid: &str, now: Instant) -> bool {
        while self.written.front().is_some_and(|at| now.saturating_duration_since(*at) >= MINUTE) {
            self.written.pop_front();
        }
        self.pods.retain(|_, until| now < *until);
        if self.written.len() >= self.per_minute || self.pods.contains_key(uid) {
            return false;
        }
        self.written.push_back(now);
        self.pods.insert(uid.to_owned(), now + STAYS);
        true
    }

    /// What was taken as done was not: it still counts in its minute.
    pub fn failed(&mut self, uid: &str, now: Instant) {
        self.pods.insert(uid.to_owned(), now + AGAIN);
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::book::tests::waiting;

    fn member(name: &str, cost: Option<&str>, ours: Option<&str>) -> Pod {
        Pod {
            node: "n1".into(),
            owner: Some(("ReplicaSet".into(), "r".into())),
            deletion_cost: cost.map(str::to_owned),
            our_deletion_cost: ours.map(str::to_owned),
            ..waiting(name, 0, json!({}))
        }
    }

    #[track_caller]
    fn check(pods: &[(Pod, i32)], want: &[(&str, i32)]) {
        let pods: Vec<(&Pod, i32)> = pods.iter().map(|(pod, cost)| (pod, *cost)).collect();
        let got: Vec<(String, i32)> =
            writes(&pods).into_iter().map(|write| (write.uid, write.cost)).collect();
        assert_eq!(got, want.iter().map(|(uid, cost)| ((*uid).to_owned(), *cost)).collect::<Vec<_>>());
    }

    #[test]
    fn the_pod_whose_going_frees_most_goes_first() {
        assert_eq!([0, 124, 125, 1000, u64::MAX].map(cost_of), [0, 0, -1, -8, LOWEST]);
        check(&[(member("a", None, None), 0), (member("b", None, None), -8)], &[("b", -8)]);
    }

    #[test]
    fn nothing_is_written_where_one_is_as_good_as_another() {
        check(&[(member("a", None, None), -8), (member("b", None, None), -8)], &[]);
        let ours = || member("a", Some("-8"), Some("-8"));
        check(&[(ours(), -8), (member("b", None, None), 0)], &[]);
        check(&[(ours(), -8), (member("b", None, None), -8)], &[("b", -8)]);
    }

    #[test]
    fn what_somebody_else_wrote_is_never_touched() {
        check(&[(member("a", Some("5"), None), 0), (member("b", None, None), -8)], &[]);
        check(&[(member("a", Some("5"), Some("-8")), 0), (member("b", None, None), -8)], &[]);
        check(&[(member("a", Some("x"), None), 0), (member("b", None, None), -8)], &[]);
    }

    #[test]
    fn only_replica_sets_with_a_choice_are_looked_at() {
        let single = Pod { owner: Some(("ReplicaSet".into(), "s".into())), ..member("c", None, None) };
        let other = Pod { owner: Some(("StatefulSet".into(), "t".into())), ..member("d", None, None) };
        let pods = [member("b", None, None), member("a", None, None), single, other];
        let sets = replica_sets(pods.iter().map(|pod| (pod, 0)));
        let names: Vec<&str> = sets.values().flatten().map(|(pod, _)| &*pod.uid).collect();
        assert_eq!(names, ["a", "b"]);
    }

    #[test]
    fn writes_are_few() {
        let start = Instant::now();
        let mut pace = Pace::new(2);
        let mut may = |uid, seconds| pace.may(uid, start + Duration::from_secs(seconds));
        assert_eq!([may("a", 0), may("b", 1), may("c", 2), may("c", 60)], [true, true, false, true]);
        assert_eq!([may("a", 200), may("a", 300)], [false, true]);
    }

    #[test]
    fn a_write_that_failed_is_tried_again_soon_and_counts_in_its_minute() {
        let start = Instant::now();
        let after = |seconds| start + Duration::from_secs(seconds);
        let mut pace = Pace::new(1);
        assert!(pace.may("a", after(0)));
        pace.failed("a", after(1));
        assert_eq!(
            [("b", 59), ("a", 60), ("a", 61), ("a", 361)].map(|(uid, at)| pace.may(uid, after(at))),
            [false, false, true, true]
        );
    }
}
