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

use stowage_shared::occupancy::GpuState;
use stowage_shared::pack::{Cost, Demand, place};
use stowage_shared::request::Request;

use crate::book::amounts::Amounts;
use crate::book::objects::Pod;
use crate::book::rules::Rules;
use crate::book::{Book, Place};
use crate::state::{KnownGpus, Nominee, Snapshot, arrange, take};
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
    let mut hopeless: HashSet<(i32, Demand, &Amounts, &Rules)> = HashSet::new();
    for (place, pod) in scene.book.waiting(from) {
        if round.nominations.len() >= limit || hopeless.len() >= TRIES_MAX {
            round.resume = Some(place);
            break;
        }
        if leave_out(&pod.uid) || !may_be_nominated(pod) || desk.has_a_place(pod) {
            continue;
        }
        let Some(demand) = demand(pod, scene.snapshot) else { continue };
        let alike = (pod.priority, demand.clone(), &pod.wants, &*pod.rules);
        if hopeless.contains(&alike) || scene.book.may_be_repelled(pod) {
            continue;
        }
        match desk.choose(pod, &demand) {
            Some(at) => round.nominations.push(desk.nominate(at, pod, demand)),
            None => drop(hopeless.insert(alike)),
        }
    }
    round
}

/// Whether a pod may be nominated at all, whatever room there is.
pub fn may_be_nominated(pod: &Pod) -> bool {
    pod.node.is_empty() && !pod.deleting && !pod.gated && pod.nominated.is_empty() && pod.left_alone.is_none()
}

/// What a pod asks for of GPUs; `None` where that is nothing, or nothing that anybody has.
pub fn demand(pod: &Pod, snapshot: &Snapshot) -> Option<Demand> {
    let request =
        Request::of_pod(&pod.asks, |key| pod.annotations.get(key), |name| snapshot.names.is_gpu(name))
            .ok()?;
    (!request.is_empty()).then(|| request.demand())
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
struct Touched {
    nominees: Vec<Nominee>,
    judged: HashMap<(Demand, bool), Judgement>,
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
    touched: HashMap<usize, Touched>,
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
        };
        let book = scene.book;
        for (uid, node) in scene.snapshot.assumed.iter() {
            // It goes before everybody.
            table.place(uid, node, i32::MAX);
        }
        for node in scene.snapshot.nodes() {
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

    /// The best node for a pod, if it fits one.
    fn choose(&mut self, pod: &Pod, demand: &Demand) -> Option<usize> {
        let least = self.least.is_some_and(|least| least < pod.priority);
        let passes = [Counted::All, Counted::AtLeast(pod.priority)];
        passes.into_iter().take(if least { 2 } else { 1 }).find_map(|counted| self.best(pod, demand, counted))
    }

    fn best(&mut self, pod: &Pod, demand: &Demand, counted: Counted) -> Option<usize> {
        let costs = self.costs(demand, counted);
        let mut barred: Vec<usize> = Vec::new();
        for _ in 0..SECOND_CHOICES_MAX {
            let mut best: Option<(Cost, usize)> = None;
            for &(at, cost) in costs.iter().filter(|(at, _)| !barred.contains(at)) {
                // Names are in order, so among equals the first is best, as in prioritize.
                if best.is_none_or(|(known, _)| cost < known) && self.admits(at, pod, counted) {
                    best = Some((cost, at));
                }
            }
            let (_, at) = best?;
            if self.holds_all(at, pod, demand, counted) {
                return Some(at);
            }
            barred.push(at);
        }
        None
    }

    /// The nodes whose GPUs have room, and what it would take away.
    fn costs(&mut self, demand: &Demand, counted: Counted) -> Vec<(usize, Cost)> {
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
        let judgements = scene.memo.judge(scene.snapshot, demand, untouched.iter().map(|(_, known)| *known));
        let mut costs: Vec<(usize, Cost)> = Vec::with_capacity(judgements.len());
        let fits = |judgement: &Judgement| match judgement {
            Judgement::Fits(cost) => Some(*cost),
            Judgement::DoesNot { .. } => None,
        };
        let found = untouched.iter().zip(&judgements);
        costs.extend(found.filter_map(|((at, _), judgement)| Some((*at, fits(judgement)?))));
        for (at, beside) in touched {
            costs.extend(self.judge_touched(at, beside, demand, counted).map(|cost| (at, cost)));
        }
        costs.sort_unstable_by_key(|(at, _)| *at);
        costs
    }

    fn judge_touched(
        &mut self,
        at: usize,
        beside: &KnownGpus,
        demand: &Demand,
        counted: Counted,
    ) -> Option<Cost> {
        let mix = &self.scene.snapshot.mix;
        let touched = self.touched.get_mut(&at)?;
        let key = (demand.clone(), counted == Counted::All);
        let judged = touched.judged.entry(key).or_insert_with(|| {
            let mut gpus: Vec<GpuState> = beside.gpus.clone();
            // Whoever was before in this round's queue is at least as important.
            for nominee in &touched.nominees {
                let _ = take(&mut gpus, &nominee.demand, mix);
            }
            Judgement::of(place(&gpus, demand, mix))
        });
        match judged {
            Judgement::Fits(cost) => Some(*cost),
            Judgement::DoesNot { .. } => None,
        }
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
    fn holds_all(&self, at: usize, pod: &Pod, demand: &Demand, counted: Counted) -> bool {
        let Some(node) = self.scene.snapshot.nodes().nth(at) else { return false };
        let Ok(known) = node.usable(self.scene.now) else { return false };
        let before = node.nominated.iter().flat_map(|kept| kept.nominees());
        let now = self.touched.get(&at).into_iter().flat_map(|touched| &touched.nominees);
        let pod = Nominee { uid: pod.uid.clone(), priority: pod.priority, demand: demand.clone() };
        let all = before.chain(now).filter(|nominee| counted.counts(nominee.priority)).chain([&pod]);
        arrange(&known.gpus, all, &self.scene.snapshot.mix)
    }

    fn nominate(&mut self, at: usize, pod: &'a Pod, demand: Demand) -> Nomination {
        let node = self.names[at];
        self.extra.entry(node).or_default().push((pod.priority, &pod.wants));
        let nominee = Nominee { uid: pod.uid.clone(), priority: pod.priority, demand };
        let touched = self
            .touched
            .entry(at)
            .or_insert_with(|| Touched { nominees: Vec::new(), judged: HashMap::new() });
        touched.nominees.push(nominee);
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
