//! Nominations that stood before we planned.
//!
//! A leader that ends leaves nominations behind, and a pod that has one gets no other. So whoever plans next watches
//! those that our account wrote, as the API server tells by `metadata.managedFields`: one is used, or it is taken back,
//! at once where the pod no longer fits the node, else when it has stood as long as one of our own may. What kube-scheduler
//! or somebody else has nominated is theirs.
//!
//! Pure but for the question whether a pod still fits, which [`fits`] answers from the books.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use super::plan::want;
use super::track::{AGAIN, Expired, LOOK_EVERY, LOOKS_MAX, NOMINATION_TTL, Outcome};
use crate::book::objects::Pod;
use crate::book::{Book, Settled};
use crate::preempt::victims::has_the_rest;
use crate::state::{Snapshot, State};
use crate::verbs::{Asker, fits_without};

/// How long pods that are being deleted are waited for at most, where only their going makes the pod fit.
pub const LEAVING_MAX: Duration = Duration::from_secs(600);

/// Whether a pod fits the node that it is nominated to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fits {
    /// It does.
    Now,
    /// It will, once those are gone who are being deleted there: room that was made for it, perhaps.
    Soon,
    /// It does not.
    No,
}

#[derive(Debug)]
struct Standing {
    node: String,
    until: Instant,
    give_up: Instant,
    look: Instant,
    /// Whether it was tried to take it back.
    expired: bool,
}

/// All of them, by the pod's UID.
#[derive(Debug, Default)]
pub struct Left {
    standings: BTreeMap<String, Standing>,
}

impl Left {
    /// The pods that have one.
    pub fn uids(&self) -> impl Iterator<Item = &str> {
        self.standings.keys().map(String::as_str)
    }

    /// How many stand.
    pub fn outstanding(&self) -> usize {
        self.standings.len()
    }

    /// The watch told of a waiting pod whose nomination is none that we have written since we plan.
    pub fn told(&mut self, pod: &Pod, now: Instant) {
        if pod.nominated.is_empty() || !pod.nominated_by_us {
            self.standings.remove(&pod.uid);
            return;
        }
        let known = self.standings.get(&pod.uid).is_some_and(|standing| standing.node == pod.nominated);
        if !known {
            let standing = Standing {
                node: pod.nominated.clone(),
                until: now + NOMINATION_TTL,
                give_up: now + LEAVING_MAX,
                look: now,
                expired: false,
            };
            self.standings.insert(pod.uid.clone(), standing);
        }
    }

    /// The pods to look at now.
    pub fn due(&mut self, now: Instant) -> Vec<String> {
        let due = self.standings.iter_mut().filter(|(_, standing)| standing.look <= now);
        let look = |(uid, standing): (&String, &mut Standing)| {
            standing.look = now + LOOK_EVERY;
            uid.clone()
        };
        due.take(LOOKS_MAX).map(look).collect()
    }

    /// What was found of a pod that was due. Answers with what is to be taken back, until the watch shows that it is.
    pub fn judge(&mut self, uid: &str, fits: Fits, now: Instant) -> Option<Expired> {
        let standing = self.standings.get_mut(uid)?;
        if fits == Fits::Soon && now < standing.give_up {
            standing.until = now + NOMINATION_TTL;
        }
        if fits != Fits::No && now < standing.until {
            return None;
        }
        let first = !std::mem::replace(&mut standing.expired, true);
        standing.look = now + AGAIN;
        Some(Expired { uid: uid.to_owned(), node: standing.node.as_str().into(), first })
    }

    /// A pod waits no longer. Answers with what became of its nomination, if it had one of these and is bound.
    pub fn settled(&mut self, settled: &Settled) -> Option<Outcome> {
        let standing = self.standings.remove(&settled.pod.uid)?;
        let bound = settled.node.as_deref()?;
        Some(if bound == standing.node { Outcome::OnNode } else { Outcome::Elsewhere })
    }

    /// Forgets everything: another plans now.
    pub fn clear(&mut self) {
        self.standings.clear();
    }
}

