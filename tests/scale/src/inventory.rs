//! What hollow nodes are made of: a Node object, a GpuNode, and the GPUs in it.

use std::collections::BTreeMap;

use anyhow::Result;
use serde_json::{Value, json};
use stowage_shared::contract::{API_GROUP, API_VERSION};
use stowage_shared::gpu_node::{GpuNodeStatus, GpuStatus, KIND, OfferStatus, SliceStatus};
use stowage_shared::units::MemoryMib;

/// Whole GPUs.
pub const WHOLE: &str = "nvidia.com/gpu";
/// Shares of a GPU.
pub const SHARE: &str = "nvidia.com/gpu.shared";
/// The smallest MIG slice of the nodes made by [`HollowNode::mixed`].
pub const SLICE: &str = "nvidia.com/mig-1g.5gb";
/// The node label with the GPUs' model, as NVIDIA's feature discovery writes it.
pub const PRODUCT_LABEL: &str = "nvidia.com/gpu.product";
/// Shares of each shared GPU of [`HollowNode::mixed`].
const SHARES: u32 = 4;
/// Shares of an elastic GPU: its thousandths are what limits, and no pod of a trace wants less than ten of them.
const ELASTIC_SHARES: u32 = 100;
/// Memory of an elastic GPU. A multiple of a thousand, so that a thousandth is a whole number of MiB.
const ELASTIC_MEMORY: MemoryMib = MemoryMib(32_000);

/// A node that is to be created.
#[derive(Debug, Clone)]
pub struct HollowNode {
    /// Its name.
    pub name: String,
    /// Its processors, in thousandths.
    pub cpu_milli: u64,
    /// Its memory.
    pub memory_mib: u64,
    /// Its GPUs.
    pub gpus: Vec<GpuStatus>,
}

impl HollowNode {
    /// The n-th of a fleet of nodes with eight GPUs: four whole, two cut into seven MIG slices each, two shared by
    /// four pods each.
    ///
    /// # Errors
    /// Never, as long as the names in this file are what they should be.
    pub fn mixed(n: usize) -> Result<Self> {
        let gpus = (0..8).map(|index| match index {
            0..4 => gpu(n, index, "NVIDIA A100-SXM4-40GB", MemoryMib(40_960), &[(WHOLE, None)]),
            4..6 => cut(n, index),
            _ => gpu(n, index, "NVIDIA A100-SXM4-40GB", MemoryMib(40_960), &[(SHARE, Some(SHARES))]),
        });
        let gpus = gpus.collect::<Result<_>>()?;
        Ok(Self { name: format!("gpu-node-{n:05}"), cpu_milli: 96_000, memory_mib: 768 << 10, gpus })
    }

    /// A node whose GPUs are whole or shared as pods come, as the n-th of its fleet.
    ///
    /// # Errors
    /// Never, as long as the names in this file are what they should be.
    pub fn elastic(
        n: usize,
        name: &str,
        model: &str,
        gpus: u32,
        cpu_milli: u64,
        memory_mib: u64,
    ) -> Result<Self> {
        let offers = [(WHOLE, None), (SHARE, Some(ELASTIC_SHARES))];
        let gpus = (0..gpus).map(|index| gpu(n, index, model, ELASTIC_MEMORY, &offers));
        Ok(Self { name: name.to_owned(), cpu_milli, memory_mib, gpus: gpus.collect::<Result<_>>()? })
    }

    /// The Node, ready and with everything allocatable, as its kubelet would have registered it.
    pub fn node(&self) -> Value {
        let mut amounts = BTreeMap::from([
            ("cpu".to_owned(), format!("{}m", self.cpu_milli)),
            ("memory".to_owned(), format!("{}Mi", self.memory_mib)),
            // As many as the trace's simulators allow; a kubelet's own limit is 110, and no node here comes near it.
            ("pods".to_owned(), "1001".to_owned()),
        ]);
        for (resource, count) in self.offered() {
            amounts.insert(resource, count.to_string());
        }
        let model = self.gpus.first().map_or("none", |gpu| gpu.model.as_str()).replace(' ', "-");
        json!({
            "apiVersion": "v1",
            "kind": "Node",
            "metadata": {
                "name": self.name,
                "labels": {"kubernetes.io/hostname": self.name, PRODUCT_LABEL: model},
            },
            "status": {
                "capacity": amounts,
                "allocatable": amounts,
                "conditions": [{
                    "type": "Ready",
                    "status": "True",
                    "reason": "KubeletReady",
                    "message": "hollow",
                    "lastHeartbeatTime": null,
                    "lastTransitionTime": null,
                }],
            },
        })
    }

