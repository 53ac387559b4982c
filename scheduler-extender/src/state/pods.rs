//! The pods that matter: those that are bound and ask for extended resources, and those that wait for us.

use std::collections::{BTreeMap, BTreeSet};

use stowage_shared::plan::{Plan, PlanError};
use stowage_shared::request::Request;

use super::event::Pod;
use super::GpuNames;

/// A pod, with its request and plan read.
#[derive(Debug)]
pub(super) struct Record {
    pub(super) pod: Pod,
    /// What it asks for of GPUs.
    pub(super) request: Request,
    /// What it was promised; `None` where it has no plan, or none that is valid for it.
    pub(super) plan: Option<Plan>,
}

impl Record {
    fn of(pod: Pod, names: &GpuNames) -> (Self, Option<PlanError>) {
        // The API server lets no fraction of a device through. A pod that asks for more devices than we look at
        // counts with what the kubelet gave it.
        let request = Request::of(&pod.spec, |name| names.is_gpu(name)).unwrap_or_default();
        let (plan, error) = match &pod.plan {
            Some(text) if !pod.node.is_empty() && !request.is_empty() => {
                match Plan::read(text, &pod.uid, &pod.node, &request) {
                    Ok(plan) => (Some(plan), None),
                    Err(error) => (None, Some(error)),
                }
            }
            _ => (None, None),
        };
        (Self { pod, request, plan }, error)
    }

    /// Whether it holds GPUs on its node, or will.
    pub(super) fn uses_gpus(&self) -> bool {
        !self.pod.node.is_empty() && !self.request.is_empty()
    }
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
    by_uid: BTreeMap<String, Record>,
    by_node: BTreeMap<String, BTreeSet<String>>,
    listed: Option<BTreeSet<String>>,
    /// Annotations that were no plan for their pod.
    pub(super) plans_ignored: u64,
}

impl Pods {
    pub(super) fn get(&self, uid: &str) -> Option<&Record> {
        self.by_uid.get(uid)
    }

    /// The pods that are bound to a node and use GPUs, by UID.
    pub(super) fn on_node<'a>(&'a self, node: &str) -> impl Iterator<Item = &'a Record> {
        let uids = self.by_node.get(node).into_iter().flatten();
        uids.filter_map(|uid| self.by_uid.get(uid)).filter(|record| record.uses_gpus())
    }

    pub(super) fn list_begins(&mut self) {
        self.listed = Some(BTreeSet::new());
    }

    pub(super) fn listed(&mut self, pod: Pod, names: &GpuNames) -> Update {
        if let Some(listed) = &mut self.listed {
            listed.insert(pod.uid.clone());
        }
        self.apply(pod, names)
    }

    /// Forgets what the list lacked. Answers with the UIDs that it had.
    pub(super) fn list_ends(&mut self) -> (BTreeSet<String>, Vec<String>) {
        let listed = self.listed.take().unwrap_or_default();
        let gone: Vec<String> = self.by_uid.keys().filter(|uid| !listed.contains(*uid)).cloned().collect();
        let nodes = gone.iter().filter_map(|uid| self.forget(uid)).collect();
        (listed, nodes)
    }

    pub(super) fn apply(&mut self, pod: Pod, names: &GpuNames) -> Update {
        let known = self.by_uid.get(&pod.uid);
        if known.is_some_and(|known| !known.pod.node.is_empty()) && pod.node.is_empty() {
            // A pod is never unbound: this is an older version, and would free its devices.
            return Update::default();
        }
        if pod.terminal {
            let nodes = self.forget(&pod.uid).into_iter().collect();
            return Update { nodes, settled: true };
        }
        let settled = !pod.node.is_empty();
        if settled && !pod.asks_for_extended_resources() || !settled && !pod.ours {
            self.forget(&pod.uid);
            return Update { nodes: Vec::new(), settled };
        }
        if known.is_some_and(|known| known.pod == pod) {
            return Update { nodes: Vec::new(), settled };
        }
        let news = known.is_none_or(|known| known.pod.plan != pod.plan || known.pod.node != pod.node);
        let mut nodes: Vec<String> = self.forget(&pod.uid).into_iter().collect();
        let (record, error) = Record::of(pod, names);
        if let Some(error) = error.filter(|_| news) {
            self.ignored(&record.pod, &error);
        }
        if record.uses_gpus() {
            nodes.push(record.pod.node.clone());
        }
        let uid = record.pod.uid.clone();
        if settled {
            self.by_node.entry(record.pod.node.clone()).or_default().insert(uid.clone());
        }
        self.by_uid.insert(uid, record);
        Update { nodes, settled }
    }

    /// A pod is gone. Answers with the node that it used GPUs of.
    pub(super) fn forget(&mut self, uid: &str) -> Option<String> {
        let record = self.by_uid.remove(uid)?;
        if let Some(uids) = self.by_node.get_mut(&record.pod.node) {
            uids.remove(uid);
            if uids.is_empty() {
                self.by_node.remove(&record.pod.node);
            }
        }
        record.uses_gpus().then_some(record.pod.node)
    }

    /// Reads every request and plan again, by other names.
    pub(super) fn renamed(&mut self, names: &GpuNames) {
        for record in self.by_uid.values_mut() {
            let pod = std::mem::take(&mut record.pod);
            *record = Record::of(pod, names).0;
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