/// Whether a pod fits the node that it is nominated to, beside those who are there or nominated there and as important.
pub fn fits(book: &Book, state: &State, snapshot: &Snapshot, pod: &Pod, now: Instant) -> Fits {
    let (node, Some(want)) = (&*pod.nominated, want(pod, snapshot)) else { return Fits::No };
    if !book.node(node).is_some_and(|known| pod.rules.admit(&known.site)) {
        return Fits::No;
    }
    let asker = Asker { uid: &pod.uid, namespace: &pod.namespace, priority: pod.priority, want: &want };
    let fits_without = |gone: &BTreeSet<&str>| {
        has_the_rest(book, snapshot, pod, node, gone)
            && fits_without(state, snapshot, &asker, node, gone, now)
    };
    if fits_without(&BTreeSet::new()) {
        return Fits::Now;
    }
    let leaving: BTreeSet<&str> =
        book.on_node(node).filter(|user| user.deleting).map(|user| &*user.uid).collect();
    if !leaving.is_empty() && fits_without(&leaving) { Fits::Soon } else { Fits::No }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::book::tests::waiting;

    fn nominated(uid: &str, node: &str) -> Pod {
        Pod { nominated: node.into(), nominated_by_us: true, ..waiting(uid, 0, json!({})) }
    }

    fn expired(first: bool) -> Option<Expired> {
        Some(Expired { uid: "a".into(), node: "n1".into(), first })
    }

    #[test]
    fn what_no_longer_fits_is_taken_back_at_once_and_again_until_it_is_gone() {
        let (mut left, now) = (Left::default(), Instant::now());
        left.told(&nominated("a", "n1"), now);
        assert_eq!((left.outstanding(), left.due(now)), (1, vec!["a".to_owned()]));
        assert_eq!(left.judge("a", Fits::No, now), expired(true));
        assert_eq!(left.due(now), Vec::<String>::new(), "the write is under way");
        let later = now + AGAIN;
        left.told(&nominated("a", "n1"), later);
        assert_eq!(left.due(later), ["a"]);
        assert_eq!(left.judge("a", Fits::No, later), expired(false));
        left.told(&waiting("a", 0, json!({})), later);
        assert_eq!(left.outstanding(), 0);
    }

    #[test]
    fn what_fits_stands_as_long_as_one_of_our_own() {
        let (mut left, now) = (Left::default(), Instant::now());
        left.told(&nominated("a", "n1"), now);
        assert_eq!(left.judge("a", Fits::Now, now + NOMINATION_TTL / 2), None);
        assert_eq!(left.judge("a", Fits::Now, now + NOMINATION_TTL), expired(true));
    }

    #[test]
    fn room_that_is_being_made_is_waited_for_but_not_for_ever() {
        let (mut left, now) = (Left::default(), Instant::now());
        left.told(&nominated("a", "n1"), now);
        for minutes in 1..10 {
            assert_eq!(left.judge("a", Fits::Soon, now + Duration::from_secs(60 * minutes)), None);
        }
        assert_eq!(left.judge("a", Fits::Soon, now + LEAVING_MAX), expired(true));
    }

    #[test]
    fn what_others_have_nominated_is_theirs() {
        let (mut left, now) = (Left::default(), Instant::now());
        left.told(&Pod { nominated_by_us: false, ..nominated("a", "n1") }, now);
        assert_eq!(left.outstanding(), 0);
        left.told(&nominated("a", "n1"), now);
        // kube-scheduler has another idea.
        left.told(&Pod { nominated_by_us: false, ..nominated("a", "n2") }, now);
        assert_eq!(left.outstanding(), 0);
    }

    #[test]
    fn a_round_looks_at_so_many_and_the_next_at_the_others() {
        let (mut left, now) = (Left::default(), Instant::now());
        for n in 0..=LOOKS_MAX {
            left.told(&nominated(&format!("p{n:03}"), "n1"), now);
        }
        assert_eq!((left.due(now).len(), left.due(now).len(), left.due(now).len()), (LOOKS_MAX, 1, 0));
    }

    #[test]
    fn what_became_of_it_is_told_when_the_pod_is_bound() {
        let (mut left, now) = (Left::default(), Instant::now());
        let mut settle = |uid: &str, node: Option<&str>| {
            left.told(&nominated(uid, "n1"), now);
            let outcome = left.settled(&Settled { pod: nominated(uid, "n1"), node: node.map(str::to_owned) });
            assert_eq!(left.outstanding(), 0);
            outcome
        };
        assert_eq!(settle("a", Some("n1")), Some(Outcome::OnNode));
        assert_eq!(settle("a", Some("n2")), Some(Outcome::Elsewhere));
        assert_eq!(settle("a", None), None);
    }
}
