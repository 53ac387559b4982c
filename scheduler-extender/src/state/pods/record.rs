//! One pod, with its request and plan read, and what pods ask for, kept once for all that ask alike.

use std::collections::HashMap;
use std::sync::Arc;

use stowage_shared::plan::{Plan, PlanError};
use stowage_shared::pod::{OwnAnnotations, PodSpec};
use stowage_shared::policy::{Policy, PolicyError, ShareWith, Want};
use stowage_shared::request::Request;
use stowage_shared::share::ShareSize;

use crate::state::GpuNames;
use crate::state::event::Pod;

/// What pods ask for is swept out when there are so many, as far as nobody asks for it any more.
const SWEEP_AT: usize = 4096;

/// A pod, with its request and plan read.
#[derive(Debug)]
pub(in crate::state) struct Record {
    /// The pod without its spec.
    pub(in crate::state) bare: Pod,
    pub(super) ask: Arc<Ask>,
    /// Whether its annotation is a plan that is valid for it.
    pub(super) planned: bool,
    /// The last list that it was in.
    pub(super) list: u64,
}

impl Record {
    /// The node that keeps room for it although it is not bound.
    pub(in crate::state) fn nominated(&self) -> Option<&str> {
        let waits = self.bare.node.is_empty() && !self.bare.deleting;
        (waits && !self.bare.nominated.is_empty()).then_some(&self.bare.nominated)
    }

    /// Whether it holds GPUs on its node, or will.
    pub(in crate::state) fn uses_gpus(&self) -> bool {
        !self.bare.node.is_empty() && !self.ask.request.is_empty()
    }

    /// Whether it asks for GPUs and is on no node yet.
    pub(super) fn waits_for_gpus(&self) -> bool {
        self.bare.node.is_empty() && !self.bare.deleting && !self.ask.request.is_empty()
    }

    /// Whether it uses GPUs or waits for them.
    pub(super) fn matters(&self) -> bool {
        !self.ask.request.is_empty() && !self.bare.deleting
    }

    /// What it asks for of GPUs.
    pub(in crate::state) fn request(&self) -> &Request {
        &self.ask.request
    }

    /// What it wants of a node; `None` where it asks for no GPU, or what it wants cannot be read.
    pub(in crate::state) fn want(&self) -> Option<Want> {
        let policy = self.ask.policy.as_ref().ok().filter(|_| !self.request().is_empty())?;
        Some(Want { demand: self.request().demand(), policy: policy.clone(), host: self.bare.host })
    }

    /// With whom it shares a GPU.
    pub(in crate::state) fn share_with(&self) -> ShareWith {
        self.ask.policy.as_ref().map(|policy| policy.share_with).unwrap_or_default()
    }

    /// What it was promised; `None` where it has no plan, or none that is valid for it.
    pub(in crate::state) fn plan(&self) -> Option<Plan> {
        let text = self.bare.plan.as_deref().filter(|_| self.planned)?;
        // It was read before, so it can be read now.
        Plan::parse(text).ok()
    }

    /// The pod as the watch told it.
    pub(in crate::state) fn pod(&self) -> Pod {
        Pod { spec: self.ask.spec.clone(), ..self.bare.clone() }
    }

    /// Reads the plan, if it has one that somebody needs.
    pub(super) fn read_plan(pod: &Pod, request: &Request) -> Result<bool, PlanError> {
        match &pod.plan {
            Some(text) if !pod.node.is_empty() && !request.is_empty() => {
                Plan::read(text, &pod.uid, &pod.node, request).map(|_| true)
            }
            _ => Ok(false),
        }
    }
}

/// What a pod asks for.
#[derive(Debug)]
pub(super) struct Ask {
    pub(super) spec: PodSpec,
    /// Of GPUs.
    pub(super) request: Request,
    policy: Result<Policy, PolicyError>,
}

/// What pods ask for, each once.
#[derive(Debug, Default)]
pub(super) struct Asks(HashMap<String, Arc<Ask>>);

impl Asks {
    /// What a pod asks for, shared with all that ask alike.
    pub(super) fn of(&mut self, spec: PodSpec, annotations: &OwnAnnotations, names: &GpuNames) -> Arc<Ask> {
        // A spec is texts and numbers: it always has a JSON form, which says all of it.
        let mut text = serde_json::to_string(&spec).unwrap_or_default();
        let annotation = |key: &str| annotations.get(key);
        let policy = Policy::read(annotation);
        text += &format!("{:?}{policy:?}", ShareSize::read(annotation));
        if let Some(known) = self.0.get(&text) {
            return known.clone();
        }
        if self.0.len() >= SWEEP_AT {
            self.0.retain(|_, ask| Arc::strong_count(ask) > 1);
        }
        // The API server lets no fraction of a device through. A pod that asks for more devices than we look at
        // counts with what the kubelet gave it.
        let request = Request::of_pod(&spec, annotation, |name| names.is_gpu(name)).unwrap_or_default();
        let ask = Arc::new(Ask { spec, request, policy });
        self.0.insert(text, ask.clone());
        ask
    }
}
