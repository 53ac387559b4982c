//! Pods that are not bound yet and for which a node keeps room.
//!
//! A pod's `status.nominatedNodeName` says that kube-scheduler tries that node first; whoever wrote it, room is kept
//! for it there, as kube-scheduler keeps cpu and memory: against pods of equal or lower priority, never against
//! more important ones. A nomination of our own counts from the moment it is decided, before the API server or
//! the watch has told it back.
//!
//! A nomination is a hint and promises no devices: which of the node's are kept is reckoned anew each time.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use stowage_shared::pack::Mix;
use stowage_shared::policy::{Occupied, Want};

use super::classes::Classes;
use super::{KnownGpus, NodeGpus, State};

/// Of more pods nominated to one node than this, the least important count for nothing: no node has room for so many,
/// and each is placed again whenever the node changes.
const NOMINEES_MAX: usize = 256;

/// A pod for which a node keeps room.
#[derive(Debug, Clone, PartialEq)]
pub struct Nominee {
    /// Its UID.
    pub uid: String,
    /// Its priority.
    pub priority: i32,
    /// Its namespace.
    pub namespace: String,
    /// What it wants of a node.
    pub want: Want,
    /// The node once those are gone who make room for it; `None` where nobody has to go.
    pub once_gone: Option<Arc<Occupied>>,
}

/// The pods for which one node keeps room, the most important first.
#[derive(Debug, Clone, PartialEq)]
pub struct Nominated {
    nominees: Vec<Nominee>,
    /// For each priority that a nominee has, from the highest: the GPUs once all that are at least as important are
    /// placed.
    levels: Vec<(i32, KnownGpus)>,
}

/// What of a node's GPUs one pod may use.
#[derive(Debug, Clone, PartialEq)]
pub enum Room<'a> {
    /// What any pod of its priority may use: of a class, so that it is judged once.
    Class(&'a KnownGpus),
    /// The pod itself is nominated there, so that its own room is not counted against it.
    Own(Occupied),
}

impl Nominee {
    /// Counts what it wants as in use; `false` where it does not fit, and nothing changes.
    ///
    /// While others are still to go for it, it gets what it will have then: so nobody takes the part that is free already.
    pub fn settle(&self, room: &mut Occupied, mix: &Mix) -> bool {
        if room.take(&self.want, &self.namespace, mix).is_some() {
            return true;
        }
        let Some(once_gone) = &self.once_gone else { return false };
        let Ok(placement) = once_gone.place(&self.want, &self.namespace, mix) else { return false };
        room.settle(&placement, &self.want, &self.namespace);
        true
    }
}

impl Nominated {
    fn of(mut nominees: Vec<Nominee>, known: &KnownGpus, mix: &Mix, classes: &mut Classes) -> Self {
        nominees.sort_by(|one, two| order(one).cmp(&order(two)));
        nominees.truncate(NOMINEES_MAX);
        let mut room = known.now.clone();
        let mut levels: Vec<(i32, KnownGpus)> = Vec::new();
        for alike in nominees.chunk_by(|one, two| one.priority == two.priority) {
            for nominee in alike {
                nominee.settle(&mut room, mix);
            }
            let level = classes.known(room.clone(), known.fresh_until);
            levels.extend(alike.first().map(|first| (first.priority, level)));
        }
        Self { nominees, levels }
    }

    /// The pods, the most important first.
    pub fn nominees(&self) -> &[Nominee] {
        &self.nominees
    }

    /// What a pod that is not nominated here may use: what is kept for pods that are at least as important is taken.
    pub fn beside<'a>(&'a self, known: &'a KnownGpus, priority: i32) -> &'a KnownGpus {
        let counted = self.levels.iter().rev().find(|(of, _)| *of >= priority);
        counted.map_or(known, |(_, level)| level)
    }

    /// What any pod may use if everything that is kept is taken.
    pub fn beside_all<'a>(&'a self, known: &'a KnownGpus) -> &'a KnownGpus {
        self.levels.last().map_or(known, |(_, level)| level)
    }

