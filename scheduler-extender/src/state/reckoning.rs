//! What the next snapshot shows: the nodes that were touched, reckoned anew.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Instant;

use stowage_shared::belief::{NodeFacts, Published, believe};
use stowage_shared::host::Host;
use stowage_shared::pack::{Mix, Stands};
use stowage_shared::policy::{Occupied, Want};
use stowage_shared::reckon::{Held, NodePod, Seat, reckon_seats};
use stowage_shared::resource::ResourceName;

use super::gpu_nodes::Content;
use super::nodes::Node;
use super::{GpuNames, NodeGpus, NodeView, State, Unknown, event};

impl State {
    /// Learns what the cluster's GPUs are offered as.
    pub(super) fn offers_changed(&mut self) {
        let gpus =
            || self.gpu_nodes.values().filter_map(|node| node.content.as_ref().ok()).flat_map(|c| &c.gpus);
        let mix = Mix::prior(gpus().map(|gpu| &**gpu));
        let stands = Stands::new(gpus().map(|gpu| &gpu.kind));
        let before = self.mix.market().cloned();
        let bare = before.iter().fold(mix.clone(), |mix, market| mix.with(market.clone()));
        let mut nominated = false;
        if *self.mix != bare {
            self.mix = Arc::new(bare);
            self.mix_version += 1;
            nominated = true;
        }
        let offered: BTreeSet<&ResourceName> =
            gpus().flat_map(|gpu| gpu.kind.offers()).map(|offer| &offer.resource).collect();
        let names = GpuNames::of(offered);
        if *self.names != names {
            self.names = Arc::new(names);
            self.pods.renamed(&self.names);
            self.dirty.nodes.extend(self.nodes.keys().cloned());
        }
        if nominated {
            self.touch_all_nominated();
        }
        if before.is_none_or(|market| **market.stands() != stands) {
            if !self.classes.sort_by(&stands) {
                self.dirty.nodes.extend(self.nodes.keys().cloned());
            }
            self.look_out(Some(stands));
        } else {
            self.look_out(None);
        }
    }

    /// Gives each node its place in the snapshot.
    pub(super) fn index_changed(&mut self) {
        let before = std::mem::take(&mut self.views);
        let view = |name: &Arc<str>| match self.index.get(name).and_then(|&at| before.get(at)) {
            Some(view) => view.clone(),
            None => Arc::new(NodeView { name: name.clone(), gpus: NodeGpus::None, nominated: None }),
        };
        self.views = self.nodes.keys().map(view).collect();
        let places = self.nodes.keys().enumerate().map(|(at, name)| (name.clone(), at));
        self.index = Arc::new(places.collect());
        // A node that went and came back between two snapshots is marked: whoever comes is.
    }

    pub(super) fn reckon_node(&mut self, name: &Arc<str>) {
        let Some(node) = self.nodes.get(name) else { return };
        let known = match self.believable(name, node) {
            Ok(None) => Err(NodeGpus::None),
            Err(why) => Err(NodeGpus::Unknown(why)),
            Ok(Some((content, fresh_until))) => {
                Ok((self.in_use(name, content, &BTreeSet::new()), fresh_until))
            }
        };
        let gpus = known.map_or_else(
            |gpus| gpus,
            |(now, fresh_until)| NodeGpus::Known(self.classes.known(now, fresh_until)),
        );
        let nominated = self.nominated_to(name, &gpus);
        if let Some(&at) = self.index.get(name) {
            self.views.set(at, Arc::new(NodeView { name: name.clone(), gpus, nominated }));
        }
    }

    /// What the GpuNode of a node tells, if it may be used; `None` where the node has no GPUs.
    pub(super) fn believable(&self, name: &str, node: &Node) -> Result<Option<(&Content, Instant)>, Unknown> {
        let gpu_node = self.gpu_nodes.get(name);
        let content = gpu_node.map(|gpu_node| gpu_node.content.as_ref());
        let published = match &content {
            None => Published::Nothing,
            Some(Err(_)) => Published::Unreadable,
            Some(Ok(content)) => Published::Gpus { node_uid: &content.node_uid, gpus: &content.gpus },
        };
        let facts = NodeFacts { uid: &node.uid, ready: node.ready, allocatable: &node.allocatable };
        let believed = believe(facts, published, &self.names)?;
        Ok(match (believed, gpu_node, content) {
            (Some(_), Some(gpu_node), Some(Ok(content))) => Some((content, gpu_node.fresh_until)),
            _ => None,
        })
    }

