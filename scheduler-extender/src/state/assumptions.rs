//! Devices that are held for pods whose binding the pod watch has not shown yet.
//!
//! The next filter comes before a Binding has reached the API server, and long before the watch has told it
//! back. So devices are held from the moment they are chosen. A held device is given back when it is certain
//! that the pod will not use it; as long as that is only likely, it stays held, within a bound.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Instant;

use stowage_shared::contract::ASSUMPTION_TTL;
use stowage_shared::host::Host;
use stowage_shared::plan::Plan;
use stowage_shared::policy::ShareWith;
use stowage_shared::request::Request;

use crate::clock::Now;

/// Names one assumption; a pod's next one has another.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AssumptionId(u64);

/// Devices held for one pod.
#[derive(Debug)]
pub(super) struct Assumption {
    pub(super) id: AssumptionId,
    pub(super) chosen: Chosen,
    standing: Standing,
}

/// What was chosen for a pod.
#[derive(Debug)]
pub(super) struct Chosen {
    pub(super) node: Arc<str>,
    pub(super) namespace: String,
    pub(super) share_with: ShareWith,
    pub(super) request: Request,
    /// The CPU and memory that go with it.
    pub(super) host: Host,
    pub(super) plan: Plan,
    /// The plan's text.
    pub(super) annotation: String,
}

/// How certain it is that the pod will use them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Standing {
    /// The Binding is under way, or its answer was lost.
    Pending { until: Instant },
    /// The API server has bound the pod, after that many lists of pods had begun. The watch is going to show it,
    /// or a later list is going to lack it.
    Bound { lists: u64 },
}

/// All of them, by the pod's UID.
#[derive(Debug, Default)]
pub(super) struct Assumptions {
    by_uid: BTreeMap<String, Assumption>,
    next: u64,
    lists: u64,
    /// See [`nodes`](Self::nodes); made anew where it is missing.
    nodes: Option<Arc<HashMap<String, Arc<str>>>>,
}

impl Assumptions {
    pub(super) fn get(&self, uid: &str) -> Option<&Assumption> {
        self.by_uid.get(uid)
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (&str, &Assumption)> {
        self.by_uid.iter().map(|(uid, assumption)| (uid.as_str(), assumption))
    }

    /// The node of each pod, by the pod's UID.
    pub(super) fn nodes(&mut self) -> Arc<HashMap<String, Arc<str>>> {
        let node = |(uid, assumption): (&String, &Assumption)| (uid.clone(), assumption.chosen.node.clone());
        self.nodes.get_or_insert_with(|| Arc::new(self.by_uid.iter().map(node).collect())).clone()
    }

    /// How many are (pending, bound).
    pub(super) fn count(&self) -> (usize, usize) {
        let bound = self.by_uid.values().filter(|a| matches!(a.standing, Standing::Bound { .. })).count();
        (self.by_uid.len() - bound, bound)
    }

    /// Holds devices for a pod, in place of what was held for it before.
    pub(super) fn hold(&mut self, chosen: Chosen, now: Now) -> AssumptionId {
        self.next += 1;
        self.nodes = None;
        let id = AssumptionId(self.next);
        let standing = Standing::Pending { until: now.monotonic + ASSUMPTION_TTL };
        self.by_uid.insert(chosen.plan.uid.clone(), Assumption { id, chosen, standing });
        id
    }

    /// The node that the API server has bound the pod to, as far as its answer to us told.
    pub(super) fn bound_to(&self, uid: &str) -> Option<&Arc<str>> {
        let assumption = self.by_uid.get(uid)?;
        matches!(assumption.standing, Standing::Bound { .. }).then_some(&assumption.chosen.node)
    }

    /// The Binding is tried once more.
    pub(super) fn prolong(&mut self, uid: &str, now: Now) {
        if let Some(Assumption { standing: Standing::Pending { until }, .. }) = self.by_uid.get_mut(uid) {
            *until = now.monotonic + ASSUMPTION_TTL;
        }
    }

    /// The API server has bound the pod.
    pub(super) fn bound(&mut self, uid: &str, id: AssumptionId) {
        let lists = self.lists;
        if let Some(assumption) = self.by_uid.get_mut(uid).filter(|assumption| assumption.id == id) {
            assumption.standing = Standing::Bound { lists };
        }
    }

    /// Gives back what is held for a pod. Answers with the node.
    pub(super) fn drop(&mut self, uid: &str) -> Option<Arc<str>> {
        let assumption = self.by_uid.remove(uid)?;
        self.nodes = None;
        Some(assumption.chosen.node)
    }

    /// A list of pods begins.
    pub(super) fn list_begins(&mut self) {
        self.lists += 1;
    }

    /// A list of pods is complete: gives back what was held for pods that were bound before it began, and that
    /// it lacks. Answers with those pods and the nodes.
    pub(super) fn list_ends(&mut self, listed: impl Fn(&str) -> bool) -> Vec<(String, Arc<str>)> {
        let lists = self.lists;
        self.take(|uid, standing| match standing {
            Standing::Bound { lists: before } => before < lists && !listed(uid),
            Standing::Pending { .. } => false,
        })
    }

    /// Gives back what was held for pods that were not bound in time. Answers with those pods and the nodes.
    pub(super) fn expire(&mut self, now: Now) -> Vec<(String, Arc<str>)> {
        self.take(|_, standing| match standing {
            Standing::Pending { until } => until <= now.monotonic,
            Standing::Bound { .. } => false,
        })
    }

    fn take(&mut self, mut when: impl FnMut(&str, Standing) -> bool) -> Vec<(String, Arc<str>)> {
        let gone = self.by_uid.extract_if(.., |uid, assumption| when(uid, assumption.standing));
        let gone: Vec<_> = gone.map(|(uid, assumption)| (uid, assumption.chosen.node)).collect();
        if !gone.is_empty() {
            self.nodes = None;
        }
        gone
    }
}