    /// What a pod may use, whether or not it is nominated here itself.
    pub fn room<'a>(&'a self, known: &'a KnownGpus, priority: i32, uid: &str, mix: &Mix) -> Room<'a> {
        if self.nominees.iter().any(|nominee| nominee.uid == uid) {
            Room::Own(self.without(known, priority, uid, mix))
        } else {
            Room::Class(self.beside(known, priority))
        }
    }

    /// The GPUs once the others that are at least as important are placed.
    pub fn without(&self, known: &KnownGpus, priority: i32, uid: &str, mix: &Mix) -> Occupied {
        let mut room = known.now.clone();
        for nominee in self.nominees.iter().filter(|it| it.uid != uid && it.priority >= priority) {
            nominee.settle(&mut room, mix);
        }
        room
    }
}

/// The order in which nominees of one node are placed: the same in every replica.
fn order(nominee: &Nominee) -> (std::cmp::Reverse<i32>, &str) {
    (std::cmp::Reverse(nominee.priority), &nominee.uid)
}

/// Whether all of these pods fit together, placed in the order in which [`Nominated`] places them.
pub fn arrange<'a>(node: &Occupied, nominees: impl IntoIterator<Item = &'a Nominee>, mix: &Mix) -> bool {
    let mut room = node.clone();
    let mut nominees: Vec<&Nominee> = nominees.into_iter().collect();
    nominees.sort_by(|one, two| order(one).cmp(&order(two)));
    nominees.into_iter().all(|nominee| nominee.settle(&mut room, mix))
}

/// Nominations of our own that the watch has not told back, or that we keep up ourselves.
#[derive(Debug, Default)]
pub(super) struct Nominations {
    by_uid: BTreeMap<String, Ours>,
    by_node: BTreeMap<Arc<str>, BTreeSet<String>>,
    /// Which nodes were chosen ahead, by UID, as it was told last; `None` once that is no longer so.
    ahead: Option<Arc<HashMap<String, Arc<str>>>>,
}

#[derive(Debug)]
struct Ours {
    node: Arc<str>,
    /// Ends when the watch tells it back: from then on what the API server has counts.
    until_told: bool,
    /// The UIDs of those who have to go for it.
    to_go: BTreeSet<String>,
}

impl Nominations {
    fn remove(&mut self, uid: &str) -> Option<Arc<str>> {
        let ours = self.by_uid.remove(uid)?;
        self.ahead = None;
        if let Some(uids) = self.by_node.get_mut(&ours.node) {
            uids.remove(uid);
            if uids.is_empty() {
                self.by_node.remove(&ours.node);
            }
        }
        Some(ours.node)
    }
}

impl State {
    /// Keeps room on a node for a waiting pod from now on, until the watch shows its nomination.
    ///
    /// What ends it otherwise: the pod is bound, has ended or is gone.
    pub fn nominate(&mut self, uid: &str, node: &str) {
        self.keep(uid, node, true, BTreeSet::new());
    }

    /// The same for room that is only being made, by those who are `to_go`: it is kept until
    /// [`unnominate`](Self::unnominate). `false` where somebody makes room for the pod already.
    pub fn make_room(&mut self, uid: &str, node: &str, to_go: BTreeSet<String>) -> bool {
        if self.nominations.by_uid.get(uid).is_some_and(|ours| !ours.until_told) {
            return false;
        }
        self.keep(uid, node, false, to_go)
    }

    fn keep(&mut self, uid: &str, node: &str, until_told: bool, to_go: BTreeSet<String>) -> bool {
        self.unnominate(uid);
        if self.pods.get(uid).is_none_or(|record| !record.bare.node.is_empty()) {
            return false;
        }
        let node: Arc<str> = node.into();
        self.nominations.by_node.entry(node.clone()).or_default().insert(uid.to_owned());
        self.touch(&node);
        self.nominations.by_uid.insert(uid.to_owned(), Ours { node, until_told, to_go });
        self.nominations.ahead = None;
        true
    }

    /// The node on which we keep room for a pod, if the watch has not told it back.
    pub fn nominated(&self, uid: &str) -> Option<Arc<str>> {
        self.nominations.by_uid.get(uid).map(|ours| ours.node.clone())
    }

