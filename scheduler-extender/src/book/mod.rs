//! What is known of pods and nodes beyond GPUs: cpu and memory, labels, taints, affinity, priorities, owners, budgets.
//!
//! filter, prioritize and bind need none of it: kube-scheduler's own filters look at it. Whoever decides without being
//! asked does: nominating ahead, preemption, and which pod of a ReplicaSet should go first. So it is kept only where one
//! of these is on. Pure: [`read`] has the API's types, [`feed`] the watches.

pub mod amounts;
pub mod feed;
pub mod objects;
pub mod read;
pub mod rules;
#[cfg(test)]
pub(crate) mod tests;

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, HashMap};

use serde::{Deserialize, Deserializer};

use self::amounts::{Amounts, Names};
use self::objects::{Budget, Node, Pod, Repels};
use crate::state::event::Change;

/// Where a pod stands in the queue: more important ones first, then older ones, then as they were told.
pub type Place = (Reverse<i32>, i64, u64);

/// A pod that waited waits no longer.
#[derive(Debug, Clone, PartialEq)]
pub struct Settled {
    /// The pod as it was while it waited.
    pub pod: Pod,
    /// The node that it is bound to; `None` where it is gone.
    pub node: Option<String>,
}

/// All of it.
#[derive(Debug, Default)]
pub struct Book {
    /// One copy of each resource name.
    pub names: Names,
    nodes: BTreeMap<String, Node>,
    pods: HashMap<String, Pod>,
    by_node: HashMap<String, BTreeSet<String>>,
    /// What the pods bound to a node ask for, but for the stale ones.
    used: HashMap<String, Amounts>,
    /// The nodes whose pods have changed since.
    stale: BTreeSet<String>,
    waiting: BTreeMap<Place, String>,
    places: HashMap<String, Place>,
    /// The UIDs of those that wait and are nominated to a node, by whomever.
    nominated: BTreeSet<String>,
    told: u64,
    repels: BTreeMap<Repels, usize>,
    budgets: BTreeMap<String, Budget>,
    listed: Listed,
}

/// The keys seen in lists that are not complete yet.
#[derive(Debug, Default)]
struct Listed {
    pods: BTreeSet<String>,
    nodes: BTreeSet<String>,
    budgets: BTreeSet<String>,
}

impl Book {
    /// Takes in what happened to pods. Answers with those that wait no longer.
    pub fn apply_pod(&mut self, change: Change<Pod>) -> Vec<Settled> {
        match change {
            Change::ListBegins => self.listed.pods.clear(),
            Change::Listed(pod) => {
                self.listed.pods.insert(pod.uid.clone());
                return self.pod_seen(pod).into_iter().collect();
            }
            Change::Applied(pod) => return self.pod_seen(pod).into_iter().collect(),
            Change::Deleted(uid) => return self.pod_gone(&uid).into_iter().collect(),
            Change::ListEnds => {
                let listed = std::mem::take(&mut self.listed.pods);
                let gone: Vec<String> =
                    self.pods.keys().filter(|uid| !listed.contains(*uid)).cloned().collect();
                return gone.iter().filter_map(|uid| self.pod_gone(uid)).collect();
            }
        }
        Vec::new()
    }

    fn pod_seen(&mut self, mut pod: Pod) -> Option<Settled> {
        let before = self.forget(&pod.uid);
        let place = self.places.remove(&pod.uid);
        place.iter().for_each(|place| drop(self.waiting.remove(place)));
        let waited = before.filter(|_| place.is_some());
        if pod.node.is_empty() {
            let before = waited.as_ref().filter(|_| pod.nominated.is_empty());
            pod.was_nominated = before.map_or(&pod.nominated, |before| &before.was_nominated).clone();
        }
        if pod.terminal {
            return waited.map(|pod| Settled { pod, node: None });
        }
        let settled = match (&*pod.node, waited) {
            (node, Some(before)) if !node.is_empty() => {
                Some(Settled { pod: before, node: Some(node.to_owned()) })
            }
            _ => None,
        };
        if pod.node.is_empty() && !pod.ours {
            return settled;
        }
        if pod.node.is_empty() {
            self.told += 1;
            let known = place.filter(|place| (place.0, place.1) == (Reverse(pod.priority), pod.created));
            let place = known.unwrap_or((Reverse(pod.priority), pod.created, self.told));
            self.waiting.insert(place, pod.uid.clone());
            if !pod.nominated.is_empty() {
                self.nominated.insert(pod.uid.clone());
            }
            self.places.insert(pod.uid.clone(), place);
        } else {
            self.by_node.entry(pod.node.clone()).or_default().insert(pod.uid.clone());
            self.stale.insert(pod.node.clone());
            for repels in &pod.repels {
                *self.repels.entry(repels.clone()).or_default() += 1;
            }
        }
        self.pods.insert(pod.uid.clone(), pod);
        settled
    }

    fn pod_gone(&mut self, uid: &str) -> Option<Settled> {
        let pod = self.forget(uid)?;
        let place = self.places.remove(uid)?;
        self.waiting.remove(&place);
        Some(Settled { pod, node: None })
    }

