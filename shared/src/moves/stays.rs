//! Which pods must stay where they are, and why.
//!
//! Whoever moves somebody else's pod has to be sure that it comes back. The rules are those of cluster-autoscaler, and
//! stricter where a GPU pod loses more by a restart. `kubectl stowage defrag` and the extender's `--defrag` both ask here,
//! so that what one proposes the other does not refuse.

use std::fmt;

use crate::contract::{DISRUPTABLE_ANNOTATION, MIRROR_ANNOTATION, SAFE_TO_EVICT_ANNOTATION};

/// From here on priorities are those of the system.
const CRITICAL: i32 = 1_000_000_000;

/// What a pod says about being moved, in a few bytes: a cluster has tens of thousands of them.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Ties {
    /// Its author's word, `stowage.dev/disruptable`; `None` where it is neither `"true"` nor `"false"`.
    pub disruptable: Option<bool>,
    /// The same for cluster-autoscaler.
    pub safe_to_evict: Option<bool>,
    /// Whether it is a static pod, which no eviction ends.
    pub is_static: bool,
    /// Whether anything on its node is gone with it.
    pub local_storage: bool,
}

impl Ties {
    /// Reads a pod's annotations; `get` looks one up by its key.
    pub fn read<'a>(get: impl Fn(&str) -> Option<&'a str>, local_storage: bool) -> Self {
        let flag = |key: &str| match get(key) {
            Some("true") => Some(true),
            Some("false") => Some(false),
            _ => None,
        };
        Self {
            disruptable: flag(DISRUPTABLE_ANNOTATION),
            safe_to_evict: flag(SAFE_TO_EVICT_ANNOTATION),
            is_static: get(MIRROR_ANNOTATION).is_some(),
            local_storage,
        }
    }
}

/// A pod that holds devices, as far as it matters whether it may be moved.
#[derive(Debug, Clone, Copy)]
pub struct Tenant<'a> {
    /// What it says.
    pub ties: Ties,
    /// Whether its containers run and its deletion was not asked for.
    pub runs: bool,
    /// Its priority.
    pub priority: i32,
    /// The kind of its controller, if it has one.
    pub controller: Option<&'a str>,
    /// Whether its controller's next pod is placed by Stowage.
    pub ours: bool,
    /// Whether it has placement policies that whoever asks does not weigh.
    pub has_policies: bool,
    /// What else it asks of its node that whoever asks does not look at.
    pub not_looked_at: Option<&'a str>,
}

/// Why a pod stays.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stays<'a> {
    /// Its author says so.
    NotDisruptable,
    /// Its author tells cluster-autoscaler so.
    NotSafeToEvict,
    /// It starts, or ends already.
    DoesNotRun,
    /// The kubelet alone starts and ends it.
    Static,
    /// It is of the system.
    System,
    /// It would be gone for good.
    NoController,
    /// Its place is its node.
    DaemonSet,
    /// It has a name and perhaps a state of its own.
    StatefulSet,
    /// What it has done so far would be lost.
    Job,
    /// Nobody knows where its like would go.
    OtherScheduler,
    /// They may forbid where it should go.
    Policies,
    /// The same of something else.
    NotLookedAt(&'a str),
    /// What is on its node would be lost.
    LocalStorage,
    /// The API server refuses an eviction that several budgets are about.
    SeveralBudgets,
    /// That budget allows none.
    Budget(&'a str),
    /// It is as important as who waits, or more, and its author has not agreed.
    Priority,
}

impl Stays<'_> {
    /// The same as a word, for metrics.
    pub fn label(self) -> &'static str {
        match self {
            Self::NotDisruptable => "not_disruptable",
            Self::NotSafeToEvict => "not_safe_to_evict",
            Self::DoesNotRun => "does_not_run",
            Self::Static => "static_pod",
            Self::System | Self::Priority => "priority",
            Self::NoController => "no_controller",
            Self::DaemonSet => "daemon_set",
            Self::StatefulSet => "stateful_set",
            Self::Job => "job",
            Self::OtherScheduler => "other_scheduler",
            Self::Policies | Self::NotLookedAt(_) => "not_looked_at",
            Self::LocalStorage => "local_storage",
            Self::SeveralBudgets | Self::Budget(_) => "disruption_budget",
        }
    }
}

