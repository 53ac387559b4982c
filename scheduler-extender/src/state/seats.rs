//! Who is on which device of a node, and who waits: what a picture of the cluster shows and no decision needs.
//!
//! Snapshots do not tell it, since filter would pay for names that it never reads. So it is asked of the state itself, for
//! one node at a time.

use std::collections::BTreeSet;
use std::sync::Arc;

use stowage_shared::policy::Want;
use stowage_shared::reckon::{self, Holder};
use stowage_shared::units::MemoryMib;

use super::{NodeGpus, NodeView, State};

/// How far a pod has come with a device.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Stage {
    /// The kubelet gave it to the pod.
    Held,
    /// The pod is bound to the node, and the kubelet has not told of it yet.
    Promised,
    /// The pod is being bound.
    Assumed,
    /// The pod waits, and room is kept for it here; which device it gets is not settled.
    Nominated,
}

/// A device and who has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Seat {
    /// The GPU, by its place among the node's.
    pub gpu: usize,
    /// Which of its offers.
    pub offer: usize,
    /// How much memory the pod says its share needs.
    pub memory: Option<MemoryMib>,
    /// The pod's namespace.
    pub namespace: String,
    /// The pod's name; empty where it is not known.
    pub pod: String,
    /// How far it has come.
    pub stage: Stage,
}

/// A node with who is on it.
#[derive(Debug)]
pub struct Seated {
    /// The node.
    pub view: Arc<NodeView>,
    /// Who is on it.
    pub seats: Vec<Seat>,
}

/// A pod that waits for GPUs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WaitingPod {
    /// Its UID.
    pub uid: String,
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// Its priority.
    pub priority: i32,
    /// The node that keeps room for it; empty where none does.
    pub nominated: String,
    /// What it wants; `None` where it cannot be read.
    pub want: Option<Want>,
}

impl State {
    /// A node as it is now, with who is on it.
    pub fn seated(&mut self, name: &str) -> Option<Seated> {
        let view = self.view(name)?;
        let mut seats = Vec::new();
        if matches!(view.gpus, NodeGpus::Known(_)) {
            self.seats_of(name, &mut seats);
            self.nominated_seats(&view, &mut seats);
        }
        Some(Seated { view, seats })
    }

    /// The pods that wait for GPUs, `most` of them at most, and how many there are.
    pub fn waiting_pods(&self, most: usize) -> (Vec<WaitingPod>, usize) {
        let mut all = 0;
        let mut listed = Vec::new();
        for record in self.pods.each_waiting() {
            all += 1;
            if listed.len() >= most {
                continue;
            }
            let pod = &record.bare;
            let ours = self.nominated(&pod.uid).map(|node| node.to_string());
            listed.push(WaitingPod {
                uid: pod.uid.clone(),
                namespace: pod.namespace.clone(),
                name: pod.name.clone(),
                priority: pod.priority,
                nominated: ours.unwrap_or_else(|| pod.nominated.clone()),
                want: record.want(),
            });
        }
        (listed, all)
    }

    /// A pod that waits for GPUs.
    pub fn waiting_pod(&self, uid: &str) -> Option<super::event::Pod> {
        self.pod(uid).filter(|pod| pod.node.is_empty() && !pod.deleting)
    }

    fn seats_of(&self, name: &str, seats: &mut Vec<Seat>) {
        let Some(node) = self.nodes.get(name) else { return };
        let Ok(Some((content, _))) = self.believable(name, node) else { return };
        self.in_use_by(name, content, &BTreeSet::new(), &mut |told: reckon::Seat<'_>| {
            let memory = |share: Option<stowage_shared::share::ShareSize>| {
                let kind = &content.gpus.get(told.gpu)?.kind;
                kind.equal_share(told.offer)?;
                Some(share?.of(kind.memory()))
            };
            let (namespace, pod, stage) = match told.holder {
                Holder::Held(at) => {
                    let held = content.allocations.get(at);
                    held.map(|held| (held.namespace.to_string(), held.pod.to_string(), Stage::Held))
                        .unwrap_or_default()
                }
                Holder::Pod(uid) => {
                    let assumed = self.assumptions.get(uid);
                    let stage = if assumed.is_some() { Stage::Assumed } else { Stage::Promised };
                    let known = self.pods.get(uid).map(|record| &record.bare);
                    let namespace = known.map(|pod| pod.namespace.clone());
                    let namespace = namespace.or_else(|| Some(assumed?.chosen.namespace.clone()));
                    (
                        namespace.unwrap_or_default(),
                        known.map(|pod| pod.name.clone()).unwrap_or_default(),
                        stage,
                    )
                }
            };
            let memory = memory(told.share);
            seats.push(Seat { gpu: told.gpu, offer: told.offer, memory, namespace, pod, stage });
        });
    }

    /// Where pods would go that are nominated to a node: as it is reckoned for others.
    fn nominated_seats(&self, view: &NodeView, seats: &mut Vec<Seat>) {
        let (NodeGpus::Known(known), Some(nominated)) = (&view.gpus, &view.nominated) else { return };
        let mut room = known.now.clone();
        for nominee in nominated.nominees() {
            let Some(placement) = room.take(&nominee.want, &nominee.namespace, &self.mix) else { continue };
            let name = self.pods.get(&nominee.uid).map(|record| record.bare.name.clone()).unwrap_or_default();
            for chosen in placement.devices.values().flatten() {
                let kind = &room.gpus[chosen.gpu].gpu.kind;
                let memory = nominee.want.demand.share.map(|share| share.of(kind.memory()));
                seats.push(Seat {
                    gpu: chosen.gpu,
                    offer: chosen.offer,
                    memory: memory.filter(|_| kind.equal_share(chosen.offer).is_some()),
                    namespace: nominee.namespace.clone(),
                    pod: name.clone(),
                    stage: Stage::Nominated,
                });
            }
        }
    }
}

impl Default for Stage {
    /// What is not known further is held.
    fn default() -> Self {
        Self::Held
    }
}
