//! What the book is told, and what it tells of it.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use stowage_shared::contract::PLAN_ANNOTATION;
use stowage_shared::plan::PlanError;
use stowage_shared::pod::{OwnAnnotations, PodSpec, PodStatus};
use stowage_shared::request::{Request, RequestError};
use stowage_shared::resource::ResourceName;

use super::{Booking, Served};
use crate::inventory::Inventory;

/// A pod of this node, as the API server told it.
#[derive(Debug, Clone)]
pub struct PodSeen {
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// Its UID.
    pub uid: String,
    /// When it was created, in seconds since 1970: the kubelet's order within one list.
    pub created: i64,
    /// What it asks for.
    pub request: Result<Request, RequestError>,
    /// Its plan annotation, not looked at yet.
    pub plan: Option<String>,
    /// Whether its containers run, so that all of its devices have been allocated.
    pub running: bool,
    /// Whether it is being deleted: the kubelet may have let go of its devices already.
    pub ending: bool,
    /// Whether it has ended for good.
    pub terminal: bool,
}

impl PodSeen {
    /// A pod from its API object's parts, on a node whose GPUs have the usual names.
    pub fn of(
        key: (String, String, String),
        created: i64,
        plan: Option<String>,
        spec: &PodSpec,
        status: &PodStatus,
    ) -> Self {
        let annotations = plan.map(|plan| (PLAN_ANNOTATION, plan)).into_iter().collect();
        Self::on(ResourceName::is_standard_gpu, key, created, annotations, spec, status)
    }

    /// A pod from its API object's parts, on a node where `is_gpu` tells which resources are GPUs.
    pub fn on(
        is_gpu: impl Fn(&str) -> bool,
        (namespace, name, uid): (String, String, String),
        created: i64,
        mut annotations: OwnAnnotations,
        spec: &PodSpec,
        status: &PodStatus,
    ) -> Self {
        let plan = annotations.take(PLAN_ANNOTATION);
        let request = Request::of_pod(spec, |key| annotations.get(key), is_gpu);
        let (running, terminal) = (status.phase == "Running", status.is_terminal());
        Self { namespace, name, uid, created, request, plan, running, ending: false, terminal }
    }
}

/// What happened.
#[derive(Debug)]
pub enum Event {
    /// A pod was added or changed.
    Pod(PodSeen),
    /// A pod that was looked up because nobody was known to ask: only news if the watch has not told it yet.
    FoundPod(PodSeen),
    /// A pod is gone.
    PodGone {
        /// Its UID.
        uid: String,
    },
    /// All pods of the node, after a new list; those not in it are gone.
    Pods(Vec<PodSeen>),
    /// `Allocate` was answered.
    Allocated {
        /// The resource.
        resource: ResourceName,
        /// The device ids.
        ids: Vec<String>,
        /// When.
        at: Duration,
    },
    /// `Allocate` was refused after all: what [`Event::Allocated`] told did not happen.
    Refused {
        /// The resource.
        resource: ResourceName,
        /// The device ids.
        ids: Vec<String>,
    },
    /// A container that holds these devices is about to start.
    Starts {
        /// The resource.
        resource: ResourceName,
        /// The device ids.
        ids: Vec<String>,
    },
    /// Slices that an earlier process had booked, by token.
    Restored(BTreeMap<String, Booking>),
    /// Pod-resources answered. (Where it does not, there is no event: nothing is freed on ignorance.)
    PodResources {
        /// Who holds what.
        held: Vec<Holding>,
        /// When it was asked.
        asked_at: Duration,
    },
    /// The node has other GPUs, MIG devices or health from now on.
    Inventory(Arc<Inventory>),
}

/// Devices that a container holds, as the kubelet says.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Holding {
    /// The pod's namespace.
    pub namespace: String,
    /// The pod's name.
    pub pod: String,
    /// The container's name.
    pub container: String,
    /// The resource.
    pub resource: ResourceName,
    /// The device ids, sorted.
    pub device_ids: Vec<String>,
}

/// What an event meant, where somebody wants to know.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Notice {
    /// A pod carries a plan that is none.
    PlanIgnored {
        /// The pod's namespace.
        namespace: String,
        /// The pod's name.
        pod: String,
        /// The pod's UID.
        uid: String,
        /// Why.
        error: PlanError,
    },
    /// An allocation, and how it relates to the plans.
    Allocated(Served),
}