    /// What of a node's GPUs would be in use, promised or held if some pods were gone.
    ///
    /// # Errors
    /// `None` where the node is not known or has no GPUs, else why they are not known.
    pub fn without(
        &self,
        name: &str,
        gone: &BTreeSet<&str>,
        now: Instant,
    ) -> Result<Occupied, Option<Unknown>> {
        let node = self.nodes.get(name).ok_or(None)?;
        match self.believable(name, node).map_err(Some)? {
            None => Err(None),
            Some((_, fresh_until)) if fresh_until <= now => Err(Some(Unknown::Old)),
            Some((content, _)) => Ok(self.in_use(name, content, gone)),
        }
    }

    /// What a pod that uses GPUs or waits for them wants of a node; `None` where that is not known.
    pub fn want_of(&self, uid: &str) -> Option<Want> {
        self.pods.get(uid)?.want()
    }

    /// How many pods have waited for GPUs here and were bound.
    pub fn placements(&self) -> u64 {
        self.pods.placements
    }

    /// The pods that hold GPUs of a node or will, with their priorities.
    pub fn users(&self, node: &str) -> impl Iterator<Item = (&event::Pod, i32)> {
        self.pods.on_node(node).map(|record| (&record.bare, record.bare.priority))
    }

    /// What of a node's GPUs is in use, promised or held; pods that are `gone` do not count.
    pub(super) fn in_use(&self, name: &str, content: &Content, gone: &BTreeSet<&str>) -> Occupied {
        self.in_use_by(name, content, gone, &mut |_| ())
    }

    /// The same, and tells of each device for whom it counts.
    pub(super) fn in_use_by(
        &self,
        name: &str,
        content: &Content,
        gone: &BTreeSet<&str>,
        told: &mut dyn FnMut(Seat<'_>),
    ) -> Occupied {
        let held: Vec<Held<'_>> = content
            .allocations
            .iter()
            .filter(|held| !gone.contains(&*held.uid))
            .map(|held| Held {
                uid: &held.uid,
                namespace: &held.namespace,
                resource: &held.resource,
                device_ids: &held.device_ids,
            })
            .collect();
        let bound = self.pods.on_node(name).filter(|record| !gone.contains(&*record.bare.uid));
        let bound: Vec<_> = bound.map(|record| (record, record.plan())).collect();
        let bound = bound.iter().map(|(record, plan)| NodePod {
            uid: &record.bare.uid,
            namespace: &record.bare.namespace,
            share_with: record.share_with(),
            request: record.request(),
            plan: plan.as_ref(),
        });
        let assumed = self.assumptions.iter().map(|(uid, assumption)| (uid, &assumption.chosen));
        let assumed: Vec<_> = assumed.filter(|(_, chosen)| &*chosen.node == name).collect();
        let held_back: Vec<Host> = assumed.iter().map(|(_, chosen)| chosen.host).collect();
        let assumed = assumed.into_iter().map(|(uid, chosen)| NodePod {
            uid,
            namespace: &chosen.namespace,
            share_with: chosen.share_with,
            request: &chosen.request,
            plan: Some(&chosen.plan),
        });
        let mut pods: Vec<NodePod<'_>> = bound.chain(assumed).collect();
        // So that a pod counts alike whether it is assumed or bound.
        pods.sort_by_key(|pod| pod.uid);
        let (reserve, mut host) =
            self.nodes.get(name).map(|node| (node.reserve, node.host)).unwrap_or_default();
        host.take(self.ledger.used(name));
        held_back.iter().for_each(|held| host.take(*held));
        Occupied { reserve, host, ..reckon_seats(&content.gpus, &held, &pods, told) }
    }
}
