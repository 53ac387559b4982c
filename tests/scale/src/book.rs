//! The books of the hollow plugins: who holds which device of a node.
//!
//! As the real plugin's book, it makes a double allocation impossible, whatever the plans say: a pod whose planned
//! devices are taken gets others of the same resource, and where there are none it is not admitted. Pure: it knows
//! no API server. Unlike the real one, it counts devices and not the memory of shares; that is for the audit.

use std::collections::{BTreeMap, BTreeSet};

use stowage_shared::audit::{NodeView, PodView};
use stowage_shared::device_id::DeviceId;
use stowage_shared::gpu::Gpu;
use stowage_shared::gpu_node::{AllocationStatus, GpuNodeStatus, InventoryError};
use stowage_shared::plan::{Plan, PlannedDevice};
use stowage_shared::resource::ResourceName;

/// Whose devices they are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Holder {
    /// Namespace.
    pub namespace: String,
    /// Name.
    pub name: String,
    /// UID.
    pub uid: String,
}

/// What became of a plan on its node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Confirmed {
    /// The pod has what it was promised.
    AsPlanned,
    /// Something of it was taken: it has others.
    Otherwise,
    /// There is nothing for it: a kubelet fails such a pod.
    NotAdmitted,
}

/// One node's book.
#[derive(Debug)]
pub struct NodeBook {
    status: GpuNodeStatus,
    gpus: Vec<Gpu>,
    held: BTreeSet<DeviceId>,
    /// By GPU: the offers in use, as bits.
    in_use: Vec<u64>,
}

impl NodeBook {
    /// Opens the book of a node.
    ///
    /// # Errors
    /// [`InventoryError`] where the GPUs are impossible.
    pub fn new(status: GpuNodeStatus) -> Result<Self, InventoryError> {
        let gpus = status.inventory()?;
        let mut book = Self { in_use: vec![0; gpus.len()], status, gpus, held: BTreeSet::new() };
        book.recount();
        Ok(book)
    }

    /// The status to publish.
    pub fn status(&self) -> &GpuNodeStatus {
        &self.status
    }

    /// Who holds what, for people.
    pub fn holders(&self) -> String {
        let line = |held: &AllocationStatus| format!("{}: {}", held.pod, held.device_ids.join(" "));
        self.status.allocations.iter().map(line).collect::<Vec<_>>().join(", ")
    }

    /// Hands out what a plan promises, or others.
    pub fn confirm(&mut self, holder: &Holder, plan: &Plan) -> Confirmed {
        let mut confirmed = Confirmed::AsPlanned;
        let before = self.status.allocations.len();
        for (container, resources) in &plan.containers {
            for (resource, devices) in resources {
                let mut device_ids = Vec::with_capacity(devices.len());
                for device in devices {
                    let planned = self.free_of(device, resource);
                    if planned.is_none() {
                        confirmed = Confirmed::Otherwise;
                    }
                    let Some((g, offer, id)) = planned.or_else(|| self.any_free(resource)) else {
                        self.status.allocations.truncate(before);
                        self.recount();
                        return Confirmed::NotAdmitted;
                    };
                    self.in_use[g] |= 1 << offer;
                    device_ids.push(id.to_string());
                    self.held.insert(id);
                }
                self.status.allocations.push(AllocationStatus {
                    namespace: holder.namespace.clone(),
                    pod: holder.name.clone(),
                    uid: holder.uid.clone(),
                    container: container.clone(),
                    resource: resource.clone(),
                    device_ids,
                });
            }
        }
        confirmed
    }

    /// Hands out one device of a resource to a pod that nobody planned; `false` where none is free.
    pub fn hand_out(&mut self, holder: &Holder, resource: &ResourceName) -> bool {
        let Some((g, offer, id)) = self.any_free(resource) else { return false };
        self.in_use[g] |= 1 << offer;
        self.status.allocations.push(AllocationStatus {
            namespace: holder.namespace.clone(),
            pod: holder.name.clone(),
            uid: holder.uid.clone(),
            container: "main".to_owned(),
            resource: resource.clone(),
            device_ids: vec![id.to_string()],
        });
        self.held.insert(id);
        true
    }

    /// The pod is gone; whether it had held something.
    pub fn release(&mut self, uid: &str) -> bool {
        let before = self.status.allocations.len();
        self.status.allocations.retain(|held| held.uid != uid);
        let released = self.status.allocations.len() < before;
        if released {
            self.recount();
        }
        released
    }

    /// The node as the audit wants it, with the pods that are bound to it.
    pub fn view(&self, node: &str, pods: Vec<PodView>) -> NodeView {
        NodeView {
            node: node.to_owned(),
            gpus: self.gpus.clone(),
            allocations: self.status.allocations.clone(),
            pods,
        }
    }

