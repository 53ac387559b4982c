//! What the stand-in is told of a pod, and what it answers.

use std::collections::{BTreeMap, BTreeSet};

use kubelet_api::device_plugin::ContainerAllocateResponse;

use super::error::AllocationError;

/// A pod bound to the node, with as much of its spec as device accounting reads.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PodToAdmit {
    /// `metadata.namespace`.
    pub namespace: String,
    /// `metadata.name`.
    pub name: String,
    /// `metadata.uid`, by which the kubelet keeps its books.
    pub uid: String,
    /// All containers. Those of `spec.initContainers` must be in the order of the spec.
    pub containers: Vec<Container>,
}

impl PodToAdmit {
    /// The containers in the order in which the kubelet admits them: those of
    /// `spec.initContainers` first, sidecars among them, then the app containers.
    pub(super) fn in_admission_order(&self) -> impl Iterator<Item = &Container> {
        let in_init = |container: &&Container| container.kind != ContainerKind::App;
        let apps = self.containers.iter().filter(move |container| !in_init(container));
        self.containers.iter().filter(in_init).chain(apps)
    }

    pub(super) fn container(&self, name: &str) -> Option<&Container> {
        self.containers.iter().find(|container| container.name == name)
    }
}

/// One container of a pod.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Container {
    /// The container's name, unique in its pod.
    pub name: String,
    /// Where in the spec it stands.
    pub kind: ContainerKind,
    /// `resources.limits`, extended resources only: resource name to count. What no plugin serves is
    /// passed over, as the kubelet does.
    pub devices: BTreeMap<String, u64>,
}

/// Where in a pod's spec a container stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ContainerKind {
    /// In `initContainers`, ended before the app containers start; they get its devices.
    Init,
    /// In `initContainers` with `restartPolicy: Always`: keeps its devices.
    Sidecar,
    /// In `containers`.
    App,
}

/// A pod that was admitted: its containers in the order of admission.
#[derive(Debug, Clone, PartialEq)]
pub struct Admitted {
    /// One entry for each container of the pod.
    pub containers: Vec<AdmittedContainer>,
}

/// What one container was given.
#[derive(Debug, Clone, PartialEq)]
pub struct AdmittedContainer {
    /// The container's name.
    pub name: String,
    /// Resource name to device ids.
    pub devices: BTreeMap<String, BTreeSet<String>>,
    /// The plugins' answers for all of its resources, merged as the kubelet merges them for the
    /// runtime: of equal keys or container paths the first stays, and which resource is first is
    /// not defined.
    pub response: ContainerAllocateResponse,
}

/// Why a pod was not admitted.
#[derive(Debug, thiserror::Error)]
pub enum AdmissionError {
    /// The pod has failed for good. `Display` is the kubelet's own text.
    #[error("Allocate failed due to {0}, which is unexpected")]
    Unexpected(AllocationError),
    /// Nothing was decided: between `stop` and `resume` the pod just waits.
    #[error("the kubelet is stopped: admit the pod after `resume`")]
    Stopped,
}

impl AdmissionError {
    /// `status.reason` of the failed pod; `None` for a pod that has not failed.
    #[must_use]
    pub fn pod_reason(&self) -> Option<&'static str> {
        match self {
            Self::Unexpected(_) => Some("UnexpectedAdmissionError"),
            Self::Stopped => None,
        }
    }

    /// `status.message` of the failed pod; `None` for a pod that has not failed.
    #[must_use]
    pub fn pod_message(&self) -> Option<String> {
        self.pod_reason().map(|_| format!("Pod was rejected: {self}"))
    }
}

/// Why a container was not started. The kubelet tries again with back-off: the pod does not fail.
#[derive(Debug, thiserror::Error)]
pub enum StartContainerError {
    /// No pod or container of this name is known.
    #[error("no container {container} in a pod {namespace}/{pod} on this node: admit the pod first")]
    Unknown {
        /// The namespace asked for.
        namespace: String,
        /// The pod asked for.
        pod: String,
        /// The container asked for.
        container: String,
    },
    /// `CreateContainerConfigError`; `Display` is the kubelet's own text.
    #[error("{0}")]
    Config(AllocationError),
    /// Between `stop` and `resume`.
    #[error("the kubelet is stopped: start the container after `resume`")]
    Stopped,
}
