//! Whether what is told about a node's GPUs may be used for new pods.
//!
//! Three parties speak of a GPU node: its Node, its kubelet's allocatable counts and its GpuNode. What is not
//! known is never guessed as free, so a node whose parties disagree takes no new GPU pods. The extender and the
//! command line both ask this module. How old a GpuNode is they know themselves: there is no clock here.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::Arc;

use crate::contract::GPU_NODE_STALE;
use crate::gpu::Gpu;
use crate::resource::ResourceName;

/// What is said of a node without GPUs to a pod that asks for some.
pub const NO_GPUS: &str = "node has no GPUs known to Stowage";
/// What is said of a GPU node to a pod that asks for none, while another node would take it.
pub const KEPT_FOR_GPU_PODS: &str = "GPU node: kept for GPU pods";

/// Why nothing is known of a GPU node's room, so that it takes no new GPU pods. What is not known is never
/// guessed as free.
///
/// The texts are few and without numbers: kube-scheduler groups nodes by them in the pod's event. No eviction
/// mends any of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Unknown {
    /// Its condition `Ready` is not true.
    NotReady,
    /// Its kubelet reports GPUs and there is no GpuNode.
    NotPublished,
    /// Its GpuNode cannot be read, or tells what cannot be.
    Unreadable,
    /// Its GpuNode is about another node of that name.
    OtherNode,
    /// Its kubelet reports none of the resources that the GpuNode offers.
    NotAllocatable,
    /// Its GpuNode was not written for too long.
    Old,
}

// The sentence below says it in words.
const _: () = assert!(GPU_NODE_STALE.as_secs() == 10 * 60);

impl Unknown {
    /// All of them.
    pub const ALL: [Self; 6] = [
        Self::NotReady,
        Self::NotPublished,
        Self::Unreadable,
        Self::OtherNode,
        Self::NotAllocatable,
        Self::Old,
    ];

    /// The sentence that users read.
    pub fn text(self) -> &'static str {
        match self {
            Self::NotReady => "GPU node is not Ready",
            Self::NotPublished => "GPU node has no GpuNode: is Stowage's device plugin running there?",
            Self::Unreadable => "GPU node's GpuNode cannot be read",
            Self::OtherNode => "GPU node's GpuNode is about an earlier node of that name",
            Self::NotAllocatable => "GPU node's kubelet reports no GPUs as allocatable",
            Self::Old => {
                "GPU node's GpuNode is older than 10 minutes: is Stowage's device plugin running there?"
            }
        }
    }

    /// A word for metrics.
    pub fn label(self) -> &'static str {
        match self {
            Self::NotReady => "not_ready",
            Self::NotPublished => "not_published",
            Self::Unreadable => "unreadable",
            Self::OtherNode => "other_node",
            Self::NotAllocatable => "not_allocatable",
            Self::Old => "old",
        }
    }
}

impl fmt::Display for Unknown {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.text())
    }
}

/// Which resource names are GPUs: NVIDIA's names, and whatever else a GpuNode offers its GPUs as.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct GpuNames {
    others: BTreeSet<String>,
}

impl GpuNames {
    /// The names that some node offers.
    pub fn of<'a>(offered: impl IntoIterator<Item = &'a ResourceName>) -> Self {
        let others = offered.into_iter().map(ResourceName::as_str);
        Self {
            others: others.filter(|name| !ResourceName::is_standard_gpu(name)).map(str::to_owned).collect(),
        }
    }

    /// Whether who asks for it asks for a GPU.
    pub fn is_gpu(&self, name: &str) -> bool {
        ResourceName::is_standard_gpu(name) || self.others.contains(name)
    }
}

/// A Node, as far as belief goes.
#[derive(Debug, Clone, Copy)]
pub struct NodeFacts<'a> {
    /// Its UID.
    pub uid: &'a str,
    /// Whether its condition `Ready` is true.
    pub ready: bool,
    /// The extended resources that its kubelet reports, with their allocatable counts.
    pub allocatable: &'a BTreeMap<ResourceName, u64>,
}

