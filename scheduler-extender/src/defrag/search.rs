//! Which one pod to move so that a waiting one fits: pure.
//!
//! A pod may be moved if the rules of [`stays`](stowage_shared::moves::stays) let it, if the waiting pod fits its node
//! without it, and if its like has a place now, beside what is kept for the waiting pod: on another node, or on the same
//! one. It starts there while the old one still ends, so the old one's devices do not count as free.

use std::cmp::Reverse;
use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Instant;

use stowage_shared::moves::stays::{Stays, Tenant, gives_way, why_it_stays};
use stowage_shared::policy::{Occupied, Want};

use crate::book::Book;
use crate::book::amounts::Amounts;
use crate::book::objects::Pod;
use crate::clock::Now;
use crate::planner::plan::Scene;
use crate::planner::table::Table;
use crate::preempt::victims::{Victim, has_the_rest, leaving, victim};
use crate::state::{Snapshot, State};
use crate::verbs::{Asker, Memo, room_without};

/// Candidates whose like is looked for a place for, at most: the least important of all that were found.
const HOMES_MAX: usize = 32;

/// What is looked at.
pub struct Look<'a> {
    /// Everything but the GPUs.
    pub book: &'a Book,
    /// The GPUs as they would be without somebody.
    pub state: &'a State,
    /// The GPUs as they are.
    pub snapshot: &'a Snapshot,
    /// This moment.
    pub now: Now,
}

/// A pod whose going would let the waiting pod in.
#[derive(Debug, Clone, PartialEq)]
pub struct Candidate {
    /// The pod.
    pub pod: Victim,
    /// The UID of its controller.
    pub owner: String,
    /// Where it is.
    pub node: Arc<str>,
    /// What fits there more without it: how large it is.
    freed: u64,
    /// What it, and so its like, wants of a node.
    want: Want,
    /// Its node with what is kept for the waiting pod, and with it.
    kept: Occupied,
}

/// A pod that is moved.
#[derive(Debug, Clone, PartialEq)]
pub struct Moved {
    /// The pod.
    pub candidate: Candidate,
    /// Where its like has a place.
    pub to: Arc<str>,
}

/// What was found so far, node by node.
#[derive(Debug, Default)]
pub struct Found {
    candidates: Vec<Candidate>,
    /// Why pods stay whose going would have helped.
    stay: BTreeSet<&'static str>,
    /// Whether the pod fits as it is, or will once those are gone who are leaving.
    fits: bool,
}

/// The word for: nobody's going alone lets the pod in.
pub const NO_POD_HELPS: &str = "no_pod_helps";
/// The word for: whoever would have to go has no other place.
pub const NO_OTHER_PLACE: &str = "no_other_place";

impl Found {
    /// Whether the pod fits somewhere as it is, or will once those are gone who are leaving: then kube-scheduler finds that.
    pub fn fits(&self) -> bool {
        self.fits
    }

    /// Looks at one node.
    pub fn look(&mut self, look: &Look<'_>, pod: &Pod, want: &Want, node: &Arc<str>) {
        let Look { book, state, snapshot, now } = *look;
        if book.node(node).is_none_or(|known| !pod.rules.admit(&known.site)) {
            return;
        }
        let asker = Asker { uid: &pod.uid, namespace: &pod.namespace, priority: pod.priority, want };
        let room = |gone: &BTreeSet<&str>| {
            let rest = has_the_rest(book, snapshot, pod, node, gone);
            rest.then(|| room_without(state, snapshot, &asker, node, gone, now.monotonic)).flatten()
        };
        let place = |room: &Occupied| room.place(want, &pod.namespace, &snapshot.mix).ok();
        let fits = |gone: &BTreeSet<&str>| room(gone).as_ref().and_then(place).is_some();
        let users: Vec<&Pod> = state.users(node).filter_map(|(user, _)| book.pod(&user.uid)).collect();
        let leaving = leaving(book, node, now.wall);
        let everybody = users.iter().map(|user| &*user.uid).chain(leaving.iter().copied()).collect();
        if !fits(&everybody) {
            return;
        }
        let nobody = BTreeSet::new();
        self.fits |= fits(&nobody) || !leaving.is_empty() && fits(&leaving);
        let Some(as_it_is) = room_without(state, snapshot, &asker, node, &nobody, now.monotonic) else {
            return;
        };
        for user in users.into_iter().filter(|_| !self.fits) {
            let Some(without) = room(&BTreeSet::from([&*user.uid])) else { continue };
            let Some(placement) = place(&without) else { continue };
            if let Some(why) = why_not(book, user, pod.priority) {
                self.stay.insert(why);
                continue;
            }
            let (Some(want_of), Some((_, owner))) = (state.want_of(&user.uid), &user.owner) else { continue };
            let value = |room: &Occupied| snapshot.mix.value(&room.gpus);
            let freed = value(&without).saturating_sub(value(&as_it_is));
            let mut kept = as_it_is.clone();
            kept.settle(&placement, want, &pod.namespace);
            self.candidates.push(Candidate {
                pod: victim(user),
                owner: owner.clone(),
                node: node.clone(),
                freed,
                want: want_of,
                kept,
            });
        }
        self.keep_the_best();
    }