impl fmt::Display for Stays<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotDisruptable => write!(f, "{DISRUPTABLE_ANNOTATION} is \"false\""),
            Self::NotSafeToEvict => write!(f, "{SAFE_TO_EVICT_ANNOTATION} is \"false\""),
            Self::DoesNotRun => f.write_str("it does not run"),
            Self::Static => f.write_str("it is a static pod"),
            Self::System => f.write_str("its priority is the system's"),
            Self::NoController => f.write_str("no controller would make it again"),
            Self::DaemonSet => f.write_str("a DaemonSet runs it on its node"),
            Self::StatefulSet => f.write_str("it is of a StatefulSet (--stateful-sets)"),
            Self::Job => f.write_str("it is of a Job, whose work would be lost"),
            Self::OtherScheduler => f.write_str("another scheduler would place it"),
            Self::Policies => f.write_str("it has placement policies, which the search does not weigh"),
            Self::NotLookedAt(what) => write!(f, "the search does not look at {what}"),
            Self::LocalStorage => f.write_str("it has local storage"),
            Self::SeveralBudgets => {
                f.write_str("several PodDisruptionBudgets cover it, and eviction is refused")
            }
            Self::Budget(name) => write!(f, "the PodDisruptionBudget {name} allows no disruption now"),
            Self::Priority => f.write_str("it is no less important than the pod that waits"),
        }
    }
}

/// Why a pod must stay; `None` where it may be moved. `budgets` are those that cover it, each with how many disruptions it
/// allows now.
///
/// `stowage.dev/disruptable: "true"` is its author's word that a restart elsewhere does no harm: then a Job, a
/// StatefulSet or local storage are no reason. Budgets and controllers count in any case.
pub fn why_it_stays<'a>(
    pod: &Tenant<'a>,
    budgets: impl IntoIterator<Item = (&'a str, i64)>,
    stateful_sets: bool,
) -> Option<Stays<'a>> {
    let agreed = pod.ties.disruptable == Some(true);
    if pod.ties.disruptable == Some(false) {
        return Some(Stays::NotDisruptable);
    }
    if pod.ties.safe_to_evict == Some(false) {
        return Some(Stays::NotSafeToEvict);
    }
    if !pod.runs {
        return Some(Stays::DoesNotRun);
    }
    if pod.ties.is_static {
        return Some(Stays::Static);
    }
    if pod.priority >= CRITICAL {
        return Some(Stays::System);
    }
    match pod.controller {
        None => return Some(Stays::NoController),
        Some("DaemonSet") => return Some(Stays::DaemonSet),
        Some("StatefulSet") if !agreed && !stateful_sets => return Some(Stays::StatefulSet),
        Some("Job") if !agreed => return Some(Stays::Job),
        Some(_) => {}
    }
    if !pod.ours {
        return Some(Stays::OtherScheduler);
    }
    if pod.has_policies {
        return Some(Stays::Policies);
    }
    if let Some(what) = pod.not_looked_at {
        return Some(Stays::NotLookedAt(what));
    }
    if pod.ties.local_storage && !agreed && pod.ties.safe_to_evict != Some(true) {
        return Some(Stays::LocalStorage);
    }
    let mut budgets = budgets.into_iter();
    match (budgets.next(), budgets.next()) {
        (Some(_), Some(_)) => Some(Stays::SeveralBudgets),
        (Some((name, allowed)), None) if allowed < 1 => Some(Stays::Budget(name)),
        _ => None,
    }
}

