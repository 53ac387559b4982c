//! What became of nominations: which are under way, which stand, who had one already.
//!
//! Pure. A pod is nominated once: kube-scheduler takes a nomination back when it cannot use it, and knows why better
//! than we do. Of a pod that may not preempt it takes none back: then we do, once the pod no longer fits that node. So many
//! stand at once and no more; one that is not used in time is taken back, so that it holds room against nobody.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::book::Settled;
use crate::book::objects::Pod;

/// How long a nomination stands. kube-scheduler tries a pod that fits within seconds; a queue of some thousand pods,
/// and the ten seconds after which a failed pod is tried again, fit.
pub const NOMINATION_TTL: Duration = Duration::from_secs(60);
/// How long until taking one back is tried again.
pub(super) const AGAIN: Duration = Duration::from_secs(10);
/// How often it is looked whether a pod that is nominated still fits.
pub(super) const LOOK_EVERY: Duration = Duration::from_secs(5);
/// Pods that are looked at in one round.
pub(super) const LOOKS_MAX: usize = 64;
/// Tries to write one nomination: a pod changes for other reasons too.
const TRIES_MAX: u8 = 3;

/// What became of a pod of ours that asked for GPUs, once it was bound.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Outcome {
    /// It was nominated in time, and is bound to that node.
    OnNode,
    /// It was nominated in time, and is bound to another.
    Elsewhere,
    /// It was bound while its nomination was under way.
    TooLate,
    /// It asks for what only kube-scheduler weighs.
    LeftAlone,
    /// It was not nominated by us: it fitted nowhere, or was bound at once, or somebody else had nominated it.
    None,
    /// It was nominated and not bound in time: the nomination was taken back.
    Expired,
}

/// A nomination that was not used in time.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Expired {
    /// The pod's UID.
    pub uid: String,
    /// The node.
    pub node: Arc<str>,
    /// Whether it is taken back for the first time.
    pub first: bool,
}

#[derive(Debug, Clone, PartialEq)]
enum Standing {
    /// A write is under way.
    InFlight { node: Arc<str>, tries: u8 },
    /// The API server has it since then; `told` once the watch has shown it.
    Stands { node: Arc<str>, until: Instant, look: Instant, told: bool, expired: bool },
    /// A write failed: it may be tried again.
    Failed { tries: u8 },
    /// It had its nomination.
    Had,
}

impl Standing {
    fn is_outstanding(&self) -> bool {
        matches!(self, Self::InFlight { .. } | Self::Stands { .. })
    }
}

/// All of them, by the pod's UID.
#[derive(Debug, Default)]
pub struct Tracker {
    standings: HashMap<String, Standing>,
}

impl Tracker {
    /// Whether a pod had its nomination, or one is under way.
    pub fn has(&self, uid: &str) -> bool {
        self.standings.get(uid).is_some_and(|standing| !matches!(standing, Standing::Failed { .. }))
    }

    /// Whether a pod's nomination is under way or stands.
    pub fn is_outstanding(&self, uid: &str) -> bool {
        self.standings.get(uid).is_some_and(Standing::is_outstanding)
    }

    /// The pods that had one or have one, in no order.
    pub fn uids(&self) -> impl Iterator<Item = &str> {
        self.standings.keys().map(String::as_str)
    }

    /// How many are under way or stand.
    pub fn outstanding(&self) -> usize {
        self.standings.values().filter(|standing| standing.is_outstanding()).count()
    }

    /// A write begins.
    pub fn begins(&mut self, uid: &str, node: Arc<str>) {
        let tries = match self.standings.get(uid) {
            Some(Standing::Failed { tries }) => *tries,
            _ => 0,
        };
        self.standings.insert(uid.to_owned(), Standing::InFlight { node, tries: tries + 1 });
    }

    /// A write has ended; `told` is whether the watch was faster.
    pub fn written(&mut self, uid: &str, done: bool, now: Instant) {
        let Some(standing) = self.standings.get_mut(uid) else { return };
        let Standing::InFlight { node, tries } = standing else { return };
        *standing = match (done, *tries) {
            (true, _) => Standing::Stands {
                node: node.clone(),
                until: now + NOMINATION_TTL,
                look: now + LOOK_EVERY,
                told: false,
                expired: false,
            },
            (false, tries) if tries < TRIES_MAX => Standing::Failed { tries },
            (false, _) => Standing::Had,
        };
    }

