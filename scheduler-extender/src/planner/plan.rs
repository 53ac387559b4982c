//! Which waiting pods should be tried on which node first.
//!
//! Pure: a snapshot of the GPUs, the book, and whom to leave out go in, nominations come out; the same input gives the
//! same answer. Pods are taken in the order of kube-scheduler's queue. Each is placed over the whole cluster as
//! `prioritize` would rank it, on a node that its rules admit and that has the cpu, memory and room for it; nodes whose
//! GPUs are alike are judged once. Everything that is nominated already counts as placed, and so does what this round
//! has nominated before.
//!
//! A pod that fits nowhere holds nobody up. One that fits only where less important pods are nominated goes there.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::sync::Arc;
use std::time::Instant;

use stowage_shared::policy::{Rank, ShareWith, Want};
use stowage_shared::request::Request;

use crate::book::amounts::Amounts;
use crate::book::objects::Pod;
use crate::book::rules::Rules;
use crate::book::{Book, Place};
use crate::state::{KnownGpus, Nominee, Snapshot, arrange};
use crate::verbs::{Judgement, Memo};

/// Different requests that are looked at in one round; the next round goes on with the rest.
const TRIES_MAX: usize = 200;
/// Nodes that turn out not to hold everything that is kept there together, before a pod is given up for this round.
const SECOND_CHOICES_MAX: usize = 8;

/// A pod that should be tried on a node first.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Nomination {
    /// The pod's UID.
    pub uid: String,
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// The version that was looked at.
    pub resource_version: String,
    /// The node.
    pub node: Arc<str>,
}

/// What a round decided.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Round {
    /// In the order of the queue.
    pub nominations: Vec<Nomination>,
    /// Where the next round goes on, if this one has not come to the end of the queue.
    pub resume: Option<Place>,
}

/// What is looked at.
pub struct Scene<'a> {
    /// The GPUs.
    pub snapshot: &'a Snapshot,
    /// What was judged before.
    pub memo: &'a Memo,
    /// Everything else.
    pub book: &'a Book,
    /// This moment.
    pub now: Instant,
}

/// Plans for at most `limit` pods, from a place in the queue on. `leave_out` says whom not to look at.
pub fn plan(scene: &Scene<'_>, from: Option<Place>, limit: usize, leave_out: impl Fn(&str) -> bool) -> Round {
    let mut desk = Table::new(scene);
    let mut round = Round::default();
    let mut hopeless: HashSet<(i32, Want, Option<&str>, &Amounts, &Rules)> = HashSet::new();
    for (place, pod) in scene.book.waiting(from) {
        if round.nominations.len() >= limit || hopeless.len() >= TRIES_MAX {
            round.resume = Some(place);
            break;
        }
        if leave_out(&pod.uid) || !may_be_nominated(pod) || desk.has_a_place(pod) {
            continue;
        }
        let Some(want) = want(pod, scene.snapshot) else { continue };
        let alike = (pod.priority, want.clone(), desk.scope(pod, &want), &pod.wants, &*pod.rules);
        if hopeless.contains(&alike) || scene.book.may_be_repelled(pod) {
            continue;
        }
        match desk.choose(pod, &want) {
            Some(at) => round.nominations.push(desk.nominate(at, pod, want)),
            None => drop(hopeless.insert(alike)),
        }
    }
    round
}

/// Whether a pod may be nominated at all, whatever room there is.
pub fn may_be_nominated(pod: &Pod) -> bool {
    pod.node.is_empty() && !pod.deleting && !pod.gated && pod.nominated.is_empty() && pod.left_alone.is_none()
}

/// What a pod wants of a node; `None` where it asks for no GPU, or for what nobody can serve.
pub fn want(pod: &Pod, snapshot: &Snapshot) -> Option<Want> {
    let annotation = |key: &str| pod.annotations.get(key);
    let request = Request::of_pod(&pod.asks, annotation, |name| snapshot.names.is_gpu(name)).ok()?;
    Want::of(&request, annotation).ok()?
}

/// Who counts as placed on a node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Counted {
    /// Everybody who is nominated there.
    All,
    /// Those who are at least as important.
    AtLeast(i32),
}

impl Counted {
    fn counts(self, priority: i32) -> bool {
        match self {
            Self::All => true,
            Self::AtLeast(least) => priority >= least,
        }
    }
}