    fn free_of(&self, device: &PlannedDevice, resource: &ResourceName) -> Option<(usize, usize, DeviceId)> {
        let (g, offer) = device.locate(&self.gpus, resource)?;
        Some((g, offer, self.free_id(g, offer)?))
    }

    fn any_free(&self, resource: &ResourceName) -> Option<(usize, usize, DeviceId)> {
        self.gpus.iter().enumerate().find_map(|(g, gpu)| {
            gpu.kind
                .offers_of(resource)
                .find_map(|(offer, _)| self.free_id(g, offer).map(|id| (g, offer, id)))
        })
    }

    fn free_id(&self, g: usize, offer: usize) -> Option<DeviceId> {
        let gpu = &self.gpus[g];
        let excluded = gpu.kind.conflicts(offer) & self.in_use[g] != 0;
        gpu.device_ids(offer).find(|id| !excluded && !self.held.contains(id))
    }

    fn recount(&mut self) {
        self.held.clear();
        self.in_use.fill(0);
        for held in &self.status.allocations {
            for id in held.device_ids.iter().filter_map(|id| id.parse::<DeviceId>().ok()) {
                if let Some((g, offer)) = stowage_shared::gpu::locate(&self.gpus, &held.resource, &id) {
                    self.in_use[g] |= 1 << offer;
                }
                self.held.insert(id);
            }
        }
    }
}

/// The books of all nodes, by name.
pub type Books = BTreeMap<String, NodeBook>;

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::inventory::{HollowNode, SHARE, WHOLE};

    fn holder(uid: &str) -> Holder {
        Holder { namespace: "default".into(), name: format!("pod-{uid}"), uid: uid.into() }
    }

    /// A plan for one device on the GPU of this index.
    fn plan(book: &NodeBook, resource: &str, gpu: usize) -> Plan {
        let device = PlannedDevice { gpu: book.gpus[gpu].uuid.clone(), slice: None, memory: None };
        let devices = BTreeMap::from([(resource.parse().unwrap(), vec![device])]);
        Plan { uid: "u".into(), node: "n".into(), containers: BTreeMap::from([("main".into(), devices)]) }
    }

    fn elastic() -> NodeBook {
        NodeBook::new(HollowNode::elastic(0, "n", "T4", 2, 1000, 1024).unwrap().status("uid")).unwrap()
    }

    #[test]
    fn a_pod_gets_what_it_was_promised() {
        let mut book = elastic();
        let plan = plan(&book, WHOLE, 1);
        assert_eq!(book.confirm(&holder("a"), &plan), Confirmed::AsPlanned);
        assert_eq!(book.status().allocations[0].device_ids, [book.gpus[1].uuid.to_string()]);
    }

    #[test]
    fn what_two_were_promised_only_one_gets() {
        let mut book = elastic();
        let plan = plan(&book, WHOLE, 0);
        let got: Vec<_> = ["a", "b", "c"].map(|uid| book.confirm(&holder(uid), &plan)).into();
        assert_eq!(got, [Confirmed::AsPlanned, Confirmed::Otherwise, Confirmed::NotAdmitted]);
        assert_eq!(book.status().allocations.len(), 2);
        assert!(book.release("a"));
        assert_eq!(book.confirm(&holder("c"), &plan), Confirmed::AsPlanned);
    }

    #[test]
    fn a_shared_gpu_is_nobodys_whole() {
        let mut book = elastic();
        let (shared, whole) = (plan(&book, SHARE, 0), plan(&book, WHOLE, 0));
        assert_eq!(book.confirm(&holder("a"), &shared), Confirmed::AsPlanned);
        assert_eq!(book.confirm(&holder("b"), &shared), Confirmed::AsPlanned);
        assert_eq!(book.confirm(&holder("c"), &whole), Confirmed::Otherwise);
        let findings = stowage_shared::audit::audit(&book.view("n", Vec::new()));
        assert!(
            findings.iter().all(|f| f.kind == stowage_shared::audit::Kind::Leak),
            "the pods are not there, and nothing else is wrong: {findings:?}"
        );
    }

    #[test]
    fn a_pod_that_nobody_planned_gets_what_is_free() {
        let mut book = NodeBook::new(HollowNode::mixed(0).unwrap().status("uid")).unwrap();
        let whole = WHOLE.parse().unwrap();
        let handed = (0..5).filter(|n| book.hand_out(&holder(&n.to_string()), &whole)).count();
        assert_eq!(handed, 4);
    }
}