    /// The watch told of a waiting pod. Once it has shown a nomination of ours, another value means that somebody took
    /// it back.
    pub fn told(&mut self, pod: &Pod) {
        let Some(standing) = self.standings.get_mut(&pod.uid) else { return };
        if let Standing::Stands { node, told, .. } = standing {
            match (pod.nominated == **node, *told || pod.was_nominated == **node) {
                (true, _) => *told = true,
                (false, true) => *standing = Standing::Had,
                (false, false) => {}
            }
        }
    }

    /// A pod waits no longer. Answers with what became of its nomination, if it is bound.
    pub fn settled(&mut self, settled: &Settled) -> Option<Outcome> {
        let standing = self.standings.remove(&settled.pod.uid);
        let bound = settled.node.as_deref()?;
        Some(match standing {
            Some(Standing::Stands { node, .. }) if *node == *bound => Outcome::OnNode,
            Some(Standing::Stands { .. } | Standing::Had) => Outcome::Elsewhere,
            Some(Standing::InFlight { .. } | Standing::Failed { .. }) => Outcome::TooLate,
            None if settled.pod.left_alone.is_some() => Outcome::LeftAlone,
            None => Outcome::None,
        })
    }

    /// The pods whose nominations stand and are to be looked at now.
    pub fn due(&mut self, now: Instant) -> Vec<String> {
        let due = self.standings.iter_mut().filter_map(|(uid, standing)| match standing {
            Standing::Stands { look, told: true, expired: false, .. } if *look <= now => Some((uid, look)),
            _ => None,
        });
        let look = |(uid, look): (&String, &mut Instant)| {
            *look = now + LOOK_EVERY;
            uid.clone()
        };
        due.take(LOOKS_MAX).map(look).collect()
    }

    /// A pod that was due no longer fits: its nomination has stood long enough.
    pub fn no_longer_fits(&mut self, uid: &str, now: Instant) {
        if let Some(Standing::Stands { until, .. }) = self.standings.get_mut(uid) {
            *until = now;
        }
    }

    /// The nominations that have stood too long and are to be taken back, until the watch shows that they are.
    pub fn expire(&mut self, now: Instant) -> Vec<Expired> {
        let mut all = Vec::new();
        for (uid, standing) in &mut self.standings {
            if let Standing::Stands { node, until, told, expired, .. } = standing
                && now >= *until
            {
                all.push(Expired { uid: uid.clone(), node: node.clone(), first: !*expired });
                if *told {
                    (*until, *expired) = (now + AGAIN, true);
                } else {
                    // Nothing that we know of is there to be taken back.
                    *standing = Standing::Had;
                }
            }
        }
        all.sort_by(|one, two| one.uid.cmp(&two.uid));
        all
    }