/// A node to which this round has nominated somebody.
struct Touched<'a> {
    nominees: Vec<Nominee>,
    judged: HashMap<(Want, Option<&'a str>, bool), Judgement>,
}

/// The cluster as it is while a round goes on.
struct Table<'a> {
    scene: &'a Scene<'a>,
    /// The nodes' names, in the snapshot's order.
    names: Vec<&'a Arc<str>>,
    /// What pods that are not bound take of a node, with their priorities.
    extra: HashMap<&'a str, Vec<(i32, &'a Amounts)>>,
    /// The pods that have a place: held, or nominated.
    placed: BTreeSet<&'a str>,
    /// The least important pod that is nominated anywhere.
    least: Option<i32>,
    touched: HashMap<usize, Touched<'a>>,
    /// Whether a pod that is placed anywhere keeps its GPUs to its namespace.
    keeps: bool,
}

impl<'a> Table<'a> {
    fn new(scene: &'a Scene<'a>) -> Self {
        let mut table = Self {
            scene,
            names: scene.snapshot.nodes().map(|node| &node.name).collect(),
            extra: HashMap::new(),
            placed: BTreeSet::new(),
            least: None,
            touched: HashMap::new(),
            keeps: false,
        };
        let book = scene.book;
        for (uid, node) in scene.snapshot.assumed.iter() {
            // It goes before everybody.
            table.place(uid, node, i32::MAX);
        }
        for node in scene.snapshot.nodes() {
            if let Ok(known) = node.usable(scene.now) {
                let beside = node.nominated.as_ref().map_or(known, |kept| kept.beside_all(known));
                table.keeps |= beside.now.company.keeps();
            }
            for nominee in node.nominated.iter().flat_map(|kept| kept.nominees()) {
                table.place(&nominee.uid, &node.name, nominee.priority);
                table.least = Some(table.least.map_or(nominee.priority, |least| least.min(nominee.priority)));
            }
        }
        // Pods without GPUs, which kube-scheduler has nominated.
        for (_, pod) in book.waiting(None).filter(|(_, pod)| !pod.nominated.is_empty()) {
            if !table.placed.contains(&*pod.uid) {
                table.extra.entry(&pod.nominated).or_default().push((pod.priority, &pod.wants));
            }
        }
        table
    }

    fn place(&mut self, uid: &'a str, node: &'a str, priority: i32) {
        self.placed.insert(uid);
        if let Some(pod) = self.scene.book.pod(uid).filter(|pod| pod.node.is_empty()) {
            self.extra.entry(node).or_default().push((priority, &pod.wants));
        }
    }

    fn has_a_place(&self, pod: &Pod) -> bool {
        self.placed.contains(&*pod.uid)
    }

