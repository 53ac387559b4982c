//! A pod as placement sees it.

use k8s_openapi::api::core::v1 as core;
use stowage_shared::belief::GpuNames;
use stowage_shared::contract::PLAN_ANNOTATION;
use stowage_shared::host::Host;
use stowage_shared::plan::{Plan, PlanError};
use stowage_shared::pod::{Container, PodSpec, Quantity, Resources};
use stowage_shared::policy::{Policy, PolicyError, ShareWith, Want};
use stowage_shared::request::{Request, RequestError};
use stowage_shared::share::ShareSize;

use super::amounts::Amounts;
use crate::schedulers::Schedulers;

/// A pod, with its request, policy and plan read.
#[derive(Debug, Clone)]
pub struct PodFacts {
    /// The object.
    pub object: core::Pod,
    /// What it asks for of GPUs.
    pub request: Result<Request, RequestError>,
    /// What it wants of its placement.
    pub policy: Result<Policy, PolicyError>,
    /// The plan on it, if it is bound and carries one.
    pub plan: Option<Result<Plan, PlanError>>,
    /// What it is counted with on its node.
    pub amounts: Amounts,
    /// Whether it asks for a scheduler that asks Stowage.
    pub is_ours: bool,
}

impl PodFacts {
    /// Reads a pod; `names` tells which resources are GPUs, `schedulers` whose pods are ours.
    pub fn of(object: core::Pod, names: &GpuNames, schedulers: &Schedulers) -> Self {
        let spec = object.spec.clone().unwrap_or_default();
        let annotations = object.metadata.annotations.as_ref();
        let annotation = |key: &str| annotations?.get(key).map(String::as_str);
        let request = Request::of_pod(&slim(&spec), annotation, |name| names.is_gpu(name));
        let node = spec.node_name.as_deref().unwrap_or_default();
        let text = annotations.and_then(|all| all.get(PLAN_ANNOTATION)).filter(|_| !node.is_empty());
        let uid = object.metadata.uid.as_deref().unwrap_or_default();
        let plan = match (text, &request) {
            (Some(text), Ok(request)) if !request.is_empty() => Some(Plan::read(text, uid, node, request)),
            _ => None,
        };
        let policy = Policy::of(annotations);
        let is_ours = schedulers.serve(scheduler(&spec));
        Self { request, policy, plan, amounts: Amounts::of_pod(&spec), is_ours, object }
    }

    /// What it wants of a node; `None` where it asks for no GPU, or what it asks for cannot be read.
    pub fn want(&self) -> Option<Want> {
        let request = self.request.as_ref().ok().filter(|request| !request.is_empty())?;
        Some(self.want_of(request, self.policy.as_ref().ok()?))
    }

    /// The same, where request and policy are at hand.
    pub fn want_of(&self, request: &Request, policy: &Policy) -> Want {
        let amount = |name| u64::try_from(self.amounts.get(name)).unwrap_or(0);
        let host = Host::of_bytes(amount("cpu"), amount("memory"));
        Want { demand: request.demand(), policy: policy.clone(), host }
    }

    /// Whether its deletion was asked for.
    pub fn is_deleting(&self) -> bool {
        self.object.metadata.deletion_timestamp.is_some()
    }

    /// The size of its shares, where it says so.
    pub fn share(&self) -> Option<ShareSize> {
        Plan::share_of(self.plan.as_ref().and_then(|plan| plan.as_ref().ok()), self.request.as_ref().ok()?)
    }

    /// With whom it shares a GPU.
    pub fn share_with(&self) -> ShareWith {
        self.policy.as_ref().map(|policy| policy.share_with).unwrap_or_default()
    }

    /// Its namespace.
    pub fn namespace(&self) -> &str {
        self.object.metadata.namespace.as_deref().unwrap_or_default()
    }

    /// Its name; of one that does not exist yet, what its name will begin with.
    pub fn name(&self) -> &str {
        let meta = &self.object.metadata;
        meta.name.as_deref().or(meta.generate_name.as_deref()).unwrap_or("(no name)")
    }

