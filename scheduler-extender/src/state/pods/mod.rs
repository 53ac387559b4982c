//! The pods that matter: those that are bound and ask for extended resources, and those that wait for us.
//!
//! A cluster has tens of thousands of them, and most are copies of few: what a pod asks for is kept once for all
//! that ask alike, and a plan stays the text that it is until somebody reckons with it. Bound pods that ask for
//! nothing of ours are not kept at all.

mod record;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use stowage_shared::host::Host;
use stowage_shared::plan::PlanError;
use stowage_shared::policy::Want;

use self::record::{Ask, Asks, Record};
use super::GpuNames;
use super::event::Pod;

/// Pods of a namespace that wait for GPUs and want the same.
#[derive(Debug)]
pub struct Waiting {
    /// What they want; `None` where it cannot be read.
    pub want: Option<Want>,
    /// Their namespace.
    pub namespace: String,
    /// How many they are.
    pub pods: usize,
}

/// What an update of a pod means.
#[derive(Debug, Default, PartialEq)]
pub(super) struct Update {
    /// The nodes whose use of GPUs may have changed.
    pub(super) nodes: Vec<String>,
    /// The pod is bound, has ended or is gone, so that nothing need be held for it.
    pub(super) settled: bool,
}

/// The pods, by UID and by node.
#[derive(Debug, Default)]
pub(super) struct Pods {
    by_uid: BTreeMap<Arc<str>, Box<Record>>,
    /// The UIDs of the bound ones, sorted.
    by_node: HashMap<String, Vec<Arc<str>>>,
    /// The pods that wait and are nominated to a node.
    nominated: BTreeMap<String, BTreeSet<Arc<str>>>,
    /// Whether these have changed since somebody set this back.
    pub(super) nominations_changed: bool,
    asks: Asks,
    /// How many lists have begun.
    lists: u64,
    /// Annotations that were no plan for their pod.
    pub(super) plans_ignored: u64,
    /// How many pods that ask for GPUs have come or gone since somebody set this back.
    pub(super) changes: usize,
    /// Pods that have waited for GPUs and were bound.
    pub(super) placements: u64,
}

impl Pods {
    pub(super) fn get(&self, uid: &str) -> Option<&Record> {
        self.by_uid.get(uid).map(|record| &**record)
    }

