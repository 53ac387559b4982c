//! An independent judge of a state: every broken promise it can find, by name.
//!
//! It shares no code with what places, plans or reckons. Property tests, the simulator, the debug endpoint and
//! `kubectl stowage audit` all ask it.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use crate::contract::PLAN_ANNOTATION;
use crate::gpu::{Gpu, Part};
use crate::gpu_node::AllocationStatus;
use crate::plan::{Plan, PlannedDevice};
use crate::pod::{PodSpec, PodStatus};
use crate::request::Request;
use crate::resource::ResourceName;
use crate::share::ShareSize;

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

struct Audit<'a> {
    view: &'a NodeView,
    findings: Vec<Finding>,
}

impl Audit<'_> {
    fn find(&mut self, severity: Severity, kind: Kind, text: String) {
        self.findings.push(Finding { severity, kind, node: self.view.node.clone(), text });
    }

    /// The GPU and offer of a device id, found by comparing every id the node could have.
    fn device(&self, resource: &ResourceName, id: &str) -> Option<(usize, usize)> {
        self.view.gpus.iter().enumerate().find_map(|(g, gpu)| {
            let offers =
                gpu.kind.offers().iter().enumerate().filter(|(_, offer)| &offer.resource == resource);
            offers
                .map(|(o, _)| o)
                .find(|&o| gpu.device_ids(o).any(|known| known.to_string() == id))
                .map(|o| (g, o))
        })
    }

    /// Each device exists, is held by one pod, and excludes no other device in use.
    fn devices(&mut self) {
        let mut holders: BTreeMap<(String, String), BTreeSet<String>> = BTreeMap::new();
        let mut in_use: BTreeMap<(usize, usize), BTreeSet<String>> = BTreeMap::new();
        for held in &self.view.allocations {
            for id in &held.device_ids {
                let who = format!("{}/{}", held.namespace, held.pod);
                holders.entry((held.resource.to_string(), id.clone())).or_default().insert(who.clone());
                match self.device(&held.resource, id) {
                    Some(place) => {
                        if let Some(why) = self.view.gpus[place.0].why_not(place.1) {
                            let text =
                                format!("{who} holds {id} of {}, which is unhealthy: {why}", held.resource);
                            self.find(Severity::Notice, Kind::Unhealthy, text);
                        }
                        in_use.entry(place).or_default().insert(who);
                    }
                    None => {
                        let text =
                            format!("{who} holds {id} of {}, which the node does not have", held.resource);
                        self.find(Severity::Error, Kind::UnknownDevice, text);
                    }
                }
            }
        }
        for ((resource, id), pods) in holders.iter().filter(|(_, pods)| pods.len() > 1) {
            self.find(
                Severity::Error,
                Kind::DoubleUse,
                format!("{id} of {resource} is held by {}", list(pods)),
            );
        }
        let places: Vec<_> = in_use.into_iter().collect();
        for (i, ((g, one), first)) in places.iter().enumerate() {
            for ((h, two), second) in &places[i + 1..] {
                let offers = self.view.gpus[*g].kind.offers();
                if g == h && offers[*one].part.conflicts(&offers[*two].part) {
                    let gpu = self.view.gpus[*g].uuid.clone();
                    let (first, second) = (list(first), list(second));
                    self.find(
                        Severity::Error,
                        Kind::Overlap,
                        format!("{first} and {second} overlap on {gpu}"),
                    );
                }
            }
        }
    }

    /// Each holder is a pod of this node, and each running pod holds what it asks for.
    fn holders(&mut self) {
        for held in &self.view.allocations {
            let known = self.view.pods.iter().any(|pod| {
                pod.namespace == held.namespace
                    && pod.name == held.pod
                    && (held.uid.is_empty() || pod.uid == held.uid)
            });
            if !known {
                let text = format!(
                    "{} are held for {}/{}, which is not on this node",
                    held.device_ids.join(", "),
                    held.namespace,
                    held.pod
                );
                self.find(Severity::Warning, Kind::Leak, text);
            }
        }
        for pod in self.view.pods.iter().filter(|pod| pod.running) {
            for (resource, asked) in pod.request.total() {
                let has = self.held_by(pod, &resource).len();
                if has < asked as usize {
                    let text =
                        format!("{}/{} runs with {has} of {asked} {resource}", pod.namespace, pod.name);
                    self.find(Severity::Warning, Kind::Missing, text);
                }
            }
        }
    }

    /// The shares of a GPU fit into its memory, if any pod says how much it needs.
    fn memory(&mut self) {
        /// Who holds a share, and its size where the pod says it.
        type Share = (String, Option<ShareSize>);
        let mut shares: BTreeMap<(usize, usize), BTreeMap<&str, Share>> = BTreeMap::new();
        for held in &self.view.allocations {
            let pod =
                self.view.pods.iter().find(|pod| pod.namespace == held.namespace && pod.name == held.pod);
            let size = pod.and_then(|pod| Plan::share_of(pod.plan.as_ref(), &pod.request));
            for id in &held.device_ids {
                if let Some(place) = self.device(&held.resource, id) {
                    let who = format!("{}/{}", held.namespace, held.pod);
                    shares.entry(place).or_default().insert(id, (who, size));
                }
            }
        }
        for ((g, offer), shares) in shares {
            let (gpu, offer) = (&self.view.gpus[g], &self.view.gpus[g].kind.offers()[offer]);
            let (Some(replicas), memory) = (offer.replicas, gpu.kind.memory()) else { continue };
            if offer.part != Part::Whole || shares.values().all(|(_, size)| size.is_none()) {
                continue;
            }
            let equal = memory.0 / u64::from(replicas.max(1));
            let of = |size: &Option<ShareSize>| size.map_or(equal, |size| size.of(memory).0);
            let all = shares.values().fold(0_u64, |sum, (_, size)| sum.saturating_add(of(size)));
            if all > memory.0 {
                let who: BTreeSet<String> = shares.into_values().map(|(who, _)| who).collect();
                let text = format!("{all} MiB of the {memory} of {} are shares of {}", gpu.uuid, list(&who));
                self.find(Severity::Warning, Kind::Overcommit, text);
            }
        }
    }

    /// Each plan names devices that exist, and no device is promised beyond what it can hold. Where a pod holds
    /// what it asked for, its plan is history, and what it holds counts. Plans of one shape may be swapped: a pod
    /// that waits, and whose device another of its shape took, gets what that one left.
    fn plans(&mut self) {
        type Place = (usize, usize);
        type Shape = (ResourceName, u32, Option<ShareSize>);
        let mut promised: BTreeMap<Place, Vec<String>> = BTreeMap::new();
        let mut left: BTreeMap<Shape, Vec<Place>> = BTreeMap::new();
        let mut held: Vec<(Shape, Place)> = Vec::new();
        let mut waiting: Vec<(Shape, &str, Vec<Place>, usize)> = Vec::new();
        for pod in &self.view.pods {
            let (asked, share) = (pod.request.total(), Plan::share_of(pod.plan.as_ref(), &pod.request));
            for (resource, devices) in pod.plan.iter().flat_map(|plan| plan.sets(&pod.request)) {
                let count = asked.get(&resource).copied().unwrap_or_default();
                let shape = (resource.clone(), count, share);
                let has = self.held_by(pod, &resource);
                let missing = (count as usize).saturating_sub(has.len());
                for place in has.into_iter().filter_map(|id| self.device(&resource, id)) {
                    promised.entry(place).or_default().push(pod.name.clone());
                    held.push((shape.clone(), place));
                }
                let mut own = Vec::new();
                for device in devices {
                    match device.locate(&self.view.gpus, &resource) {
                        Some(place) => {
                            let why = self.view.gpus[place.0].why_not(place.1).filter(|_| missing > 0);
                            if let Some(why) = why {
                                let text = format!(
                                    "{}/{} was promised {resource} on {}, which is unhealthy: {why}",
                                    pod.namespace, pod.name, device.gpu
                                );
                                self.find(Severity::Notice, Kind::Unhealthy, text);
                            }
                            own.push(place);
                        }
                        None if missing == 0 => {}
                        None => {
                            let text = format!(
                                "{}/{} was promised {resource} on {}, which is not offered there",
                                pod.namespace, pod.name, device.gpu
                            );
                            self.find(Severity::Warning, Kind::PlanWithoutDevice, text);
                        }
                    }
                }
                left.entry(shape.clone()).or_default().extend(&own);
                waiting.push((shape, &pod.name, own, missing));
            }
        }
        let mut take = |shape: &Shape, place: Place| {
            let left = left.get_mut(shape)?;
            let at = left.iter().position(|&other| other == place)?;
            Some(left.swap_remove(at))
        };
        for (shape, place) in &held {
            take(shape, *place);
        }
        // Each its own first, then whatever the others of its shape left.
        for (shape, pod, own, missing) in &mut waiting {
            let got: Vec<Place> = own.iter().filter_map(|&place| take(shape, place)).take(*missing).collect();
            *missing -= got.len();
            got.into_iter().for_each(|place| promised.entry(place).or_default().push((*pod).to_owned()));
        }
        for (shape, pod, _, missing) in waiting {
            let left = left.entry(shape).or_default();
            let swapped = left.split_off(left.len().saturating_sub(missing));
            swapped.into_iter().for_each(|place| promised.entry(place).or_default().push(pod.to_owned()));
        }
        for ((g, offer), pods) in promised {
            let gpu = &self.view.gpus[g];
            let most = gpu.kind.offers()[offer].device_count() as usize;
            if pods.len() > most {
                let text = format!(
                    "{} of {} can hold {most}, promised to {}",
                    gpu.kind.offers()[offer].resource,
                    gpu.uuid,
                    pods.join(", ")
                );
                self.find(Severity::Warning, Kind::DoublePlan, text);
            }
        }
    }

    /// What pods of one shape hold, taken together, is what their plans say. Pods that hold nothing yet may
    /// still get any of the rest, so what is held must be among what was planned.
    fn drift(&mut self) {
        type Shape = (ResourceName, u32, Option<ShareSize>);
        let mut planned: BTreeMap<Shape, Vec<PlannedDevice>> = BTreeMap::new();
        let mut held: BTreeMap<Shape, Vec<(String, PlannedDevice)>> = BTreeMap::new();
        for pod in &self.view.pods {
            let Some(plan) = &pod.plan else { continue };
            let mut sets = plan.sets(&pod.request);
            for (resource, asked) in pod.request.total() {
                let shape = (resource.clone(), asked, Plan::share_of(Some(plan), &pod.request));
                // Where it is, not how large: the size is its shape's.
                let set = sets.remove(&resource).unwrap_or_default().into_iter();
                let places = set.map(|device| PlannedDevice { memory: None, ..device });
                planned.entry(shape.clone()).or_default().extend(places);
                let devices =
                    self.held_by(pod, &resource).into_iter().filter_map(|id| self.device(&resource, id));
                let devices = devices.map(|(g, offer)| {
                    let gpu = &self.view.gpus[g];
                    (format!("{}/{}", pod.namespace, pod.name), PlannedDevice::of(gpu, offer, None))
                });
                held.entry(shape).or_default().extend(devices);
            }
        }
        for (shape, devices) in held {
            let mut left = planned.remove(&shape).unwrap_or_default();
            for (who, device) in devices {
                match left.iter().position(|other| other == &device) {
                    Some(at) => drop(left.swap_remove(at)),
                    None => {
                        let text = format!(
                            "{who} holds {} on {}, which no plan of its shape names (any more)",
                            shape.0, device.gpu
                        );
                        self.find(Severity::Notice, Kind::Drift, text);
                    }
                }
            }
        }
    }

    /// The device ids of one resource that a pod holds, each once.
    fn held_by<'a>(&'a self, pod: &PodView, resource: &ResourceName) -> BTreeSet<&'a str> {
        let mine = self.view.allocations.iter().filter(|held| {
            held.namespace == pod.namespace && held.pod == pod.name && &held.resource == resource
        });
        mine.flat_map(|held| held.device_ids.iter().map(String::as_str)).collect()
    }
}

fn list(names: &BTreeSet<String>) -> String {
    names.iter().map(String::as_str).collect::<Vec<_>>().join(" and ")
}

#[cfg(test)]
mod tests;