    /// The node that was chosen ahead for each pod that waits: by us a moment ago, or as the API server has it.
    pub(super) fn ahead(&mut self) -> Arc<HashMap<String, Arc<str>>> {
        let news = std::mem::take(&mut self.pods.nominations_changed);
        match &self.nominations.ahead {
            Some(known) if !news => known.clone(),
            _ => {
                let told = self.pods.nominations().map(|(uid, node)| (uid.to_owned(), Arc::from(node)));
                let ours = self.nominations.by_uid.iter().filter(|(_, ours)| ours.until_told);
                // Where we have just chosen another node than is told, ours is newer.
                let all = told.chain(ours.map(|(uid, ours)| (uid.clone(), ours.node.clone())));
                self.nominations.ahead.insert(Arc::new(all.collect())).clone()
            }
        }
    }

    /// Keeps room for a pod no longer, unless the API server has it nominated.
    pub fn unnominate(&mut self, uid: &str) {
        if let Some(node) = self.nominations.remove(uid) {
            self.touch(&node);
        }
    }

    /// Keeps room no longer for pods that are gone.
    pub(super) fn unnominate_gone(&mut self) {
        let gone = self.nominations.by_uid.keys().filter(|uid| self.pods.get(uid).is_none());
        let gone: Vec<String> = gone.cloned().collect();
        gone.iter().for_each(|uid| self.unnominate(uid));
    }

    /// What is held for a pod changed, and with it whether it counts where it is nominated.
    pub(super) fn touch_nominated(&mut self, uid: &str) {
        let ours = self.nominations.by_uid.get(uid).map(|ours| ours.node.clone());
        let told = self.pods.get(uid).and_then(|record| record.nominated()).map(Arc::from);
        for node in [ours, told].into_iter().flatten() {
            self.touch(&node);
        }
    }

    /// Where room is kept depends on what is expected, so it is reckoned anew when that changes.
    pub(super) fn touch_all_nominated(&mut self) {
        let told = self.pods.nominated_nodes().map(Arc::from);
        let nodes: Vec<Arc<str>> = self.nominations.by_node.keys().cloned().chain(told).collect();
        nodes.iter().for_each(|node| self.touch(node));
    }

    /// The watch told something of a pod: what it tells of its nomination counts, if we waited for it.
    pub(super) fn nomination_told(&mut self, uid: &str) {
        let Some(ours) = self.nominations.by_uid.get(uid) else { return };
        let told = self.pods.get(uid).and_then(|record| record.nominated());
        if ours.until_told && told == Some(&*ours.node) {
            self.unnominate(uid);
        }
    }

    /// The pods for which a node keeps room.
    pub(super) fn nominated_to(&mut self, node: &str, gpus: &NodeGpus) -> Option<Arc<Nominated>> {
        let NodeGpus::Known(known) = gpus else { return None };
        let ours = self.nominations.by_node.get(node).into_iter().flatten();
        let ours = ours.filter_map(|uid| self.pods.get(uid));
        let elsewhere = |uid: &str| self.nominations.by_uid.contains_key(uid);
        let told = self.pods.nominated_to(node).filter(|record| !elsewhere(&record.bare.uid));
        let nominees: Vec<Nominee> = ours
            .chain(told)
            // What is held for a pod that is being bound is counted already.
            .filter(|record| self.assumptions.get(&record.bare.uid).is_none())
            .filter_map(|record| {
                Some(Nominee {
                    uid: record.bare.uid.clone(),
                    priority: record.bare.priority,
                    namespace: record.bare.namespace.clone(),
                    want: record.want()?,
                    once_gone: self.once_gone(&record.bare.uid, node),
                })
            })
            .collect();
        if nominees.is_empty() {
            return None;
        }
        Some(Arc::new(Nominated::of(nominees, known, &self.mix, &mut self.classes)))
    }

    /// A node without those who make room there for a pod. A pod may be gone before its GpuNode says so.
    fn once_gone(&self, uid: &str, node: &str) -> Option<Arc<Occupied>> {
        let ours = self.nominations.by_uid.get(uid).filter(|ours| !ours.to_go.is_empty())?;
        let gone: BTreeSet<&str> = ours.to_go.iter().map(String::as_str).collect();
        let (name, known) = self.nodes.get_key_value(node)?;
        let (content, _) = self.believable(name, known).ok()??;
        Some(Arc::new(self.in_use(name, content, &gone)))
    }
}