    /// The pods that are bound to a node and use GPUs, by UID.
    pub(super) fn on_node<'a>(&'a self, node: &str) -> impl Iterator<Item = &'a Record> {
        let uids = self.by_node.get(node).into_iter().flatten();
        uids.filter_map(|uid| self.get(uid)).filter(|record| record.uses_gpus())
    }

    /// What the pods that wait for GPUs ask for, and how many ask alike.
    pub(super) fn waiting(&self) -> Vec<Waiting> {
        let mut alike: HashMap<(*const Ask, &str), (&Record, usize)> = HashMap::new();
        for record in self.by_uid.values().filter(|record| record.waits_for_gpus()) {
            let key = (Arc::as_ptr(&record.ask), &*record.bare.namespace);
            alike.entry(key).or_insert((record, 0)).1 += 1;
        }
        let waiting = |((_, namespace), (record, pods)): ((_, &str), (&Record, usize))| Waiting {
            want: record.want(),
            namespace: namespace.to_owned(),
            pods,
        };
        alike.into_iter().map(waiting).collect()
    }

    /// What all pods want that use GPUs or wait for them, and how many want alike.
    pub(super) fn wants(&self) -> impl Iterator<Item = (Want, usize)> {
        let mut alike: HashMap<(*const Ask, Host), (&Record, usize)> = HashMap::new();
        for record in self.by_uid.values().filter(|record| record.matters()) {
            alike.entry((Arc::as_ptr(&record.ask), record.bare.host)).or_insert((record, 0)).1 += 1;
        }
        alike.into_values().filter_map(|(record, pods)| Some((record.want()?, pods)))
    }

    /// Each pod that waits for GPUs.
    pub(super) fn each_waiting(&self) -> impl Iterator<Item = &Record> {
        self.by_uid.values().map(|record| &**record).filter(|record| record.waits_for_gpus())
    }

    /// The nodes to which pods that wait are nominated.
    pub(super) fn nominated_nodes(&self) -> impl Iterator<Item = &str> {
        self.nominated.keys().map(String::as_str)
    }

    /// The UIDs of the pods that wait and are nominated, with their nodes.
    pub(super) fn nominations(&self) -> impl Iterator<Item = (&str, &str)> {
        self.nominated.iter().flat_map(|(node, uids)| uids.iter().map(move |uid| (&**uid, &**node)))
    }

    /// The pods that wait and are nominated to a node, by UID.
    pub(super) fn nominated_to<'a>(&'a self, node: &str) -> impl Iterator<Item = &'a Record> {
        let uids = self.nominated.get(node).into_iter().flatten();
        uids.filter_map(|uid| self.by_uid.get(uid)).map(|record| &**record)
    }

    pub(super) fn list_begins(&mut self) {
        self.lists += 1;
    }

    pub(super) fn listed(&mut self, pod: Pod, names: &GpuNames) -> Update {
        let uid: Arc<str> = pod.uid.as_str().into();
        let update = self.apply(pod, names);
        if let Some(record) = self.by_uid.get_mut(&uid) {
            record.list = self.lists;
        }
        update
    }

    /// Whether a pod that matters was in the last list.
    pub(super) fn was_listed(&self, uid: &str) -> bool {
        self.get(uid).is_some_and(|record| record.list == self.lists)
    }

    /// Forgets what the list lacked. Answers with the nodes that were used.
    pub(super) fn list_ends(&mut self) -> Vec<String> {
        let lists = self.lists;
        let gone = self.by_uid.iter().filter(|(_, record)| record.list != lists);
        let gone: Vec<Arc<str>> = gone.map(|(uid, _)| uid.clone()).collect();
        gone.iter().filter_map(|uid| self.forget(uid)).collect()
    }

    pub(super) fn apply(&mut self, pod: Pod, names: &GpuNames) -> Update {
        let known = self.by_uid.get(&*pod.uid);
        if known.is_some_and(|known| !known.bare.node.is_empty()) && pod.node.is_empty() {
            // A pod is never unbound: this is an older version, and would free its devices.
            return Update::default();
        }
        if pod.terminal {
            let nodes = self.forget(&pod.uid).into_iter().collect();
            return Update { nodes, settled: true };
        }
        let settled = !pod.node.is_empty();
        if settled && !pod.asks_for_extended_resources() || !settled && !pod.ours {
            let nodes = self.forget(&pod.uid).into_iter().collect();
            return Update { nodes, settled };
        }
        let mut bare = pod;
        let ask = self.asks.of(std::mem::take(&mut bare.spec), &bare.annotations, names);
        if known.is_some_and(|known| known.bare == bare && Arc::ptr_eq(&known.ask, &ask)) {
            return Update { settled, ..Update::default() };
        }
        let news = known.is_none_or(|known| known.bare.plan != bare.plan || known.bare.node != bare.node);
        let list = known.map_or(0, |known| known.list);
        self.placements += u64::from(settled && known.is_some_and(|known| known.waits_for_gpus()));
        let is_new = known.is_none();
        let mut nodes: Vec<String> = self.remove(&bare.uid).into_iter().collect();
        let planned = Record::read_plan(&bare, &ask.request).unwrap_or_else(|error| {
            if news {
                self.ignored(&bare, &error);
            }
            false
        });
        let uid: Arc<str> = bare.uid.as_str().into();
        let record = Record { bare, ask, planned, list };
        self.changes += usize::from(is_new && record.matters());
        if record.uses_gpus() {
            nodes.push(record.bare.node.clone());
        }
        if settled {
            let uids = self.by_node.entry(record.bare.node.clone()).or_default();
            let at = uids.partition_point(|other| *other < uid);
            uids.insert(at, uid.clone());
        } else if let Some(node) = record.nominated() {
            self.nominated.entry(node.to_owned()).or_default().insert(uid.clone());
            self.nominations_changed = true;
            nodes.push(node.to_owned());
        }
        self.by_uid.insert(uid, Box::new(record));
        Update { nodes, settled }
    }

    /// A pod is gone. Answers with the node that it used GPUs of, or that kept room for it.
    pub(super) fn forget(&mut self, uid: &str) -> Option<String> {
        self.changes += usize::from(self.get(uid).is_some_and(Record::matters));
        self.remove(uid)
    }

    fn remove(&mut self, uid: &str) -> Option<String> {
        let record = self.by_uid.remove(uid)?;
        if let Some(uids) = self.by_node.get_mut(&record.bare.node) {
            uids.retain(|other| &**other != uid);
            if uids.is_empty() {
                self.by_node.remove(&record.bare.node);
            }
        }
        if let Some(node) = record.nominated() {
            self.nominations_changed = true;
            if let Some(uids) = self.nominated.get_mut(node) {
                uids.remove(uid);
                if uids.is_empty() {
                    self.nominated.remove(node);
                }
            }
            return Some(node.to_owned());
        }
        record.uses_gpus().then_some(record.bare.node)
    }

    /// Reads every request and plan again, by other names.
    pub(super) fn renamed(&mut self, names: &GpuNames) {
        self.asks = Asks::default();
        for record in self.by_uid.values_mut() {
            record.ask = self.asks.of(record.ask.spec.clone(), &record.bare.annotations, names);
            record.planned = Record::read_plan(&record.bare, &record.ask.request).unwrap_or(false);
        }
    }

    /// One function, so that what is logged and what is counted cannot drift apart.
    fn ignored(&mut self, pod: &Pod, error: &PlanError) {
        self.plans_ignored += 1;
        tracing::warn!(
            pod.namespace = pod.namespace,
            pod.name = pod.name,
            pod.uid = pod.uid,
            node = pod.node,
            %error,
            "The pod's plan is ignored."
        );
    }
}