/// What a node's plugin has published.
#[derive(Debug, Clone, Copy)]
pub enum Published<'a> {
    /// No GpuNode, or one that has no status yet.
    Nothing,
    /// A GpuNode that cannot be read, or tells what cannot be.
    Unreadable,
    /// A readable one.
    Gpus {
        /// The UID of the Node it is about.
        node_uid: &'a str,
        /// Its GPUs.
        gpus: &'a [Arc<Gpu>],
    },
}

/// The GPUs of a node that new pods may be placed on; `None` where it has none.
///
/// # Errors
/// [`Unknown`] where it has some and they are not known well enough; never [`Unknown::Old`].
pub fn believe<'a>(
    node: NodeFacts<'_>,
    published: Published<'a>,
    names: &GpuNames,
) -> Result<Option<&'a [Arc<Gpu>]>, Unknown> {
    let offered = |resource: &ResourceName| node.allocatable.get(resource).is_some_and(|&count| count > 0);
    let (node_uid, gpus) = match published {
        Published::Nothing => {
            let gpus = node.allocatable.keys().any(|name| names.is_gpu(name.as_str()) && offered(name));
            return if gpus { Err(Unknown::NotPublished) } else { Ok(None) };
        }
        Published::Unreadable => return Err(Unknown::Unreadable),
        Published::Gpus { node_uid, gpus } => (node_uid, gpus),
    };
    if gpus.is_empty() {
        return Ok(None);
    }
    if !node.ready {
        return Err(Unknown::NotReady);
    }
    if node_uid != node.uid {
        return Err(Unknown::OtherNode);
    }
    if !gpus.iter().flat_map(|gpu| gpu.kind.offers()).any(|offer| offered(&offer.resource)) {
        return Err(Unknown::NotAllocatable);
    }
    Ok(Some(gpus))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::gpu::{GpuKind, Offer, Part};
    use crate::units::MemoryMib;

    fn gpu() -> Arc<Gpu> {
        let offer = Offer {
            resource: ResourceName::gpu(),
            part: Part::Whole,
            replicas: None,
            distinct: false,
            capped: false,
        };
        Arc::new(Gpu {
            uuid: "GPU-0".parse().unwrap(),
            index: 0,
            numa_node: None,
            near: Vec::new(),
            kind: Arc::new(GpuKind::new("M", MemoryMib(1), vec![offer]).unwrap()),
            part_uuids: vec!["GPU-0".into()],
            foreign: Vec::new(),
            unhealthy: None,
            sick: BTreeMap::new(),
        })
    }

    #[track_caller]
    fn check(ready: bool, allocatable: u64, published: Published<'_>, want: Result<bool, Unknown>) {
        let allocatable = BTreeMap::from([(ResourceName::gpu(), allocatable)]);
        let node = NodeFacts { uid: "u", ready, allocatable: &allocatable };
        let got = believe(node, published, &GpuNames::default()).map(|gpus| gpus.is_some());
        assert_eq!(got, want);
    }

    #[test]
    fn a_node_is_believed_only_where_everybody_agrees() {
        let gpus = [gpu()];
        let of = |node_uid| Published::Gpus { node_uid, gpus: &gpus };
        check(true, 1, of("u"), Ok(true));
        check(false, 1, of("u"), Err(Unknown::NotReady));
        check(true, 1, of("earlier"), Err(Unknown::OtherNode));
        check(true, 0, of("u"), Err(Unknown::NotAllocatable));
        check(true, 1, Published::Unreadable, Err(Unknown::Unreadable));
        check(true, 1, Published::Nothing, Err(Unknown::NotPublished));
        check(true, 0, Published::Nothing, Ok(false));
        check(false, 0, Published::Gpus { node_uid: "u", gpus: &[] }, Ok(false));
    }

    #[test]
    fn names_that_a_gpu_node_offers_are_gpus() {
        let name: ResourceName = "example.com/accelerator".parse().unwrap();
        let names = GpuNames::of([&name]);
        assert!(names.is_gpu("example.com/accelerator") && names.is_gpu("nvidia.com/gpu"));
        assert!(!names.is_gpu("example.com/nic"));
    }
}
