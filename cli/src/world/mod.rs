//! The cluster as placement sees it, reckoned from the API objects with the same functions as the extender's.
//!
//! ```text
//!   Objects ──► World ──► judge(pod): of each node, a placement and its cost, or why not
//!                 ▲              │
//!                 └── settle ────┘  (only in memory: what if it went there?)
//! ```
//!
//! Pure: it is made of objects and of the time at which they were read.

pub mod amounts;
mod decide;
mod holders;
pub mod in_tree;
mod pods;
#[cfg(test)]
mod tests;
mod told;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::Node;
use stowage_shared::belief::{GpuNames, NodeFacts, Published, Unknown, believe};
use stowage_shared::contract::RESERVE_LABEL;
use stowage_shared::occupancy::GpuState;
use stowage_shared::pack::{Market, Mix, Stands};
use stowage_shared::policy::{NotAllowed, Occupied, Reserve, Want};
use stowage_shared::resource::ResourceName;

pub use self::decide::{Fit, Not, Verdict, Who};
pub use self::holders::Holder;
pub use self::pods::PodFacts;
pub use self::told::Told;

use self::amounts::Amounts;
use self::holders::in_use;
use crate::objects::Objects;
use crate::schedulers::Schedulers;

/// Every node and every pod that runs or will.
#[derive(Debug, Clone)]
pub struct World {
    /// The nodes, by name.
    pub nodes: Vec<NodeState>,
    /// The pods, by namespace and name; those that ended are left out.
    pub pods: Vec<PodFacts>,
    /// Which resource names are GPUs.
    pub names: GpuNames,
    /// The requests to come, as far as this cluster's GPUs tell.
    pub mix: Mix,
    /// Whose pods are ours.
    pub schedulers: Schedulers,
    /// When all this was so.
    pub now: Timestamp,
}

/// One node.
#[derive(Debug, Clone)]
pub struct NodeState {
    /// What kube-scheduler's own filters look at.
    pub facts: in_tree::Facts,
    /// Its GPUs.
    pub gpus: NodeGpus,
    /// Its GpuNode, as far as it can be read.
    pub published: Option<Told>,
}

/// What is known of a node's GPUs.
#[derive(Debug, Clone)]
pub enum NodeGpus {
    /// It has none.
    None,
    /// It has some, and no pod may be placed on them.
    Unknown(Unknown),
    /// It has these.
    Known {
        /// The GPUs, what of them is in use or promised, and who is there: as policies see it.
        now: Occupied,
        /// What each pod has of them, for people, as far as it is told.
        holders: Vec<Vec<Holder>>,
    },
}

impl World {
    /// Reckons what is in use; pods of `schedulers` are ours.
    pub fn of(objects: &Objects, schedulers: &Schedulers) -> Self {
        let mut told: BTreeMap<&str, Told> = objects
            .gpu_nodes
            .iter()
            .filter_map(|node| Some((node.name.as_str(), Told::of(&node.status)?)))
            .collect();
        let gpus = || told.values().flat_map(|told| &told.gpus);
        let mix = Mix::prior(gpus().map(|gpu| &**gpu));
        let offered: BTreeSet<&ResourceName> =
            gpus().flat_map(|gpu| gpu.kind.offers()).map(|offer| &offer.resource).collect();
        let names = GpuNames::of(offered);
        let mut pods: Vec<PodFacts> = objects
            .pods
            .iter()
            .map(|pod| PodFacts::of(pod.clone(), &names, schedulers))
            .filter(|pod| !pod.has_ended())
            .collect();
        pods.sort_by_cached_key(|pod| (pod.namespace().to_owned(), pod.name().to_owned()));
        let readable = told.values().filter(|told| told.wrong.is_none()).flat_map(|told| &told.gpus);
        let stands = Arc::new(Stands::new(readable.map(|gpu| &gpu.kind)));
        // As the extender: pods on nodes, and those that wait for it.
        let expected =
            pods.iter().filter(|pod| !pod.is_deleting() && (!pod.node().is_empty() || pod.is_ours));
        let shapes = expected.filter_map(|pod| Some((pod.want()?.shape(&stands)?, 1)));
        let mix = mix.with(Arc::new(Market::new(stands.clone(), shapes)));
        let mut on_node: BTreeMap<&str, Vec<&PodFacts>> = BTreeMap::new();
        for pod in pods.iter().filter(|pod| !pod.node().is_empty()) {
            on_node.entry(pod.node()).or_default().push(pod);
        }
        let mut nodes: Vec<NodeState> = objects
            .nodes
            .iter()
            .map(|node| {
                let name = node.metadata.name.as_deref().unwrap_or_default();
                let pods = on_node.get(name).map_or(&[][..], Vec::as_slice);
                NodeState::of(node, told.remove(name), pods, &names, objects.now)
            })
            .collect();
        nodes.sort_by(|one, two| one.name().cmp(two.name()));
        Self { nodes, pods, names, mix, schedulers: schedulers.clone(), now: objects.now }
    }