    fn forget(&mut self, uid: &str) -> Option<Pod> {
        let pod = self.pods.remove(uid)?;
        self.nominated.remove(uid);
        if let Some(uids) = self.by_node.get_mut(&pod.node) {
            uids.remove(uid);
            if uids.is_empty() {
                self.by_node.remove(&pod.node);
            }
            self.stale.insert(pod.node.clone());
            for repels in &pod.repels {
                if let Some(count) = self.repels.get_mut(repels) {
                    *count -= 1;
                    if *count == 0 {
                        self.repels.remove(repels);
                    }
                }
            }
        }
        Some(pod)
    }

    /// A nomination of ours begins: what was before it no longer counts.
    pub fn nominates(&mut self, uid: &str) {
        if let Some(pod) = self.pods.get_mut(uid) {
            pod.was_nominated.clear();
        }
    }

    /// Takes in what happened to nodes.
    pub fn apply_node(&mut self, change: Change<Node>) {
        match change {
            Change::ListBegins => self.listed.nodes.clear(),
            Change::Listed(node) => {
                self.listed.nodes.insert(node.site.name.clone());
                self.nodes.insert(node.site.name.clone(), node);
            }
            Change::Applied(node) => drop(self.nodes.insert(node.site.name.clone(), node)),
            Change::Deleted(name) => drop(self.nodes.remove(&name)),
            Change::ListEnds => {
                let listed = std::mem::take(&mut self.listed.nodes);
                self.nodes.retain(|name, _| listed.contains(name));
            }
        }
    }

    /// Takes in what happened to PodDisruptionBudgets.
    pub fn apply_budget(&mut self, change: Change<Budget>) {
        let key = |budget: &Budget| format!("{}/{}", budget.namespace, budget.name);
        match change {
            Change::ListBegins => self.listed.budgets.clear(),
            Change::Listed(budget) => {
                self.listed.budgets.insert(key(&budget));
                self.budgets.insert(key(&budget), budget);
            }
            Change::Applied(budget) => drop(self.budgets.insert(key(&budget), budget)),
            Change::Deleted(key) => drop(self.budgets.remove(&key)),
            Change::ListEnds => {
                let listed = std::mem::take(&mut self.listed.budgets);
                self.budgets.retain(|key, _| listed.contains(key));
            }
        }
    }

    /// Sums up what is in use of the nodes whose pods changed. Before [`used`](Self::used) is asked.
    pub fn refresh(&mut self) {
        for node in std::mem::take(&mut self.stale) {
            let mut used = Amounts::default();
            let mut pods = self.on_node(&node).peekable();
            let none = pods.peek().is_none();
            pods.for_each(|pod| used.add(&pod.wants));
            match none {
                true => drop(self.used.remove(&node)),
                false => drop(self.used.insert(node, used)),
            }
        }
    }

    /// A pod.
    pub fn pod(&self, uid: &str) -> Option<&Pod> {
        self.pods.get(uid)
    }

    /// A node.
    pub fn node(&self, name: &str) -> Option<&Node> {
        self.nodes.get(name)
    }

    /// What the pods bound to a node ask for, as far as it was summed up.
    pub fn used(&self, node: &str) -> Option<&Amounts> {
        self.used.get(node)
    }

    /// The pods bound to a node, by UID.
    pub fn on_node<'a>(&'a self, node: &str) -> impl Iterator<Item = &'a Pod> {
        self.by_node.get(node).into_iter().flatten().filter_map(|uid| self.pods.get(uid))
    }

    /// All pods, in no order.
    pub fn pods(&self) -> impl Iterator<Item = &Pod> {
        self.pods.values()
    }

    /// The pods that wait for our scheduler, in the order of kube-scheduler's queue, from a place on.
    pub fn waiting(&self, from: Option<Place>) -> impl Iterator<Item = (Place, &Pod)> {
        let from = from.unwrap_or((Reverse(i32::MAX), i64::MIN, 0));
        let waiting = self.waiting.range(from..);
        waiting.filter_map(|(place, uid)| Some((*place, self.pods.get(uid)?)))
    }

    /// Those of them that are nominated to a node, by whomever, in the order of their UIDs.
    pub fn nominated(&self) -> impl Iterator<Item = &Pod> {
        self.nominated.iter().filter_map(|uid| self.pods.get(uid))
    }

    /// Whether a running pod's required anti-affinity may keep this one away from somewhere.
    pub fn may_be_repelled(&self, pod: &Pod) -> bool {
        self.repels.keys().any(|repels| repels.may_mean(&pod.namespace, &pod.labels))
    }

    /// The budgets that protect a pod.
    pub fn budgets_of<'a>(&'a self, pod: &'a Pod) -> impl Iterator<Item = (&'a str, &'a Budget)> {
        let budgets = self.budgets.iter().filter(|(_, budget)| budget.protects(pod));
        budgets.map(|(key, budget)| (key.as_str(), budget))
    }
}

/// Reads `null` as the default: Go writes nil slices and maps so.
pub(crate) fn null_is_default<'de, D, T>(deserializer: D) -> Result<T, D::Error>
where
    D: Deserializer<'de>,
    T: Default + Deserialize<'de>,
{
    Option::<T>::deserialize(deserializer).map(Option::unwrap_or_default)
}
