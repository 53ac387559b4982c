//! Nodes that do not exist: what a node would offer that somebody thinks of making.
//!
//! An autoscaler asks what would fit a node of a group that it could grow, and describes it by an API object. Such
//! a node has no GpuNode. Where the cluster has a node of the same GPUs, it is judged as that one when idle; else by
//! the counts that the object tells.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde_json::Value;
use stowage_shared::contract::RESERVE_LABEL;
use stowage_shared::occupancy::GpuState;
use stowage_shared::pack::{Cost, Demand, NoFit};
use stowage_shared::pod::Quantity;
use stowage_shared::policy::{Occupied, Rank, Reserve, Want};
use stowage_shared::resource::ResourceName;

use super::memo::Judgement;
use crate::state::{GpuNames, NodeGpus, Snapshot};

/// NVIDIA's label for the GPU model of a node.
const PRODUCT_LABEL: &str = "nvidia.com/gpu.product";
/// What fits by its counts alone is chosen last: it is not known what it takes away.
const BY_COUNTS: Rank = Rank {
    in_use: u64::MAX,
    market: i64::MAX,
    cost: Cost {
        lost: u64::MAX,
        wakes_node: true,
        wakes_gpus: u32::MAX,
        returns_less: i64::MAX,
        room_left: u32::MAX,
    },
};

/// A node that does not exist.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Template {
    /// The GPU model, as NVIDIA's label spells it; empty where it is not told.
    product: String,
    /// Its GPUs, as its kubelet would count them.
    allocatable: BTreeMap<ResourceName, u64>,
    /// What it would keep for large pods.
    reserve: Reserve,
}

impl Template {
    /// Reads an API object of a node. What is odd in it is not there.
    pub(super) fn of(object: &Value, names: &GpuNames) -> Self {
        let product = object["metadata"]["labels"][PRODUCT_LABEL].as_str().unwrap_or_default().to_owned();
        let allocatable = object["status"]["allocatable"].as_object().into_iter().flatten();
        let count = |(name, quantity): (&String, &Value)| {
            let resource: ResourceName = name.parse().ok().filter(|_| names.is_gpu(name))?;
            let count = Quantity::deserialize(quantity).ok()?.as_count().filter(|&count| count > 0)?;
            Some((resource, count))
        };
        let reserve = Reserve::of(object["metadata"]["labels"][RESERVE_LABEL].as_str());
        Self { product, allocatable: allocatable.filter_map(count).collect(), reserve }
    }

    /// Whether it would have GPUs.
    pub(super) fn has_gpus(&self) -> bool {
        !self.allocatable.is_empty()
    }

    /// Whether what a pod wants would fit it. Where only its counts are known, they alone are looked at.
    pub(super) fn judge(&self, snapshot: &Snapshot, want: &Want, namespace: &str) -> Judgement {
        match self.twin(snapshot) {
            Some(gpus) => {
                let idle = Occupied { gpus, reserve: self.reserve, ..Occupied::default() };
                Judgement::of(idle.rank(want, namespace, &snapshot.mix))
            }
            None => self.judge_by_counts(&want.demand),
        }
    }

    fn judge_by_counts(&self, demand: &Demand) -> Judgement {
        for (resource, &wanted) in &demand.devices {
            let most = self.allocatable.get(resource).copied().unwrap_or(0);
            if most == 0 {
                return Judgement::no(&NoFit::NotOffered(resource.clone()).into());
            }
            if most < u64::from(wanted) {
                return Judgement::no(&NoFit::TooFew(resource.clone()).into());
            }
        }
        Judgement::Fits(BY_COUNTS)
    }

    /// The GPUs of a node that would be like this one, as if nobody used them.
    fn twin(&self, snapshot: &Snapshot) -> Option<Vec<GpuState>> {
        // Nodes of one class are alike.
        let mut seen = std::collections::BTreeSet::new();
        snapshot.nodes().find_map(|node| match &node.gpus {
            NodeGpus::Known(known) if seen.insert(known.class) => {
                let idle: Vec<GpuState> =
                    known.now.gpus.iter().map(|state| GpuState::idle(state.gpu.clone())).collect();
                self.is_like(&idle).then_some(idle)
            }
            _ => None,
        })
    }

    fn is_like(&self, idle: &[GpuState]) -> bool {
        // The label has dashes for spaces, and may say behind the model how it is shared.
        let is_product = |model: &str| self.product.starts_with(&model.replace(' ', "-"));
        let offers = || idle.iter().flat_map(|state| state.gpu.kind.offers());
        idle.iter().all(|state| is_product(state.gpu.kind.model()))
            && offers().all(|offer| self.allocatable.contains_key(&offer.resource))
            && self.allocatable.iter().all(|(resource, &count)| {
                idle.iter().map(|state| u64::from(state.copies(resource))).sum::<u64>() == count
            })
    }
}