    /// A pod's namespace, where it matters to what the pod fits.
    fn scope(&self, pod: &'a Pod, want: &Want) -> Option<&'a str> {
        (self.keeps || want.policy.share_with == ShareWith::Namespace).then_some(&*pod.namespace)
    }

    /// The best node for a pod, if it fits one.
    fn choose(&mut self, pod: &'a Pod, want: &Want) -> Option<usize> {
        let least = self.least.is_some_and(|least| least < pod.priority);
        let passes = [Counted::All, Counted::AtLeast(pod.priority)];
        passes.into_iter().take(if least { 2 } else { 1 }).find_map(|counted| self.best(pod, want, counted))
    }

    fn best(&mut self, pod: &'a Pod, want: &Want, counted: Counted) -> Option<usize> {
        let ranks = self.ranks(pod, want, counted);
        let mut barred: Vec<usize> = Vec::new();
        for _ in 0..SECOND_CHOICES_MAX {
            let mut best: Option<(Rank, usize)> = None;
            for &(at, rank) in ranks.iter().filter(|(at, _)| !barred.contains(at)) {
                // Names are in order, so among equals the first is best, as in prioritize.
                if best.is_none_or(|(known, _)| rank < known) && self.admits(at, pod, counted) {
                    best = Some((rank, at));
                }
            }
            let (_, at) = best?;
            if self.holds_all(at, pod, want, counted) {
                return Some(at);
            }
            barred.push(at);
        }
        None
    }

    /// The nodes whose GPUs have room, and how good they are.
    fn ranks(&mut self, pod: &'a Pod, want: &Want, counted: Counted) -> Vec<(usize, Rank)> {
        let (scene, mut touched) = (self.scene, Vec::new());
        let mut untouched: Vec<(usize, &KnownGpus)> = Vec::new();
        for (at, node) in scene.snapshot.nodes().enumerate() {
            let Ok(known) = node.usable(scene.now) else { continue };
            let beside = node.nominated.as_ref().map_or(known, |kept| match counted {
                Counted::All => kept.beside_all(known),
                Counted::AtLeast(priority) => kept.beside(known, priority),
            });
            if self.touched.contains_key(&at) {
                touched.push((at, beside));
            } else {
                untouched.push((at, beside));
            }
        }
        let nodes = untouched.iter().map(|(_, known)| *known);
        let judgements = scene.memo.judge(scene.snapshot, want, &pod.namespace, nodes);
        let mut ranks: Vec<(usize, Rank)> = Vec::with_capacity(judgements.len());
        let found = untouched.iter().zip(&judgements);
        ranks.extend(found.filter_map(|((at, _), judgement)| Some((*at, judgement.rank()?))));
        for (at, beside) in touched {
            ranks.extend(self.judge_touched(at, beside, pod, want, counted).map(|rank| (at, rank)));
        }
        ranks.sort_unstable_by_key(|(at, _)| *at);
        ranks
    }

    fn judge_touched(
        &mut self,
        at: usize,
        beside: &KnownGpus,
        pod: &'a Pod,
        want: &Want,
        counted: Counted,
    ) -> Option<Rank> {
        let mix = &self.scene.snapshot.mix;
        let key = (want.clone(), self.scope(pod, want), counted == Counted::All);
        let touched = self.touched.get_mut(&at)?;
        let judged = touched.judged.entry(key).or_insert_with(|| {
            let mut room = beside.now.clone();
            // Whoever was before in this round's queue is at least as important.
            for nominee in &touched.nominees {
                nominee.settle(&mut room, mix);
            }
            Judgement::of(room.rank(want, &pod.namespace, mix))
        });
        judged.rank()
    }

    /// Whether a node's rules and the pod's admit each other, and cpu, memory and the like are there.
    fn admits(&self, at: usize, pod: &Pod, counted: Counted) -> bool {
        let Some(name) = self.names.get(at) else { return false };
        let Some(node) = self.scene.book.node(name) else { return false };
        if !pod.rules.admit(&node.site) {
            return false;
        }
        let none = Amounts::default();
        let bound = self.scene.book.used(name).unwrap_or(&none);
        match self.extra.get(&***name) {
            None => pod.wants.fits(&node.allocatable, bound),
            Some(extra) => {
                let mut used = bound.clone();
                extra.iter().filter(|(of, _)| counted.counts(*of)).for_each(|(_, wants)| used.add(wants));
                pod.wants.fits(&node.allocatable, &used)
            }
        }
    }

    /// Whether everybody who counts there fits together with the pod, placed as the state will place them.
    fn holds_all(&self, at: usize, pod: &Pod, want: &Want, counted: Counted) -> bool {
        let Some(node) = self.scene.snapshot.nodes().nth(at) else { return false };
        let Ok(known) = node.usable(self.scene.now) else { return false };
        let before = node.nominated.iter().flat_map(|kept| kept.nominees());
        let now = self.touched.get(&at).into_iter().flat_map(|touched| &touched.nominees);
        let pod = nominee(pod, want.clone());
        let all = before.chain(now).filter(|nominee| counted.counts(nominee.priority)).chain([&pod]);
        arrange(&known.now, all, &self.scene.snapshot.mix)
    }

    fn nominate(&mut self, at: usize, pod: &'a Pod, want: Want) -> Nomination {
        let node = self.names[at];
        self.extra.entry(node).or_default().push((pod.priority, &pod.wants));
        self.keeps |= want.policy.share_with == ShareWith::Namespace;
        let touched = self
            .touched
            .entry(at)
            .or_insert_with(|| Touched { nominees: Vec::new(), judged: HashMap::new() });
        touched.nominees.push(nominee(pod, want));
        touched.judged.clear();
        Nomination {
            uid: pod.uid.clone(),
            namespace: pod.namespace.clone(),
            name: pod.name.clone(),
            resource_version: pod.resource_version.clone(),
            node: node.clone(),
        }
    }
}

fn nominee(pod: &Pod, want: Want) -> Nominee {
    let (uid, namespace) = (pod.uid.clone(), pod.namespace.clone());
    Nominee { uid, priority: pod.priority, namespace, want }
}