    /// Namespace and name.
    pub fn key(&self) -> String {
        format!("{}/{}", self.namespace(), self.name())
    }

    /// Its UID.
    pub fn uid(&self) -> &str {
        self.object.metadata.uid.as_deref().unwrap_or_default()
    }

    /// Its spec.
    pub fn spec(&self) -> &core::PodSpec {
        static NONE: std::sync::LazyLock<core::PodSpec> = std::sync::LazyLock::new(Default::default);
        self.object.spec.as_ref().unwrap_or(&NONE)
    }

    /// The node it is bound to; empty while it waits.
    pub fn node(&self) -> &str {
        self.spec().node_name.as_deref().unwrap_or_default()
    }

    /// The scheduler it asks for.
    pub fn scheduler(&self) -> &str {
        scheduler(self.spec())
    }

    /// `Pending`, `Running` and so on.
    pub fn phase(&self) -> &str {
        let status = self.object.status.as_ref();
        status.and_then(|status| status.phase.as_deref()).unwrap_or("Pending")
    }

    /// Whether it will never run again.
    pub fn has_ended(&self) -> bool {
        matches!(self.phase(), "Succeeded" | "Failed")
    }

    /// Its priority.
    pub fn priority(&self) -> i32 {
        self.spec().priority.unwrap_or(0)
    }

    /// Whether it asks for GPUs that we can count.
    pub fn asks_for_gpus(&self) -> bool {
        self.request.as_ref().is_ok_and(|request| !request.is_empty())
    }

    /// One of its annotations.
    pub fn annotation(&self, key: &str) -> Option<&str> {
        self.object.metadata.annotations.as_ref()?.get(key).map(String::as_str)
    }

    /// What it asks for, container by container, for people: `main: 1 nvidia.com/gpu`.
    pub fn asks(&self) -> Vec<String> {
        let Ok(request) = &self.request else { return Vec::new() };
        let container = |c: &stowage_shared::request::ContainerRequest| {
            let devices: Vec<String> =
                c.devices.iter().map(|(name, count)| format!("{count} {name}")).collect();
            format!("{}: {}", c.name, devices.join(", "))
        };
        request.containers().iter().map(container).collect()
    }
}

/// The scheduler that a pod asks for; of one that no API server has seen, what it would write.
fn scheduler(spec: &core::PodSpec) -> &str {
    spec.scheduler_name.as_deref().filter(|name| !name.is_empty()).unwrap_or("default-scheduler")
}

/// The few fields that a request is read from.
fn slim(spec: &core::PodSpec) -> PodSpec {
    let quantities = |map: Option<&std::collections::BTreeMap<String, _>>| {
        let text = |quantity: &k8s_openapi::apimachinery::pkg::api::resource::Quantity| {
            Quantity::Text(quantity.0.clone())
        };
        map.into_iter().flatten().map(|(name, quantity)| (name.clone(), text(quantity))).collect()
    };
    let resources = |of: Option<&core::ResourceRequirements>| Resources {
        limits: quantities(of.and_then(|of| of.limits.as_ref())),
        requests: quantities(of.and_then(|of| of.requests.as_ref())),
    };
    let container = |c: &core::Container| Container {
        name: c.name.clone(),
        restart_policy: c.restart_policy.clone().unwrap_or_default(),
        resources: resources(c.resources.as_ref()),
    };
    PodSpec {
        node_name: spec.node_name.clone().unwrap_or_default(),
        scheduler_name: spec.scheduler_name.clone().unwrap_or_default(),
        priority: spec.priority.unwrap_or(0),
        init_containers: spec.init_containers.iter().flatten().map(container).collect(),
        containers: spec.containers.iter().map(container).collect(),
        resources: resources(spec.resources.as_ref()),
        overhead: quantities(spec.overhead.as_ref()),
    }
}
