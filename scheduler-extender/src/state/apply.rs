//! What an event changes, and which nodes it touches.

use std::collections::BTreeSet;
use std::sync::Arc;

use stowage_shared::gpu::GpuKind;

use super::event::{self, Change};
use super::gpu_nodes::GpuNode;
use super::nodes::Node;
use super::{State, pods};
use crate::clock::Now;

/// The names seen in lists that are not complete yet.
#[derive(Debug, Default)]
pub(super) struct Listing {
    nodes: BTreeSet<String>,
    gpu_nodes: BTreeSet<String>,
}

impl State {
    fn settle(&mut self, update: pods::Update, uid: &str) {
        let held = if update.settled { self.assumptions.drop(uid) } else { None };
        if update.settled {
            self.unnominate(uid);
        }
        held.iter().map(|node| &**node).chain(update.nodes.iter().map(String::as_str)).for_each(|node| {
            self.touch(node);
        });
    }

    fn enter(&mut self, pod: &event::Pod) {
        if let Some(node) = self.ledger.see(pod) {
            self.touch(&node);
        }
    }

    pub(super) fn apply_pod(&mut self, change: Change<event::Pod>) {
        match change {
            Change::ListBegins => {
                self.assumptions.list_begins();
                self.pods.list_begins();
                self.ledger.list_begins();
            }
            Change::Listed(pod) => {
                self.enter(&pod);
                let (uid, names) = (pod.uid.clone(), self.names.clone());
                let update = self.pods.listed(pod, &names);
                self.settle(update, &uid);
                self.nomination_told(&uid);
            }
            Change::Applied(pod) => {
                self.enter(&pod);
                let (uid, names) = (pod.uid.clone(), self.names.clone());
                let update = self.pods.apply(pod, &names);
                self.settle(update, &uid);
                self.nomination_told(&uid);
            }
            Change::Deleted(uid) => {
                let left = self.ledger.forget(&uid);
                left.iter().for_each(|node| self.touch(node));
                let nodes = self.pods.forget(&uid).into_iter().collect();
                self.settle(pods::Update { nodes, settled: true }, &uid);
            }
            Change::ListEnds => {
                let nodes = self.ledger.list_ends();
                nodes.iter().for_each(|node| self.touch(node));
                let nodes = self.pods.list_ends();
                nodes.iter().for_each(|node| self.touch(node));
                self.unnominate_gone();
                let nodes = self.assumptions.list_ends(|uid| self.pods.was_listed(uid));
                nodes.iter().for_each(|(_, node)| self.touch(node));
                self.synced.pods = true;
            }
        }
    }

    pub(super) fn apply_node(&mut self, change: Change<event::Node>) {
        match change {
            Change::ListBegins => self.listing.nodes.clear(),
            Change::Listed(node) => {
                self.listing.nodes.insert(node.name.clone());
                self.node_seen(node);
            }
            Change::Applied(node) => self.node_seen(node),
            Change::Deleted(name) => self.node_gone(&name),
            Change::ListEnds => {
                let listed = std::mem::take(&mut self.listing.nodes);
                let gone: Vec<Arc<str>> =
                    self.nodes.keys().filter(|name| !listed.contains(&***name)).cloned().collect();
                gone.iter().for_each(|name| self.node_gone(name));
                self.synced.nodes = true;
            }
        }
    }

    fn node_seen(&mut self, node: event::Node) {
        let (name, node) = Node::of(node, &mut self.allocatables);
        match self.nodes.get_mut(&name) {
            Some(known) if *known == node => return,
            Some(known) => *known = node,
            None => {
                self.nodes.insert(name.clone(), node);
                self.dirty.index = true;
            }
        }
        self.touch(&name);
    }

    fn node_gone(&mut self, name: &str) {
        if self.nodes.remove(name).is_some() {
            self.dirty.index = true;
            self.dirty.nodes.remove(name);
        }
    }

    pub(super) fn apply_gpu_node(&mut self, change: Change<event::GpuNode>, now: Now) {
        match change {
            Change::ListBegins => self.listing.gpu_nodes.clear(),
            Change::Listed(seen) => {
                self.listing.gpu_nodes.insert(seen.name.clone());
                self.gpu_node_seen(seen, now);
            }
            Change::Applied(seen) => self.gpu_node_seen(seen, now),
            Change::Deleted(name) => self.gpu_node_gone(&name),
            Change::ListEnds => {
                let listed = std::mem::take(&mut self.listing.gpu_nodes);
                let gone: Vec<String> =
                    self.gpu_nodes.keys().filter(|name| !listed.contains(*name)).cloned().collect();
                gone.iter().for_each(|name| self.gpu_node_gone(name));
                self.synced.gpu_nodes = true;
            }
        }
    }

    fn gpu_node_seen(&mut self, seen: event::GpuNode, now: Now) {
        // A plugin makes the object first and writes its status next: in between it tells nothing.
        if seen.status.as_ref().is_ok_and(|status| status.observed_at.is_empty() && status.gpus.is_empty()) {
            return self.gpu_node_gone(&seen.name);
        }
        let before = self.gpu_nodes.get(&seen.name);
        let (name, node) = GpuNode::read(seen, before, &mut self.classes, &mut self.words, now);
        if let Err(why) = &node.content
            && before.is_none_or(|before| before.content.is_ok())
        {
            tracing::warn!(
                node = name,
                why,
                "The GpuNode cannot be believed: its node takes no new GPU pods."
            );
        }
        self.dirty.offers |= before.is_none_or(|before| !same_offers(before, &node));
        self.gpu_nodes.insert(name.clone(), node);
        self.touch(&name);
    }

    fn gpu_node_gone(&mut self, name: &str) {
        if self.gpu_nodes.remove(name).is_some() {
            self.dirty.offers = true;
            self.touch(name);
        }
    }
}

/// Whether two GpuNodes offer the same, so that nobody else need look.
fn same_offers(one: &GpuNode, two: &GpuNode) -> bool {
    let kinds = |node: &GpuNode| -> Option<Vec<*const GpuKind>> {
        let gpus = &node.content.as_ref().ok()?.gpus;
        Some(gpus.iter().map(|gpu| Arc::as_ptr(&gpu.kind)).collect())
    };
    kinds(one) == kinds(two)
}
