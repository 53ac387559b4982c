//! The pure state machine: it applies what the watches tell, holds devices for pods that are being bound, and
//! gives out immutable [`Snapshot`]s.
//!
//! What of a node is in use is a function of what is known of it now: its GpuNode, the pods bound to it, and the
//! assumptions. Nothing is counted up or down, so nothing can leak: an event only marks the nodes that it
//! touches, and those are reckoned anew before the next snapshot. Objects of different kinds may arrive in any
//! order. Time comes in as an argument.
//!
//! It does not know who sends events, nor how a Binding is posted.

mod apply;
mod assumptions;
mod bind;
mod classes;
pub mod event;
mod gpu_nodes;
mod interned;
mod ledger;
mod nodes;
mod nominations;
mod outlook;
mod pods;
mod reckoning;
mod seats;
mod snapshot;
mod store;
#[cfg(test)]
mod tests;
mod views;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use stowage_shared::audit;
pub use stowage_shared::belief::{GpuNames, Unknown};
use stowage_shared::pack::Mix;

pub use self::assumptions::AssumptionId;
pub use self::bind::{Choice, Refusal, may_be_bound};
pub use self::nominations::{Nominated, Nominee, Room, arrange};
pub use self::pods::Waiting;
pub use self::seats::{Seat, Seated, Stage, WaitingPod};
pub use self::snapshot::{Barred, Class, KnownGpus, NodeGpus, NodeView, Snapshot};
pub use self::store::{Broken, Store};

use self::apply::Listing;
use self::assumptions::Assumptions;
use self::classes::Classes;
use self::event::Event;
use self::gpu_nodes::{Allocation, GpuNode, Words};
use self::ledger::Ledger;
use self::nodes::{Allocatables, Node};
use self::nominations::Nominations;
use self::outlook::Outlook;
use self::pods::Pods;
use self::views::Views;
use crate::clock::Now;

/// Everything that the extender knows.
#[derive(Debug, Default)]
pub struct State {
    nodes: BTreeMap<Arc<str>, Node>,
    allocatables: Allocatables,
    gpu_nodes: BTreeMap<String, GpuNode>,
    words: Words,
    pods: Pods,
    ledger: Ledger,
    assumptions: Assumptions,
    nominations: Nominations,
    names: Arc<GpuNames>,
    mix: Arc<Mix>,
    mix_version: u64,
    outlook: Outlook,
    classes: Classes,
    listing: Listing,
    synced: Synced,
    dirty: Dirty,
    views: Views,
    index: Arc<snapshot::Index>,
}

/// Which kinds were listed completely at least once.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Synced {
    /// Pods.
    pub pods: bool,
    /// Nodes.
    pub nodes: bool,
    /// GpuNodes.
    pub gpu_nodes: bool,
}

impl Synced {
    /// Whether all of them were.
    pub fn all(self) -> bool {
        self.pods && self.nodes && self.gpu_nodes
    }
}

/// What the next snapshot must reckon anew.
#[derive(Debug, Default)]
struct Dirty {
    /// These nodes' GPUs.
    nodes: BTreeSet<Arc<str>>,
    /// A node came or went.
    index: bool,
    /// A GpuNode came, went, or changed what it offers.
    offers: bool,
    /// Anything at all.
    any: bool,
}

impl State {
    /// Takes in what a watch told.
    pub fn apply(&mut self, event: Event, now: Now) {
        self.dirty.any = true;
        match event {
            Event::Pod(change) => self.apply_pod(change),
            Event::Node(change) => self.apply_node(change),
            Event::GpuNode(change) => self.apply_gpu_node(change, now),
        }
    }

    /// Gives back what was held for pods that were not bound in time.
    pub fn expire(&mut self, now: Now) {
        self.look_out_in_time(now);
        for (uid, node) in self.assumptions.expire(now) {
            tracing::warn!(%node, "A pod was not bound in time: its devices are free again.");
            self.touch(&node);
            self.touch_nominated(&uid);
        }
    }

