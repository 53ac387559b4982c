//! The cluster as it is while a round of the planner goes on: what is bound, held or nominated, and whom this round has
//! nominated before.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use stowage_shared::policy::{Rank, ShareWith, Want};

use super::plan::{Nomination, Scene};
use crate::book::amounts::Amounts;
use crate::book::objects::Pod;
use crate::state::{KnownGpus, NodeView, Nominee, arrange};
use crate::verbs::Judgement;

/// Nodes that turn out not to hold everything that is kept there together, before a pod is given up for this round.
const SECOND_CHOICES_MAX: usize = 8;
/// Different requests for which the order of the nodes is kept in one round.
const ORDERS_MAX: usize = 16;

/// Who counts as placed on a node.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
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

    /// What is left of a node once they are placed.
    fn beside<'a>(self, node: &'a NodeView, known: &'a KnownGpus) -> &'a KnownGpus {
        node.nominated.as_ref().map_or(known, |kept| match self {
            Self::All => kept.beside_all(known),
            Self::AtLeast(priority) => kept.beside(known, priority),
        })
    }
}

/// A node to which this round has nominated somebody.
struct Touched<'a> {
    nominees: Vec<Nominee>,
    judged: HashMap<(Want, Option<&'a str>, bool), Judgement>,
}

/// Nodes by their places, the best first.
type Order = Arc<[(Rank, usize)]>;

/// The cluster as it is while a round goes on.
pub(crate) struct Table<'a> {
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
    orders: HashMap<(Want, Option<&'a str>, Counted), Order>,
    /// Whether a pod that is placed anywhere keeps its GPUs to its namespace.
    keeps: bool,
    /// A node that nobody is placed on.
    shut: Option<&'a str>,
}

impl<'a> Table<'a> {
    /// The cluster without one node.
    pub(crate) fn without(scene: &'a Scene<'a>, node: &'a str) -> Self {
        Self { shut: Some(node), ..Self::new(scene) }
    }

    /// The name of a node that [`choose`](Self::choose) has chosen.
    pub(crate) fn name(&self, at: usize) -> Option<&'a Arc<str>> {
        self.names.get(at).copied()
    }

    pub(super) fn new(scene: &'a Scene<'a>) -> Self {
        let mut table = Self {
            scene,
            names: scene.snapshot.nodes().map(|node| &node.name).collect(),
            extra: HashMap::new(),
            placed: BTreeSet::new(),
            least: None,
            touched: HashMap::new(),
            orders: HashMap::new(),
            keeps: false,
            shut: None,
        };
        let book = scene.book;
        for (uid, node) in scene.snapshot.assumed.iter() {
            // It goes before everybody.
            table.place(uid, node, i32::MAX);
        }
        for node in scene.snapshot.nodes() {
            if let Ok(known) = node.usable(scene.now) {
                table.keeps |= Counted::All.beside(node, known).now.company.keeps();
            }
            for nominee in node.nominated.iter().flat_map(|kept| kept.nominees()) {
                table.place(&nominee.uid, &node.name, nominee.priority);
                table.least = Some(table.least.map_or(nominee.priority, |least| least.min(nominee.priority)));
            }
        }
        // Pods without GPUs, which kube-scheduler has nominated.
        for pod in book.nominated() {
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

    pub(super) fn has_a_place(&self, pod: &Pod) -> bool {
        self.placed.contains(&*pod.uid)
    }

    /// A pod's namespace, where it matters to what the pod fits.
    pub(super) fn scope(&self, pod: &'a Pod, want: &Want) -> Option<&'a str> {
        (self.keeps || want.policy.share_with == ShareWith::Namespace).then_some(&*pod.namespace)
    }

    /// The best node for a pod, if it fits one.
    pub(crate) fn choose(&mut self, pod: &'a Pod, want: &Want) -> Option<usize> {
        let least = self.least.is_some_and(|least| least < pod.priority);
        let passes = [Counted::All, Counted::AtLeast(pod.priority)];
        passes.into_iter().take(if least { 2 } else { 1 }).find_map(|counted| self.best(pod, want, counted))
    }

    fn best(&mut self, pod: &'a Pod, want: &Want, counted: Counted) -> Option<usize> {
        let touched = self.ranks_of_touched(pod, want, counted);
        let order = self.order(pod, want, counted);
        let mut barred: Vec<usize> = Vec::new();
        for _ in 0..SECOND_CHOICES_MAX {
            // Names are in order, so among equals the first is best, as in prioritize.
            let mut open = order.iter().filter(|(_, at)| !self.touched.contains_key(at));
            let admits = |at: &usize| !barred.contains(at) && self.admits(*at, pod, counted);
            let untouched = open.find(|(_, at)| admits(at));
            let best = touched.iter().filter(|(_, at)| admits(at)).chain(untouched).min();
            let &(_, at) = best?;
            if self.holds_all(at, pod, want, counted) {
                return Some(at);
            }
            barred.push(at);
        }
        None
    }

    /// The nodes whose GPUs have room, the best first, as if this round had nominated nobody: the same for all pods that
    /// want alike.
    fn order(&mut self, pod: &'a Pod, want: &Want, counted: Counted) -> Order {
        let key = (want.clone(), self.scope(pod, want), counted);
        if let Some(known) = self.orders.get(&key) {
            return known.clone();
        }
        let scene = self.scene;
        let usable = scene.snapshot.nodes().enumerate().filter_map(|(at, node)| {
            let known = node.usable(scene.now).ok().filter(|_| self.shut != Some(&*node.name))?;
            Some((at, counted.beside(node, known)))
        });
        let (places, nodes): (Vec<usize>, Vec<&KnownGpus>) = usable.unzip();
        let judgements = scene.memo.weigh(scene.snapshot, want, &pod.namespace, nodes);
        let ranks = judgements.iter().zip(places).filter_map(|(judgement, at)| Some((judgement.rank()?, at)));
        let mut order: Vec<(Rank, usize)> = ranks.collect();
        order.sort_unstable();
        if self.orders.len() >= ORDERS_MAX {
            self.orders.clear();
        }
        let order: Order = order.into();
        self.orders.insert(key, order.clone());
        order
    }

    /// The same of the nodes to which this round has nominated somebody, in no order.
    fn ranks_of_touched(&mut self, pod: &'a Pod, want: &Want, counted: Counted) -> Vec<(Rank, usize)> {
        let places: Vec<usize> = self.touched.keys().copied().collect();
        let scene = self.scene;
        let rank = |at: usize| {
            let node = scene.snapshot.node_at(at)?;
            let known = node.usable(scene.now).ok()?;
            Some((self.judge_touched(at, counted.beside(node, known), pod, want, counted)?, at))
        };
        places.into_iter().filter_map(rank).collect()
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
            Judgement::of_room(&room, want, &pod.namespace, mix)
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
        let Some(node) = self.scene.snapshot.node_at(at) else { return false };
        let Ok(known) = node.usable(self.scene.now) else { return false };
        let before = node.nominated.iter().flat_map(|kept| kept.nominees());
        let now = self.touched.get(&at).into_iter().flat_map(|touched| &touched.nominees);
        let pod = nominee(pod, want.clone());
        let all = before.chain(now).filter(|nominee| counted.counts(nominee.priority)).chain([&pod]);
        arrange(&known.now, all, &self.scene.snapshot.mix)
    }

    pub(super) fn nominate(&mut self, at: usize, pod: &'a Pod, want: Want) -> Nomination {
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
    Nominee { uid, priority: pod.priority, namespace, want, once_gone: None }
}