    /// A pod, by namespace and name.
    pub fn pod(&self, namespace: &str, name: &str) -> Option<&PodFacts> {
        self.pods.iter().find(|pod| pod.namespace() == namespace && pod.name() == name)
    }

    /// A node.
    pub fn node(&self, name: &str) -> Option<&NodeState> {
        self.nodes.iter().find(|node| node.name() == name)
    }
}

impl NodeState {
    fn of(node: &Node, told: Option<Told>, pods: &[&PodFacts], names: &GpuNames, now: Timestamp) -> Self {
        let status = node.status.as_ref();
        let allocatable = Amounts::of(status.and_then(|status| status.allocatable.as_ref()));
        let counts: BTreeMap<ResourceName, u64> = allocatable
            .iter()
            .filter_map(|(name, count)| Some((name.parse().ok()?, u64::try_from(count).ok()?)))
            .collect();
        let ready = status.and_then(|status| status.conditions.as_ref()).into_iter().flatten();
        let facts = NodeFacts {
            uid: node.metadata.uid.as_deref().unwrap_or_default(),
            ready: ready.into_iter().any(|c| c.type_ == "Ready" && c.status == "True"),
            allocatable: &counts,
        };
        let published = match &told {
            None => Published::Nothing,
            Some(told) if told.wrong.is_some() => Published::Unreadable,
            Some(told) => Published::Gpus { node_uid: &told.node_uid, gpus: &told.gpus },
        };
        let mut free = allocatable;
        pods.iter().for_each(|pod| free.take(&pod.amounts));
        let gpus = match (believe(facts, published, names), &told) {
            (Err(why), _) => NodeGpus::Unknown(why),
            (Ok(Some(_)), Some(told)) if told.is_old(now) => NodeGpus::Unknown(Unknown::Old),
            (Ok(Some(gpus)), Some(told)) => in_use(gpus, told, pods, reserve(node), free.host()),
            (Ok(_), _) => NodeGpus::None,
        };
        let spec = node.spec.as_ref();
        let facts = in_tree::Facts {
            name: node.metadata.name.clone().unwrap_or_default(),
            labels: node.metadata.labels.clone().unwrap_or_default(),
            taints: spec.and_then(|spec| spec.taints.clone()).unwrap_or_default(),
            unschedulable: spec.and_then(|spec| spec.unschedulable).unwrap_or(false),
            free,
        };
        Self { facts, gpus, published: told }
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.facts.name
    }

    /// Its GPUs, where they are known.
    pub fn states(&self) -> &[GpuState] {
        match &self.gpus {
            NodeGpus::Known { now, .. } => &now.gpus,
            _ => &[],
        }
    }

    /// How many whole GPUs it keeps for large pods; `None` where its label cannot be read.
    pub fn kept_whole_gpus(&self) -> Option<usize> {
        match &self.gpus {
            NodeGpus::Known { now: Occupied { reserve: Reserve::Gpus(kept), .. }, .. } => Some(*kept),
            NodeGpus::Known { now: Occupied { reserve: Reserve::Unreadable, .. }, .. } => None,
            _ => Some(0),
        }
    }

    /// How many whole GPUs a large pod could have.
    pub fn idle_whole_gpus(&self) -> usize {
        match &self.gpus {
            NodeGpus::Known { now, .. } => now.idle_whole_gpus().len(),
            _ => 0,
        }
    }

    /// Whether a pod may have any of its GPUs, whatever it keeps for large pods.
    pub fn keeps_none_from(&self, pod: &PodFacts) -> bool {
        let (NodeGpus::Known { now, .. }, Ok(request)) = (&self.gpus, &pod.request) else { return true };
        now.to_leave_idle(&Want::from(request.demand())) == Ok::<_, NotAllowed>(0)
    }

    /// Who is on its GPUs.
    pub fn holders(&self) -> &[Vec<Holder>] {
        match &self.gpus {
            NodeGpus::Known { holders, .. } => holders,
            _ => &[],
        }
    }
}

/// What a node's label says that it keeps for large pods.
fn reserve(node: &Node) -> Reserve {
    let labels = node.metadata.labels.as_ref();
    Reserve::of(labels.and_then(|labels| labels.get(RESERVE_LABEL)).map(String::as_str))
}