    /// Which kinds were listed completely at least once.
    pub fn synced(&self) -> Synced {
        self.synced
    }

    /// How many assumptions are (pending, bound).
    pub fn assumptions(&self) -> (usize, usize) {
        self.assumptions.count()
    }

    /// How many annotations were no plan for their pod.
    pub fn plans_ignored(&self) -> u64 {
        self.pods.plans_ignored
    }

    /// What the pods that wait for GPUs ask for, and how many ask alike.
    pub fn waiting(&self) -> Vec<Waiting> {
        self.pods.waiting()
    }

    /// Why GpuNodes cannot be believed, by node.
    pub fn unreadable(&self) -> impl Iterator<Item = (&str, &str)> {
        let nodes = self.gpu_nodes.iter();
        nodes.filter_map(|(name, node)| node.content.as_ref().err().map(|why| (name.as_str(), why.as_str())))
    }

    /// Every GPU node as the audit wants to see it.
    pub fn audit_views(&self) -> Vec<audit::NodeView> {
        let views = self.gpu_nodes.iter().filter_map(|(name, node)| {
            let content = node.content.as_ref().ok()?;
            let pods = self.pods.on_node(name).map(|record| audit::PodView {
                namespace: record.bare.namespace.clone(),
                name: record.bare.name.clone(),
                uid: record.bare.uid.clone(),
                request: record.request().clone(),
                plan: record.plan(),
                running: record.bare.running,
            });
            Some(audit::NodeView {
                node: name.clone(),
                gpus: content.gpus.iter().map(|gpu| (**gpu).clone()).collect(),
                allocations: content.allocations.iter().map(Allocation::status).collect(),
                pods: pods.collect(),
            })
        });
        views.collect()
    }

    /// What filter and prioritize read from now on; `None` where nothing changed since the last one.
    ///
    /// Before everything was listed once, nobody may read it, so nothing is reckoned.
    pub fn snapshot(&mut self) -> Option<Snapshot> {
        if !self.dirty.any || !self.synced.all() {
            return None;
        }
        self.dirty.any = false;
        self.refresh();
        Some(Snapshot {
            synced: true,
            mix: self.mix.clone(),
            mix_version: self.mix_version,
            market_version: self.outlook.version,
            names: self.names.clone(),
            assumed: self.assumptions.nodes(),
            ahead: self.ahead(),
            index: self.index.clone(),
            nodes: self.views.clone(),
        })
    }

    /// Reckons what was touched.
    fn refresh(&mut self) {
        if std::mem::take(&mut self.dirty.offers) {
            self.offers_changed();
        } else {
            self.look_out(None);
        }
        if std::mem::take(&mut self.dirty.index) {
            self.index_changed();
        }
        for name in std::mem::take(&mut self.dirty.nodes) {
            self.reckon_node(&name);
        }
    }

    /// A node as it is now, for a test that looks between two snapshots.
    #[cfg(test)]
    pub(crate) fn look_at(&mut self, name: &str) -> Option<Arc<NodeView>> {
        self.view(name)
    }

    /// The requests to come, for the same.
    #[cfg(test)]
    pub(crate) fn expected(&self) -> Arc<Mix> {
        self.mix.clone()
    }

    /// Makes the next snapshot a new one, for the same.
    #[cfg(test)]
    pub(crate) fn touch_any(&mut self) {
        self.dirty.any = true;
    }

    /// A node as it is now.
    fn view(&mut self, name: &str) -> Option<Arc<NodeView>> {
        self.refresh();
        self.index.get(name).and_then(|&at| self.views.get(at)).cloned()
    }

    fn touch(&mut self, node: &str) {
        self.dirty.any = true;
        // A node that is not known yet is reckoned when it comes.
        if let Some((name, _)) = self.nodes.get_key_value(node) {
            self.dirty.nodes.insert(name.clone());
        }
    }
}
