//! What the watches tell, as plain values.

use std::collections::BTreeMap;

use stowage_shared::contract::{
    DISRUPTABLE_ANNOTATION, MIRROR_ANNOTATION, PLAN_ANNOTATION, SAFE_TO_EVICT_ANNOTATION,
};
use stowage_shared::gpu_node::GpuNodeStatus;
use stowage_shared::host::Host;
use stowage_shared::pod::{Container, OwnAnnotations, PodSpec, PodStatus, Resources};
use stowage_shared::policy::{PolicyError, Reserve, Want};
use stowage_shared::request::{Request, RequestError};
use stowage_shared::resource::ResourceName;

use super::GpuNames;
use crate::schedulers;

/// Something happened to a kind of object.
#[derive(Debug, Clone)]
pub enum Event {
    /// To pods.
    Pod(Change<Pod>),
    /// To nodes.
    Node(Change<Node>),
    /// To GpuNodes.
    GpuNode(Change<GpuNode>),
}

/// What happened. A list of everything that there is comes at the start and after a break in the watch.
#[derive(Debug, Clone)]
pub enum Change<T> {
    /// A list begins: what is not listed before it ends is gone.
    ListBegins,
    /// An object of that list.
    Listed(T),
    /// The list is complete.
    ListEnds,
    /// An object was made or changed.
    Applied(T),
    /// An object is gone: a pod's UID, the name of a node or GpuNode.
    Deleted(String),
}

/// A pod, as far as placement goes.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Pod {
    /// Its UID.
    pub uid: String,
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// The node it is bound to; empty while it waits.
    pub node: String,
    /// The node that kube-scheduler tries first for it; empty where there is none.
    pub nominated: String,
    /// Its priority.
    pub priority: i32,
    /// Whether it asks for our scheduler.
    pub ours: bool,
    /// Whether its deletion was asked for.
    pub deleting: bool,
    /// Whether it will never run again.
    pub terminal: bool,
    /// Whether its containers run.
    pub running: bool,
    /// Its containers that ask for extended resources, and no more of its spec.
    pub spec: PodSpec,
    /// What it asks for of CPU and memory.
    pub host: Host,
    /// The plan annotation, unread.
    pub plan: Option<String>,
    /// What else its annotations say to us.
    pub annotations: OwnAnnotations,
}

/// Who a pod is.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PodId {
    /// Its UID.
    pub uid: String,
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
}

impl Pod {
    /// Keeps of a pod what placement looks at.
    pub fn of(
        id: PodId,
        deleting: bool,
        mut annotations: OwnAnnotations,
        spec: PodSpec,
        status: &PodStatus,
    ) -> Self {
        let PodId { uid, namespace, name } = id;
        // Whether it may be moved is no matter of placement, and is not worth a text a pod.
        for key in [DISRUPTABLE_ANNOTATION, SAFE_TO_EVICT_ANNOTATION, MIRROR_ANNOTATION] {
            annotations.take(key);
        }
        Self {
            uid,
            namespace,
            name,
            ours: schedulers::is_ours(&spec.scheduler_name),
            deleting,
            terminal: status.is_terminal(),
            running: status.phase == "Running",
            nominated: status.nominated_node_name.clone(),
            priority: spec.priority,
            host: Host::of_pod(&spec),
            node: spec.node_name,
            spec: PodSpec {
                init_containers: slim(spec.init_containers),
                containers: slim(spec.containers),
                ..PodSpec::default()
            },
            plan: annotations.take(PLAN_ANNOTATION),
            annotations,
        }
    }

    /// What it asks for of GPUs.
    ///
    /// # Errors
    /// [`RequestError`], where nobody could serve it.
    pub fn request(&self, names: &GpuNames) -> Result<Request, RequestError> {
        Request::of_pod(&self.spec, |key| self.annotations.get(key), |name| names.is_gpu(name))
    }

    /// What a pod of this request wants by its annotations; `None` where it asks for no GPU.
    ///
    /// # Errors
    /// [`PolicyError`].
    pub fn want(&self, request: &Request) -> Result<Option<Want>, PolicyError> {
        let want = Want::of(request, |key| self.annotations.get(key))?;
        Ok(want.map(|want| Want { host: self.host, ..want }))
    }

    /// Whether it asks for any extended resource, GPU or not.
    pub fn asks_for_extended_resources(&self) -> bool {
        !self.spec.containers.is_empty() || !self.spec.init_containers.is_empty()
    }
}

/// The containers that ask for extended resources, with nothing else of them.
fn slim(containers: Vec<Container>) -> Vec<Container> {
    let extended = |resources: Resources| {
        let keep =
            |map: BTreeMap<String, _>| map.into_iter().filter(|(name, _)| name.contains('/')).collect();
        Resources { limits: keep(resources.limits), requests: keep(resources.requests) }
    };
    let containers = containers.into_iter().map(|c| Container { resources: extended(c.resources), ..c });
    containers.filter(|c| !c.resources.limits.is_empty() || !c.resources.requests.is_empty()).collect()
}

/// A Node, as far as placement goes.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Node {
    /// Its name.
    pub name: String,
    /// Its UID.
    pub uid: String,
    /// Whether its condition `Ready` is true.
    pub ready: bool,
    /// The extended resources that its kubelet reports, with their allocatable counts.
    pub allocatable: BTreeMap<ResourceName, u64>,
    /// What it keeps for large pods.
    pub reserve: Reserve,
    /// The CPU and memory that it has for pods.
    pub host: Host,
}

/// A GpuNode.
#[derive(Debug, Clone)]
pub struct GpuNode {
    /// Its name, which is the node's.
    pub name: String,
    /// What it tells, or why it cannot be read.
    pub status: Result<GpuNodeStatus, String>,
}