    /// Forgets everything: another plans now.
    pub fn clear(&mut self) {
        self.standings.clear();
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::book::Book;
    use crate::book::tests::waiting;
    use crate::state::event::Change;

    fn settled(uid: &str, node: Option<&str>) -> Settled {
        Settled { pod: waiting(uid, 0, json!({})), node: node.map(str::to_owned) }
    }

    #[test]
    fn what_became_of_a_nomination_is_told_when_the_pod_is_bound() {
        let now = Instant::now();
        let mut tracker = Tracker::default();
        for uid in ["on", "off", "gone", "late"] {
            tracker.begins(uid, "n1".into());
        }
        assert_eq!(tracker.outstanding(), 4);
        ["on", "off", "gone"].iter().for_each(|uid| tracker.written(uid, true, now));
        assert_eq!(tracker.settled(&settled("on", Some("n1"))), Some(Outcome::OnNode));
        assert_eq!(tracker.settled(&settled("off", Some("n2"))), Some(Outcome::Elsewhere));
        assert_eq!(tracker.settled(&settled("gone", None)), None);
        assert_eq!(tracker.settled(&settled("late", Some("n1"))), Some(Outcome::TooLate));
        assert_eq!(tracker.settled(&settled("other", Some("n1"))), Some(Outcome::None));
        let spread = waiting("spread", 0, json!({ "topologySpreadConstraints": [{}] }));
        let spread = Settled { pod: spread, node: Some("n1".into()) };
        assert_eq!(tracker.settled(&spread), Some(Outcome::LeftAlone));
        assert_eq!(tracker.outstanding(), 0);
    }

    #[test]
    fn a_pod_is_nominated_once_and_a_write_is_tried_three_times() {
        let now = Instant::now();
        let mut tracker = Tracker::default();
        for _ in 0..3 {
            assert!(!tracker.has("a"));
            tracker.begins("a", "n1".into());
            assert!(tracker.has("a"));
            tracker.written("a", false, now);
        }
        assert!(tracker.has("a"), "it is left to kube-scheduler");
        assert_eq!(tracker.outstanding(), 0);
    }

    #[test]
    fn what_kube_scheduler_takes_back_stays_taken_back() {
        let mut tracker = Tracker::default();
        tracker.begins("a", "n1".into());
        tracker.written("a", true, Instant::now());
        let pod = waiting("a", 0, json!({}));
        // An older version of the pod, told late.
        tracker.told(&pod);
        assert_eq!(tracker.outstanding(), 1);
        tracker.told(&Pod { nominated: "n1".into(), ..pod.clone() });
        tracker.told(&pod);
        assert_eq!((tracker.outstanding(), tracker.has("a")), (0, true));
    }

    /// Nobody learned that it had been there, and its place was taken for a minute.
    #[test]
    fn what_is_taken_back_between_two_rounds_stays_taken_back() {
        fn seen(book: &mut Book, node: &str) -> Pod {
            let pod = Pod { nominated: node.into(), ..waiting("a", 0, json!({})) };
            book.apply_pod(Change::Applied(pod));
            book.pod("a").cloned().unwrap()
        }
        let (mut book, mut tracker) = (Book::default(), Tracker::default());
        // An earlier leader had nominated it to the same node.
        seen(&mut book, "n1");
        seen(&mut book, "");
        book.nominates("a");
        tracker.begins("a", "n1".into());
        tracker.written("a", true, Instant::now());
        tracker.told(&seen(&mut book, ""));
        assert_eq!(tracker.outstanding(), 1, "the watch has not shown it");
        seen(&mut book, "n1");
        tracker.told(&seen(&mut book, ""));
        assert_eq!((tracker.outstanding(), tracker.has("a")), (0, true));
    }

    /// kube-scheduler ends a nomination where it has looked for victims in vain; so not that of a pod which may have none
    /// (`preemptionPolicy: Never`), in any minor from 1.33 to 1.37.
    #[test]
    fn what_kube_scheduler_lets_stand_is_taken_back_once_the_pod_no_longer_fits() {
        let now = Instant::now();
        let mut tracker = Tracker::default();
        tracker.begins("a", "n1".into());
        tracker.written("a", true, now);
        assert_eq!(tracker.due(now + LOOK_EVERY), [""; 0], "the watch has not shown it");
        tracker.told(&Pod { nominated: "n1".into(), ..waiting("a", 0, json!({})) });
        assert_eq!(tracker.due(now), [""; 0], "it has just been looked at");
        let later = now + LOOK_EVERY;
        assert_eq!((tracker.due(later), tracker.due(later)), (vec!["a".to_owned()], Vec::new()));
        assert_eq!(tracker.expire(later), [], "it fits");
        tracker.no_longer_fits("a", later);
        assert_eq!(tracker.expire(later), [Expired { uid: "a".into(), node: "n1".into(), first: true }]);
        assert_eq!(tracker.due(later + LOOK_EVERY), [""; 0], "the write is under way");
    }

    #[test]
    fn what_is_not_used_in_time_is_taken_back() {
        let now = Instant::now();
        let mut tracker = Tracker::default();
        tracker.begins("a", "n1".into());
        assert_eq!(tracker.expire(now + NOMINATION_TTL), [], "it is only under way");
        tracker.written("a", true, now);
        let nominated = Pod { nominated: "n1".into(), ..waiting("a", 0, json!({})) };
        tracker.told(&nominated);
        assert_eq!(tracker.expire(now + NOMINATION_TTL / 2), []);
        let expired = |first| [Expired { uid: "a".into(), node: "n1".into(), first }];
        assert_eq!(tracker.expire(now + NOMINATION_TTL), expired(true));
        assert_eq!(tracker.expire(now + NOMINATION_TTL), []);
        assert_eq!(tracker.expire(now + NOMINATION_TTL + AGAIN), expired(false), "the write failed");
        assert_eq!(tracker.outstanding(), 1);
        tracker.told(&waiting("a", 0, json!({})));
        assert_eq!(tracker.outstanding(), 0);
        assert!(tracker.has("a"));
    }
}
