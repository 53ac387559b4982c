//! An independent judge of a state: every broken promise it can find, by name.
//!
//! It shares no code with what places, plans or reckons. Property tests, the simulator, the debug endpoint and
//! `kubectl stowage audit` all ask it.

mod held;
mod promised;
#[cfg(test)]
mod tests;

use std::collections::BTreeSet;
use std::fmt;

use crate::contract::PLAN_ANNOTATION;
use crate::gpu::Gpu;
use crate::gpu_node::AllocationStatus;
use crate::plan::Plan;
use crate::pod::{PodSpec, PodStatus};
use crate::request::Request;
use crate::resource::ResourceName;

/// One node's state, as different parties tell it.
#[derive(Debug, Clone, Default)]
pub struct NodeView {
    /// The node.
    pub node: String,
    /// Its GPUs.
    pub gpus: Vec<Gpu>,
    /// What the kubelet handed out.
    pub allocations: Vec<AllocationStatus>,
    /// The pods bound to it that ask for GPUs, the ended ones left out.
    pub pods: Vec<PodView>,
}

/// One pod that is bound to the node and asks for GPUs.
#[derive(Debug, Clone)]
pub struct PodView {
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// Its UID.
    pub uid: String,
    /// What it asks for.
    pub request: Request,
    /// What it was promised.
    pub plan: Option<Plan>,
    /// Whether its containers run, so that it must hold what it asks for.
    pub running: bool,
}

impl PodView {
    /// Reads a pod as the API server has it. `None` where it is not bound to `node`, has ended, or asks for
    /// no GPU; a plan that is not valid for it counts as none.
    pub fn of<'a>(
        (namespace, name, uid): (&str, &str, &str),
        annotation: impl Fn(&str) -> Option<&'a str>,
        spec: &PodSpec,
        status: &PodStatus,
        node: &str,
    ) -> Option<Self> {
        if spec.node_name != node || status.is_terminal() {
            return None;
        }
        let request = Request::of_pod(spec, &annotation, ResourceName::is_standard_gpu)
            .ok()
            .filter(|request| !request.is_empty())?;
        let plan = annotation(PLAN_ANNOTATION).and_then(|text| Plan::read(text, uid, node, &request).ok());
        Some(Self {
            namespace: namespace.to_owned(),
            name: name.to_owned(),
            uid: uid.to_owned(),
            request,
            plan,
            running: status.phase == "Running",
        })
    }
}

/// How bad a finding is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Severity {
    /// Worth a look: nothing is in danger.
    Notice,
    /// A promise is broken; the workload runs.
    Warning,
    /// Two workloads share what each was promised for itself, or use what does not exist.
    Error,
}

/// What is wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Kind {
    /// One device is held by two pods.
    DoubleUse,
    /// Two devices in use exclude each other.
    Overlap,
    /// A device is held that the node does not have.
    UnknownDevice,
    /// A device is held that is there, and is not offered under that name or in that form any more.
    Leftover,
    /// A device is held for a pod that is not there.
    Leak,
    /// A running pod does not hold what it asks for.
    Missing,
    /// A pod holds something else than the plans of its shape say: the plugin chose without a plan, or the pod
    /// that it swapped devices with has ended, which no state can tell apart. What is held counts from then on.
    Drift,
    /// A plan names a device that the node does not have.
    PlanWithoutDevice,
    /// More pods were promised a device than it can hold.
    DoublePlan,
    /// A device that a pod holds, or was promised, is unhealthy.
    Unhealthy,
    /// The shares that pods hold of a GPU are larger than its memory.
    Overcommit,
}

/// One broken invariant.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Finding {
    /// How bad it is.
    pub severity: Severity,
    /// What is wrong.
    pub kind: Kind,
    /// On which node.
    pub node: String,
    /// Who and what, for a person.
    pub text: String,
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?} {:?} on {}: {}", self.severity, self.kind, self.node, self.text)
    }
}

/// Lists every broken invariant of a node, the worst first.
pub fn audit(view: &NodeView) -> Vec<Finding> {
    let mut audit = Audit { view, findings: Vec::new() };
    audit.devices();
    audit.holders();
    audit.memory();
    audit.plans();
    audit.drift();
    let mut findings = audit.findings;
    findings.sort_by(|a, b| b.severity.cmp(&a.severity).then_with(|| a.cmp(b)));
    findings.dedup();
    findings
}

/// Where a device is: the places of its GPU and of its offer.
type Place = (usize, usize);

struct Audit<'a> {
    view: &'a NodeView,
    findings: Vec<Finding>,
}

impl Audit<'_> {
    fn find(&mut self, severity: Severity, kind: Kind, text: String) {
        self.findings.push(Finding { severity, kind, node: self.view.node.clone(), text });
    }

    /// The GPU and offer of a device id, found by comparing every id the node could have.
    fn device(&self, resource: &ResourceName, id: &str) -> Option<Place> {
        self.view.gpus.iter().enumerate().find_map(|(g, gpu)| {
            let offers =
                gpu.kind.offers().iter().enumerate().filter(|(_, offer)| &offer.resource == resource);
            offers
                .map(|(o, _)| o)
                .find(|&o| gpu.device_ids(o).any(|known| known.to_string() == id))
                .map(|o| (g, o))
        })
    }

    /// The device ids of one resource that a pod holds, each once.
    fn held_by<'a>(&'a self, pod: &PodView, resource: &ResourceName) -> BTreeSet<&'a str> {
        let mine = self.view.allocations.iter().filter(|held| {
            held.namespace == pod.namespace && held.pod == pod.name && &held.resource == resource
        });
        mine.flat_map(|held| held.device_ids.iter().map(String::as_str)).collect()
    }
}