    /// A large cluster has thousands of candidates, and each holds a picture of its node.
    fn keep_the_best(&mut self) {
        if self.candidates.len() > HOMES_MAX {
            self.candidates.sort_by(|one, two| one.pain().cmp(&two.pain()));
            self.candidates.truncate(HOMES_MAX);
        }
    }

    /// The one that hurts least of those whose like has another place.
    ///
    /// # Errors
    /// Why nobody is moved, in words of a closed set.
    pub fn best(
        mut self,
        book: &Book,
        snapshot: &Snapshot,
        pod: &Pod,
        now: Instant,
    ) -> Result<Moved, BTreeSet<&'static str>> {
        self.candidates.sort_by(|one, two| one.pain().cmp(&two.pain()));
        let scene = Scene { snapshot, memo: &Memo::default(), book, now };
        let none = if self.candidates.is_empty() { NO_POD_HELPS } else { NO_OTHER_PLACE };
        for candidate in self.candidates {
            if let Some(to) = candidate.home(&scene, pod) {
                return Ok(Moved { candidate, to });
            }
        }
        if self.stay.is_empty() || none == NO_OTHER_PLACE {
            self.stay.insert(none);
        }
        Err(self.stay)
    }
}

impl Candidate {
    /// How bad it is to move it; less is better. The least important, then the smallest, then who has lost least by it.
    fn pain(&self) -> (i32, u64, Reverse<i64>, &str) {
        (self.pod.priority, self.freed, Reverse(self.pod.created), &self.pod.uid)
    }

    /// Where its like has a place.
    fn home(&self, scene: &Scene<'_>, waiting: &Pod) -> Option<Arc<str>> {
        let pod = scene.book.pod(&self.pod.uid)?;
        if scene.book.may_be_repelled(pod) {
            return None;
        }
        let mut elsewhere = Table::without(scene, &self.node);
        if let Some(at) = elsewhere.choose(pod, &self.want) {
            return elsewhere.name(at).cloned();
        }
        let node = scene.book.node(&self.node)?;
        let mut used = Amounts::default();
        let here = scene.book.on_node(&self.node).chain([waiting]);
        here.for_each(|user| used.add(&user.wants));
        let fits = pod.rules.admit(&node.site)
            && pod.wants.fits(&node.allocatable, &used)
            && self.kept.place(&self.want, &pod.namespace, &scene.snapshot.mix).is_ok();
        fits.then(|| self.node.clone())
    }
}

/// Why a pod must stay, in a word.
fn why_not(book: &Book, pod: &Pod, waiting: i32) -> Option<&'static str> {
    let tenant = Tenant {
        ties: pod.ties,
        runs: pod.running && !pod.deleting,
        priority: pod.priority,
        controller: pod.owner.as_ref().map(|(kind, _)| &**kind),
        ours: pod.ours,
        // They are weighed.
        has_policies: false,
        not_looked_at: pod.left_alone.map(|_| "what kube-scheduler alone weighs"),
    };
    let budgets = book.budgets_of(pod).map(|(key, budget)| (key, i64::from(budget.allowed)));
    let why = why_it_stays(&tenant, budgets, false);
    why.or_else(|| (!gives_way(&tenant, waiting)).then_some(Stays::Priority)).map(Stays::label)
}
