//! What filter and prioritize read: every node's GPUs at one moment, immutable.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Instant;

use stowage_shared::belief::{GpuNames, Unknown};
use stowage_shared::pack::{Mix, fleet};
use stowage_shared::policy::{Occupied, Policy};

use super::nominations::Nominated;
use super::views::Views;

/// Nodes whose GPUs are alike and alike in use have one class: what fits one of them fits all.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Class(pub(super) u64);

/// GPUs of which it is known what is in use.
#[derive(Debug, Clone, PartialEq)]
pub struct KnownGpus {
    /// The GPUs, what of them is in use or promised, and who is there.
    pub now: Occupied,
    /// The class of the GPUs.
    pub class: Class,
    /// The place of each GPU among all of its class: nodes of one class may have theirs in another order.
    pub(super) order: Box<[u8]>,
    /// What is idle there, as the market sees it.
    pub(super) idle: Idle,
    /// Until when this is believed without a newer GpuNode.
    pub fresh_until: Instant,
}

/// What a node has idle, by [stand](stowage_shared::pack::Stands). Nodes that have alike idle share one number.
#[derive(Debug, Clone, PartialEq)]
pub struct Idle {
    /// Never given to two.
    pub(super) number: u64,
    pub(super) lots: Arc<[fleet::Node]>,
}

/// Which of a node's GPUs a pod may not join because of who is there: bits, in the order of the class.
///
/// Nodes of one class that bar the same GPUs are alike to the pod. Where nobody minds others, which is nearly always,
/// nothing is barred, and the class says it all.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Barred(u64);

impl Barred {
    /// Whether there are none.
    pub fn is_none(self) -> bool {
        self.0 == 0
    }
}

impl KnownGpus {
    /// Numbers what is idle: nodes with one number have alike idle.
    pub fn idle(&self) -> u64 {
        self.idle.number
    }

    /// What is idle, by stand.
    pub fn lots(&self) -> &[fleet::Node] {
        &self.idle.lots
    }

    /// The GPUs that a pod of this policy, in `namespace`, may not join.
    pub fn barred(&self, policy: &Policy, namespace: &str) -> Barred {
        let gpus = self.now.company.barred(policy, namespace);
        let places = gpus.filter_map(|gpu| self.order.get(gpu));
        Barred(places.fold(0, |bits, &place| bits | 1_u64.checked_shl(place.into()).unwrap_or(0)))
    }
}

/// What is known of a node's GPUs.
#[derive(Debug, Clone, PartialEq)]
pub enum NodeGpus {
    /// It has none.
    None,
    /// It has some, and no pod may be placed on them.
    Unknown(Unknown),
    /// It has these.
    Known(KnownGpus),
}

/// One node.
#[derive(Debug, Clone, PartialEq)]
pub struct NodeView {
    /// Its name.
    pub name: Arc<str>,
    /// Its GPUs.
    pub gpus: NodeGpus,
    /// The pods that are not bound and for which room is kept here, if any.
    pub nominated: Option<Arc<Nominated>>,
}

impl NodeView {
    /// The GPUs that may be used now.
    ///
    /// # Errors
    /// `None` where the node has no GPUs, else why they are not known.
    pub fn usable(&self, now: Instant) -> Result<&KnownGpus, Option<Unknown>> {
        match &self.gpus {
            NodeGpus::None => Err(None),
            NodeGpus::Unknown(why) => Err(Some(*why)),
            NodeGpus::Known(known) if known.fresh_until <= now => Err(Some(Unknown::Old)),
            NodeGpus::Known(known) => Ok(known),
        }
    }

    /// Whether it has GPUs, known or not.
    pub fn is_gpu_node(&self) -> bool {
        self.gpus != NodeGpus::None
    }
}

/// The place of each node among all, by its name. Thousands are looked up for one request, and only who may make
/// nodes can fill it: so its hash is a fast one.
pub(super) type Index = HashMap<Arc<str>, usize, foldhash::fast::RandomState>;

/// Every node at one moment.
#[derive(Debug, Clone, Default)]
pub struct Snapshot {
    /// Whether everything was listed at least once; before, nothing can be answered.
    pub synced: bool,
    /// The requests to come, as far as this cluster's GPUs tell.
    pub mix: Arc<Mix>,
    /// Counts the mixes: what was judged by another one is not comparable.
    pub mix_version: u64,
    /// Counts what else is expected: what a pod costs by another market is not comparable.
    pub market_version: u64,
    /// Which resource names are GPUs.
    pub names: Arc<GpuNames>,
    /// The nodes for which devices are held for a pod whose binding is not seen yet, by the pod's UID.
    pub assumed: Arc<HashMap<String, Arc<str>>>,
    /// The nodes that were chosen ahead for pods that wait, by the pod's UID.
    pub ahead: Arc<HashMap<String, Arc<str>>>,
    pub(super) index: Arc<Index>,
    pub(super) nodes: Views,
}

impl Snapshot {
    /// A node, if it is known.
    pub fn node(&self, name: &str) -> Option<&NodeView> {
        self.index.get(name).and_then(|&at| self.nodes.get(at)).map(|node| &**node)
    }

    /// The nodes, by name.
    pub fn nodes(&self) -> impl Iterator<Item = &NodeView> {
        self.nodes.iter().map(|node| &**node)
    }

    /// A node, by its place among them.
    pub fn node_at(&self, at: usize) -> Option<&NodeView> {
        self.nodes.get(at).map(|node| &**node)
    }

    /// The nodes, to keep: one that did not change since an earlier snapshot is the same one there.
    pub fn views(&self) -> impl Iterator<Item = &Arc<NodeView>> {
        self.nodes.iter()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_reasons_stand_in_their_order() {
        for (at, why) in Unknown::ALL.into_iter().enumerate() {
            assert_eq!(why as usize, at);
        }
    }
}
