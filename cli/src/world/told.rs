//! A GpuNode, as far as it can be believed.

use std::collections::BTreeMap;
use std::sync::Arc;

use jiff::Timestamp;
use stowage_shared::contract::GPU_NODE_STALE;
use stowage_shared::gpu::Gpu;
use stowage_shared::gpu_node::{AllocationStatus, GpuNodeStatus, UtilizationStatus};
use stowage_shared::mig::ProfileName;
use stowage_shared::units::MemoryMib;

/// A GpuNode.
#[derive(Debug, Clone)]
pub struct Told {
    /// Its GPUs, by index; empty where it cannot be believed.
    pub gpus: Vec<Arc<Gpu>>,
    /// Who holds what.
    pub allocations: Vec<AllocationStatus>,
    /// The memory of its MIG profiles; of several models with a profile of that name, the least.
    pub profiles: BTreeMap<ProfileName, MemoryMib>,
    /// How busy its GPUs are, by index, as far as they tell.
    pub utilization: BTreeMap<u32, UtilizationStatus>,
    /// The UID of the node it is about.
    pub node_uid: String,
    /// When it was written.
    pub observed_at: Option<Timestamp>,
    /// Why it cannot be believed.
    pub wrong: Option<String>,
}

impl Told {
    /// Reads a GpuNode; `None` for one that is not written yet: a plugin makes the object first and writes its
    /// status next.
    pub fn of(status: &Result<GpuNodeStatus, String>) -> Option<Self> {
        let empty = Self {
            gpus: Vec::new(),
            allocations: Vec::new(),
            profiles: BTreeMap::new(),
            utilization: BTreeMap::new(),
            node_uid: String::new(),
            observed_at: None,
            wrong: None,
        };
        let status = match status {
            Err(why) => return Some(Self { wrong: Some(why.clone()), ..empty }),
            Ok(status) if status.observed_at.is_empty() && status.gpus.is_empty() => return None,
            Ok(status) => status,
        };
        let Ok(observed_at) = status.observed_at.parse::<Timestamp>() else {
            let why =
                format!("observedAt is {:?}, not a time such as 2026-01-31T12:00:00Z", status.observed_at);
            return Some(Self { wrong: Some(why), ..empty });
        };
        let told = match status.inventory() {
            Ok(mut gpus) => {
                gpus.sort_by_key(|gpu| gpu.index);
                Self { gpus: gpus.into_iter().map(Arc::new).collect(), ..empty }
            }
            Err(error) => Self { wrong: Some(format!("{:#}", anyhow::Error::new(error))), ..empty },
        };
        let mut profiles = BTreeMap::new();
        for profile in status.geometries.iter().flat_map(|geometry| &geometry.profiles) {
            let least = profiles.entry(profile.name.clone()).or_insert(profile.memory_mib);
            *least = profile.memory_mib.min(*least);
        }
        let busy = |gpu: &stowage_shared::gpu_node::GpuStatus| Some((gpu.index, gpu.utilization?));
        Some(Self {
            allocations: status.allocations.clone(),
            profiles,
            utilization: status.gpus.iter().filter_map(busy).collect(),
            node_uid: status.node_uid.clone(),
            observed_at: Some(observed_at),
            ..told
        })
    }

    /// Whether it is too old to be believed.
    pub fn is_old(&self, now: Timestamp) -> bool {
        let age = self.observed_at.map(|at| now.duration_since(at));
        age.is_none_or(|age| std::time::Duration::try_from(age).is_ok_and(|age| age >= GPU_NODE_STALE))
    }
}
