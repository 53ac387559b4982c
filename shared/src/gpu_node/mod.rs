//! The `GpuNode` API: what a node's plugin tells the cluster about its GPUs.
//!
//! Plain serde structs; the edges wrap them in an API object. The plugin writes them, the extender and the
//! command line read them. A GpuNode comes over the network and anybody with the right may edit it, so
//! [`GpuNodeStatus::inventory`] checks each value and its bounds before it becomes a [`Gpu`](crate::gpu::Gpu).

mod inventory;
#[cfg(test)]
mod tests;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::mig::ProfileName;
use crate::resource::ResourceName;
use crate::units::MemoryMib;

pub use inventory::InventoryError;

/// The kind's name.
pub const KIND: &str = "GpuNode";
/// The resource's name in URLs.
pub const PLURAL: &str = "gpunodes";

/// Nothing is configured through a GpuNode: it only tells.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct GpuNodeSpec {}

/// What the plugin of this node sees.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct GpuNodeStatus {
    /// When the plugin last wrote this, RFC 3339. Older than 10 minutes means stale.
    #[serde(default)]
    pub observed_at: String,
    /// The plugin's version.
    #[serde(default)]
    pub plugin_version: String,
    /// The UID of the Node this is about: a node that was deleted and made again is another node.
    #[serde(default)]
    pub node_uid: String,
    /// Numbers for `kubectl get gpunodes`.
    #[serde(default)]
    pub summary: Summary,
    /// How the GPU models of this node can be cut, once per model.
    #[serde(default)]
    pub geometries: Vec<GeometryStatus>,
    /// The GPUs, by NVML's index.
    #[serde(default)]
    pub gpus: Vec<GpuStatus>,
    /// Who holds which devices, as the kubelet says.
    #[serde(default)]
    pub allocations: Vec<AllocationStatus>,
}

/// Numbers for people.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct Summary {
    /// GPUs.
    pub gpus: u32,
    /// GPUs of which something is in use.
    pub in_use: u32,
    /// GPUs that are unhealthy.
    pub unhealthy: u32,
}

/// How a GPU model can be cut into MIG slices.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct GeometryStatus {
    /// NVML's product name.
    pub model: String,
    /// Memory slices: the unit of starts and sizes.
    pub memory_slices: u8,
    /// Compute slices.
    pub compute_slices: u8,
    /// The profiles.
    pub profiles: Vec<ProfileStatus>,
}

/// One MIG profile of a model.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ProfileStatus {
    /// NVIDIA's name, e.g. `1g.5gb`.
    pub name: ProfileName,
    /// Memory slices that one instance takes.
    pub size: u8,
    /// The memory slices at which one may start.
    pub starts: Vec<u8>,
    /// Memory of one instance, in MiB.
    pub memory_mib: MemoryMib,
    /// Whether one takes the GPU's shared media engines.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub media_engines: bool,
}

/// One GPU.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct GpuStatus {
    /// NVML's UUID.
    pub uuid: String,
    /// NVML's index.
    pub index: u32,
    /// NVML's product name.
    pub model: String,
    /// Total memory, in MiB.
    pub memory_mib: MemoryMib,
    /// The NUMA node it hangs on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub numa_node: Option<u32>,
    /// How near the GPUs of lower index are, by index, as NVIDIA's plugin scores it: 100 for each NVLink between the
    /// two, and 10 (another socket) to 60 (the same board) for their way over PCIe.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub near: Vec<u16>,
    /// Why it must not be used; absent while it is healthy.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unhealthy: Option<String>,
    /// What it is offered as; with MIG on demand, only the slices that somebody has booked.
    #[serde(default)]
    pub offers: Vec<OfferStatus>,
    /// Whether every other slice of its model's geometry is built as soon as a pod gets it.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub mig_on_demand: bool,
    /// MIG instances that Stowage did not build, where it builds some.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub foreign_instances: Vec<SliceStatus>,
    /// How busy it is; absent where its plugin does not tell.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub utilization: Option<UtilizationStatus>,
}

/// How busy a GPU is, smoothed over a minute or so. Changes by ten points or more are told, once a minute at most:
/// who wants it finer asks the plugin's metrics.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct UtilizationStatus {
    /// How much of the time a kernel ran, in per cent; absent where the GPU does not tell, as in MIG mode.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gpu_percent: Option<u8>,
    /// How much of its memory is used, in per cent.
    pub memory_percent: u8,
}

/// One part of a GPU under a resource name.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct OfferStatus {
    /// What pods ask for.
    pub resource: ResourceName,
    /// The UUID of the part, the GPU's or the MIG device's; or the token that the slice was booked for.
    pub uuid: String,
    /// The slice; absent where the part is the whole GPU.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub slice: Option<SliceStatus>,
    /// Into how many shares the part is divided; absent where one pod has it for itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub replicas: Option<u32>,
    /// Whether one pod may have only one of its shares.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub distinct: bool,
    /// Whether no share may be larger than an equal part, as MPS's daemon has it unless it is told otherwise.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub capped: bool,
    /// Why it must not be used although its GPU may be; absent while it is healthy.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unhealthy: Option<String>,
}

/// A MIG slice.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct SliceStatus {
    /// Its profile.
    pub profile: ProfileName,
    /// Its first memory slice.
    pub start: u8,
    /// How many memory slices it takes.
    pub size: u8,
    /// Whether it takes the GPU's shared media engines.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub media_engines: bool,
}

/// Devices that a container holds.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct AllocationStatus {
    /// The pod's namespace.
    pub namespace: String,
    /// The pod's name.
    pub pod: String,
    /// The pod's UID, from the pod watch (the kubelet does not tell it); empty while it is not known.
    #[serde(default)]
    pub uid: String,
    /// The container's name.
    pub container: String,
    /// The resource.
    pub resource: ResourceName,
    /// The device ids.
    pub device_ids: Vec<String>,
}