    /// The GpuNode, without the status that its plugin writes.
    pub fn gpu_node(&self) -> Value {
        json!({
            "apiVersion": format!("{API_GROUP}/{API_VERSION}"),
            "kind": KIND,
            "metadata": {"name": self.name},
            "spec": {},
        })
    }

    /// What the node's plugin tells of it, while nobody holds anything.
    pub fn status(&self, node_uid: &str) -> GpuNodeStatus {
        GpuNodeStatus {
            plugin_version: "hollow".to_owned(),
            node_uid: node_uid.to_owned(),
            gpus: self.gpus.clone(),
            ..GpuNodeStatus::default()
        }
    }

    fn offered(&self) -> BTreeMap<String, u32> {
        let mut counts = BTreeMap::new();
        for offer in self.gpus.iter().flat_map(|gpu| &gpu.offers) {
            *counts.entry(offer.resource.to_string()).or_default() += offer.replicas.unwrap_or(1);
        }
        counts
    }
}

/// The UUID of a GPU.
fn uuid(n: usize, index: u32) -> String {
    format!("GPU-{n:08x}-0000-4000-8000-{index:012x}")
}

fn gpu(
    n: usize,
    index: u32,
    model: &str,
    memory_mib: MemoryMib,
    offers: &[(&str, Option<u32>)],
) -> Result<GpuStatus> {
    let offers = offers.iter().map(|&(resource, replicas)| offer(resource, uuid(n, index), None, replicas));
    Ok(GpuStatus {
        uuid: uuid(n, index),
        index,
        model: model.to_owned(),
        memory_mib,
        numa_node: None,
        near: Vec::new(),
        unhealthy: None,
        offers: offers.collect::<Result<_>>()?,
        mig_on_demand: false,
        foreign_instances: Vec::new(),
        utilization: None,
    })
}

/// A GPU that is cut into seven slices.
fn cut(n: usize, index: u32) -> Result<GpuStatus> {
    let mut cut = gpu(n, index, "NVIDIA A100-SXM4-40GB", MemoryMib(40_960), &[])?;
    for start in 0..7 {
        let slice = SliceStatus { profile: "1g.5gb".parse()?, start, size: 1, media_engines: false };
        let id = format!("MIG-{n:08x}-0000-4000-8000-{:012x}", index * 16 + u32::from(start));
        cut.offers.push(offer(SLICE, id, Some(slice), None)?);
    }
    Ok(cut)
}

fn offer(
    resource: &str,
    uuid: String,
    slice: Option<SliceStatus>,
    replicas: Option<u32>,
) -> Result<OfferStatus> {
    Ok(OfferStatus {
        resource: resource.parse()?,
        uuid,
        slice,
        replicas,
        distinct: false,
        capped: false,
        unhealthy: None,
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_node_offers_what_its_gpus_are_cut_into() {
        let node = HollowNode::mixed(3).unwrap();
        let allocatable = &node.node()["status"]["allocatable"];
        assert_eq!([&allocatable[WHOLE], &allocatable[SLICE], &allocatable[SHARE]], ["4", "14", "8"]);
        assert_eq!(node.status("uid").inventory().unwrap().len(), 8);
    }

    #[test]
    fn a_thousandth_of_an_elastic_gpu_is_a_whole_number_of_mebibytes() {
        let node = HollowNode::elastic(0, "a", "T4", 2, 64_000, 1024).unwrap();
        let gpus = node.status("uid").inventory().unwrap();
        assert!(gpus.iter().all(|gpu| gpu.kind.memory().0 % 1000 == 0 && gpu.kind.offers().len() == 2));
        assert_eq!(node.node()["metadata"]["labels"][PRODUCT_LABEL], "T4");
    }

    #[test]
    fn no_two_nodes_have_a_gpu_in_common() {
        let uuids = |n| HollowNode::mixed(n).unwrap().gpus.into_iter().map(|gpu| gpu.uuid);
        let all: std::collections::BTreeSet<_> = (0..100).flat_map(uuids).collect();
        assert_eq!(all.len(), 800);
    }
}