/// Whether a pod gives way to one of priority `waiting` without anybody being asked: it is less important, or as
/// important and its author has agreed.
pub fn gives_way(pod: &Tenant<'_>, waiting: i32) -> bool {
    pod.priority < waiting || pod.priority == waiting && pod.ties.disruptable == Some(true)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tenant() -> Tenant<'static> {
        Tenant {
            ties: Ties::default(),
            runs: true,
            priority: 0,
            controller: Some("ReplicaSet"),
            ours: true,
            has_policies: false,
            not_looked_at: None,
        }
    }

    #[track_caller]
    fn check(pod: Tenant<'_>, want: Option<&str>) {
        let why = why_it_stays(&pod, [], false);
        assert_eq!(why.map(|why| why.to_string()).as_deref(), want);
    }

    fn tied(key: &'static str, value: &'static str) -> Tenant<'static> {
        let ties = Ties::read(|asked| (asked == key).then_some(value), false);
        Tenant { ties, ..tenant() }
    }

    #[test]
    fn a_pod_that_comes_back_may_be_moved_and_others_say_why_not() {
        check(tenant(), None);
        check(tied(DISRUPTABLE_ANNOTATION, "false"), Some("stowage.dev/disruptable is \"false\""));
        check(
            tied(SAFE_TO_EVICT_ANNOTATION, "false"),
            Some("cluster-autoscaler.kubernetes.io/safe-to-evict is \"false\""),
        );
        check(tied(MIRROR_ANNOTATION, "x"), Some("it is a static pod"));
        check(tied(DISRUPTABLE_ANNOTATION, "yes"), None);
        check(Tenant { runs: false, ..tenant() }, Some("it does not run"));
        check(Tenant { priority: CRITICAL, ..tenant() }, Some("its priority is the system's"));
        check(Tenant { controller: None, ..tenant() }, Some("no controller would make it again"));
        check(Tenant { ours: false, ..tenant() }, Some("another scheduler would place it"));
        check(
            Tenant { not_looked_at: Some("host ports"), ..tenant() },
            Some("the search does not look at host ports"),
        );
        let ties = Ties { local_storage: true, ..Ties::default() };
        check(Tenant { ties, ..tenant() }, Some("it has local storage"));
        check(Tenant { ties: Ties { safe_to_evict: Some(true), ..ties }, ..tenant() }, None);
    }

    #[test]
    fn its_author_may_agree_to_more_but_not_to_what_is_not_theirs() {
        let ties = Ties { disruptable: Some(true), local_storage: true, ..Ties::default() };
        for (controller, stays) in
            [("Job", None), ("StatefulSet", None), ("DaemonSet", Some(Stays::DaemonSet))]
        {
            let pod = Tenant { ties, controller: Some(controller), ..tenant() };
            assert_eq!(why_it_stays(&pod, [], false), stays, "{controller}");
            assert!(why_it_stays(&pod, [("b", 0)], false).is_some(), "a budget counts in any case");
        }
    }

    #[test]
    fn a_budget_must_allow_it_and_be_the_only_one() {
        let stays = |budgets: &[(&'static str, i64)]| why_it_stays(&tenant(), budgets.iter().copied(), false);
        assert_eq!(stays(&[("b", 1)]), None);
        assert_eq!(stays(&[("b", 0)]), Some(Stays::Budget("b")));
        assert_eq!(stays(&[("b", 1), ("c", 1)]), Some(Stays::SeveralBudgets));
    }

    #[test]
    fn only_who_is_less_important_or_has_agreed_gives_way() {
        let pod = |priority, disruptable| Tenant {
            priority,
            ties: Ties { disruptable, ..Ties::default() },
            ..tenant()
        };
        let ways = [(-1, None), (0, None), (0, Some(true)), (1, Some(true))];
        let gives = ways.map(|(priority, agreed)| gives_way(&pod(priority, agreed), 0));
        assert_eq!(gives, [true, false, true, false]);
    }
}
