//! What the scheduler believes of the cluster: nodes, and who takes what of them.
//!
//! A pod whose binding is on its way is *assumed*: it counts on its node already, so that the next pod
//! does not take the same place. Pure, so that a simulation without a cluster can use it too.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::amounts::Amounts;
use super::objects::{Node, Pod};

/// Nodes and the pods on them.
#[derive(Debug, Clone, Default)]
pub struct Cache {
    nodes: BTreeMap<String, Arc<Node>>,
    usage: BTreeMap<String, Usage>,
    /// Where each counted pod is counted, by UID.
    placed: BTreeMap<String, (String, Arc<Pod>)>,
}

/// What the pods on one node take.
#[derive(Debug, Clone, Default)]
pub(super) struct Usage {
    pub(super) requested: Amounts,
    pub(super) for_scoring: Amounts,
    pub(super) pods: i64,
}

/// One node with what is taken of it.
#[derive(Debug, Clone, Copy)]
pub(super) struct NodeView<'a> {
    pub(super) node: &'a Node,
    pub(super) usage: &'a Usage,
}

static NOBODY: Usage = Usage {
    requested: Amounts { milli_cpu: 0, memory_bytes: 0, others: BTreeMap::new() },
    for_scoring: Amounts { milli_cpu: 0, memory_bytes: 0, others: BTreeMap::new() },
    pods: 0,
};

impl Cache {
    /// Adds a node, or replaces what was known of it.
    pub fn set_node(&mut self, node: Node) {
        self.nodes.insert(node.name.clone(), Arc::new(node));
    }

    /// Forgets a node; what its pods take is remembered, should it come back.
    pub fn remove_node(&mut self, name: &str) {
        self.nodes.remove(name);
    }

    /// Counts a pod on a node, wherever it was counted before: because it is bound, or because it is
    /// about to be.
    pub fn place(&mut self, pod: Arc<Pod>, node: &str) {
        self.remove_pod(&pod.uid);
        let usage = self.usage.entry(node.to_owned()).or_default();
        usage.requested.add(&pod.amounts.requested);
        usage.for_scoring.add(&pod.amounts.for_scoring);
        usage.pods += 1;
        self.placed.insert(pod.uid.clone(), (node.to_owned(), pod));
    }

    /// Counts a pod no more; answers whether it was counted.
    pub fn remove_pod(&mut self, uid: &str) -> bool {
        let Some((node, pod)) = self.placed.remove(uid) else { return false };
        if let Some(usage) = self.usage.get_mut(&node) {
            usage.requested.subtract(&pod.amounts.requested);
            usage.for_scoring.subtract(&pod.amounts.for_scoring);
            usage.pods -= 1;
            if usage.pods == 0 {
                self.usage.remove(&node);
            }
        }
        true
    }

    /// The node on which a pod is counted.
    pub fn node_of(&self, uid: &str) -> Option<&str> {
        self.placed.get(uid).map(|(node, _)| node.as_str())
    }

    /// The nodes by name.
    pub(super) fn nodes(&self) -> impl Iterator<Item = NodeView<'_>> {
        self.nodes
            .iter()
            .map(|(name, node)| NodeView { node, usage: self.usage.get(name).unwrap_or(&NOBODY) })
    }
}
