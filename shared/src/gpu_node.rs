//! The `GpuNode` API: what a node's plugin tells the cluster about its GPUs.
//!
//! Plain serde structs; the edges wrap them in an API object. The plugin writes them, the extender and the
//! command line read them. A GpuNode comes over the network and anybody with the right may edit it, so
//! [`GpuNodeStatus::inventory`] checks each value and its bounds before it becomes a [`Gpu`].

use std::collections::BTreeMap;
use std::sync::Arc;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::contract::GPUS_PER_NODE_MAX;
use crate::gpu::{Gpu, GpuKind, GpuKindError, GpuUuidError, Offer, Part};
use crate::mig::{MEMORY_SLICES_MAX, MigSlice, ProfileName};
use crate::resource::ResourceName;
use crate::units::MemoryMib;

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
    /// When the plugin last wrote this, RFC 3339. Older than 5 minutes means stale.
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

/// Why a GpuNode's GPUs are not believed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InventoryError {
    /// More GPUs than a node can have.
    #[error("{0} GPUs: at most {GPUS_PER_NODE_MAX} are possible")]
    TooManyGpus(usize),
    /// A UUID that is none.
    #[error(transparent)]
    Uuid(#[from] GpuUuidError),
    /// The same GPU twice.
    #[error("GPU {0} is listed twice")]
    Twice(String),
    /// A slice outside any GPU.
    #[error("slice {0} lies outside every GPU")]
    Slice(String),
    /// MIG on demand without its geometry.
    #[error("GPU {0} has MIG on demand, and no geometry tells how its model {1:?} can be cut")]
    NoGeometry(String, String),
    /// Nearer to more GPUs than a node can have.
    #[error("GPU {0} tells how near {1} GPUs are: at most {GPUS_PER_NODE_MAX} are possible")]
    Near(String, usize),
    /// Impossible offers.
    #[error("GPU {0}")]
    Kind(String, #[source] GpuKindError),
}

impl GpuNodeStatus {
    /// The node's GPUs, checked.
    ///
    /// # Errors
    /// [`InventoryError`] for the first thing that cannot be true.
    pub fn inventory(&self) -> Result<Vec<Gpu>, InventoryError> {
        if self.gpus.len() > GPUS_PER_NODE_MAX {
            return Err(InventoryError::TooManyGpus(self.gpus.len()));
        }
        // GPUs of one model and configuration share their kind.
        let mut kinds: BTreeMap<Vec<Offer>, Vec<Arc<GpuKind>>> = BTreeMap::new();
        let mut gpus: Vec<Gpu> = Vec::with_capacity(self.gpus.len());
        for status in &self.gpus {
            let uuid = status.uuid.parse()?;
            if gpus.iter().any(|gpu| gpu.uuid == uuid) {
                return Err(InventoryError::Twice(status.uuid.clone()));
            }
            let foreign: Vec<MigSlice> =
                status.foreign_instances.iter().map(SliceStatus::to_slice).collect::<Result<_, _>>()?;
            let (offers, part_uuids) = self.offers(status, &foreign)?;
            if status.near.len() > GPUS_PER_NODE_MAX {
                return Err(InventoryError::Near(status.uuid.clone(), status.near.len()));
            }
            let why = |id: &String| status.offers.iter().find(|offer| &offer.uuid == id)?.unhealthy.clone();
            let sick =
                part_uuids.iter().enumerate().filter_map(|(offer, id)| Some((offer, why(id)?))).collect();
            let known = kinds.entry(offers.clone()).or_default();
            let same =
                |kind: &&Arc<GpuKind>| kind.model() == status.model && kind.memory() == status.memory_mib;
            let kind = match known.iter().find(same) {
                Some(kind) => kind.clone(),
                None => {
                    let kind = GpuKind::new(status.model.clone(), status.memory_mib, offers)
                        .map_err(|error| InventoryError::Kind(status.uuid.clone(), error))?;
                    known.push(Arc::new(kind));
                    known[known.len() - 1].clone()
                }
            };
            gpus.push(Gpu {
                uuid,
                index: status.index,
                numa_node: status.numa_node,
                near: status.near.clone(),
                kind,
                part_uuids,
                foreign,
                unhealthy: status.unhealthy.clone(),
                sick,
            });
        }
        Ok(gpus)
    }

    /// What a GPU is offered as, with the ids of the parts.
    fn offers(
        &self,
        gpu: &GpuStatus,
        foreign: &[MigSlice],
    ) -> Result<(Vec<Offer>, Vec<String>), InventoryError> {
        let listed = gpu.offers.iter().map(|offer| Ok((offer.to_offer()?, offer.uuid.clone())));
        let mut listed: Vec<(Offer, String)> = listed.collect::<Result<_, InventoryError>>()?;
        if gpu.mig_on_demand {
            let missing = || InventoryError::NoGeometry(gpu.uuid.clone(), gpu.model.clone());
            let geometry =
                self.geometries.iter().find(|known| known.model == gpu.model).ok_or_else(missing)?;
            // In the geometry's order, booked or not: so GPUs of one model go on sharing their kind.
            let id =
                |offer: &Offer| listed.iter().find(|(known, _)| known == offer).map(|(_, id)| id.clone());
            let on_demand = Offer::on_demand(geometry.slices()?, foreign).into_iter();
            let booked: Vec<(Offer, String)> = on_demand
                .map(|offer| {
                    let id = id(&offer).unwrap_or_default();
                    (offer, id)
                })
                .collect();
            listed.retain(|(offer, _)| !booked.iter().any(|(known, _)| known == offer));
            listed.extend(booked);
        }
        Ok(listed.into_iter().unzip())
    }
}

impl GeometryStatus {
    /// Every slice that could exist, each by itself.
    fn slices(&self) -> Result<Vec<MigSlice>, InventoryError> {
        let of = |profile: &ProfileStatus, start: u8| SliceStatus {
            profile: profile.name.clone(),
            start,
            size: profile.size,
            media_engines: profile.media_engines,
        };
        self.profiles
            .iter()
            .flat_map(|profile| profile.starts.iter().map(move |&start| of(profile, start).to_slice()))
            .collect()
    }
}

impl SliceStatus {
    fn of(slice: &MigSlice) -> Self {
        Self {
            profile: slice.profile.clone(),
            start: slice.start,
            size: slice.size,
            media_engines: slice.media_engines,
        }
    }

    fn to_slice(&self) -> Result<MigSlice, InventoryError> {
        let end = u16::from(self.start) + u16::from(self.size);
        if self.size == 0 || end > u16::from(MEMORY_SLICES_MAX) {
            return Err(InventoryError::Slice(format!("{} at {}", self.profile, self.start)));
        }
        Ok(MigSlice {
            profile: self.profile.clone(),
            start: self.start,
            size: self.size,
            media_engines: self.media_engines,
        })
    }
}

impl GpuStatus {
    /// What the plugin publishes of a GPU.
    pub fn of(gpu: &Gpu) -> Self {
        let parts = gpu.kind.offers().iter().zip(&gpu.part_uuids).enumerate();
        let offers = parts.filter(|(_, (_, id))| !id.is_empty()).map(|(at, (offer, id))| OfferStatus {
            unhealthy: gpu.sick.get(&at).cloned(),
            ..OfferStatus::of(offer, id)
        });
        Self {
            uuid: gpu.uuid.to_string(),
            index: gpu.index,
            model: gpu.kind.model().to_owned(),
            memory_mib: gpu.kind.memory(),
            numa_node: gpu.numa_node,
            near: gpu.near.clone(),
            unhealthy: gpu.unhealthy.clone(),
            offers: offers.collect(),
            mig_on_demand: (0..gpu.part_uuids.len()).any(|offer| gpu.is_on_demand(offer)),
            foreign_instances: gpu.foreign.iter().map(SliceStatus::of).collect(),
            utilization: None,
        }
    }
}

impl OfferStatus {
    fn of(offer: &Offer, uuid: &str) -> Self {
        let slice = match &offer.part {
            Part::Whole => None,
            Part::Slice(slice) => Some(SliceStatus::of(slice)),
        };
        Self {
            resource: offer.resource.clone(),
            uuid: uuid.to_owned(),
            slice,
            replicas: offer.replicas,
            distinct: offer.distinct,
            capped: offer.capped,
            unhealthy: None,
        }
    }

    fn to_offer(&self) -> Result<Offer, InventoryError> {
        let part = match &self.slice {
            None => Part::Whole,
            Some(slice) => Part::Slice(slice.to_slice()?),
        };
        let Self { resource, replicas, distinct, capped, .. } = self;
        Ok(Offer {
            resource: resource.clone(),
            part,
            replicas: *replicas,
            distinct: *distinct,
            capped: *capped,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn status(text: &str) -> GpuNodeStatus {
        serde_json::from_str(text).unwrap()
    }

    const TWO: &str = r#"{"gpus":[
        {"uuid":"GPU-a","index":0,"model":"M","memoryMib":40960,"offers":[{"resource":"nvidia.com/gpu","uuid":"GPU-a"}]},
        {"uuid":"GPU-b","index":1,"model":"M","memoryMib":40960,"numaNode":1,"offers":[{"resource":"nvidia.com/gpu","uuid":"GPU-b"}]}]}"#;

    #[test]
    fn gpus_of_one_model_share_their_kind() {
        let gpus = status(TWO).inventory().unwrap();
        assert!(Arc::ptr_eq(&gpus[0].kind, &gpus[1].kind));
        assert_eq!(gpus[1].numa_node, Some(1));
    }

    #[test]
    fn what_is_published_is_what_is_read() {
        let read = status(TWO);
        let again: Vec<GpuStatus> = read.inventory().unwrap().iter().map(GpuStatus::of).collect();
        assert_eq!(again, read.gpus);
    }

    #[test]
    fn links_distinct_shares_and_failed_slices_are_read_as_they_are_written() {
        let text = r#"{"gpus":[
            {"uuid":"GPU-a","index":0,"model":"M","memoryMib":40960,"offers":[
                {"resource":"nvidia.com/gpu.shared","uuid":"GPU-a","replicas":4,"distinct":true}]},
            {"uuid":"GPU-b","index":1,"model":"M","memoryMib":40960,"near":[210],"offers":[
                {"resource":"nvidia.com/mig-1g.5gb","uuid":"MIG-x","slice":{"profile":"1g.5gb","start":0,"size":1}},
                {"resource":"nvidia.com/mig-1g.5gb","uuid":"MIG-y","slice":{"profile":"1g.5gb","start":1,"size":1},"unhealthy":"XID 94"}]}]}"#;
        let read = status(text);
        let gpus = read.inventory().unwrap();
        assert_eq!(crate::topology::nearness(&gpus[0], &gpus[1]), 210);
        assert!(gpus[0].kind.offers()[0].distinct);
        assert_eq!([0, 1].map(|offer| gpus[1].why_not(offer)), [None, Some("XID 94")]);
        let again: Vec<GpuStatus> = gpus.iter().map(GpuStatus::of).collect();
        assert_eq!(again, read.gpus);
        let many = text.replace("[210]", &format!("{:?}", [1; 65]));
        assert!(status(&many).inventory().unwrap_err().to_string().contains("at most 64"));
    }

    #[test]
    fn slices_on_demand_come_from_the_geometry_and_the_booked_ones_have_their_token() {
        let text = r#"{
            "geometries":[{"model":"M","memorySlices":4,"computeSlices":4,"profiles":[
                {"name":"2g.12gb","size":2,"starts":[0,2],"memoryMib":11968},
                {"name":"1g.6gb+me","size":1,"starts":[0,1],"memoryMib":5952,"mediaEngines":true}]}],
            "gpus":[
                {"uuid":"GPU-a","index":0,"model":"M","memoryMib":24576,"migOnDemand":true,
                 "offers":[{"resource":"nvidia.com/mig-2g.12gb","uuid":"GPU-a::2g.12gb::1","slice":{"profile":"2g.12gb","start":2,"size":2}}]},
                {"uuid":"GPU-b","index":1,"model":"M","memoryMib":24576,"migOnDemand":true,
                 "foreignInstances":[{"profile":"2g.12gb","start":0,"size":2}]},
                {"uuid":"GPU-c","index":2,"model":"M","memoryMib":24576,"migOnDemand":true}]}"#;
        let read = status(text);
        let gpus = read.inventory().unwrap();
        let ids = ["", "GPU-a::2g.12gb::1", "", ""];
        assert_eq!(gpus[0].part_uuids, ids);
        assert_eq!(gpus[1].part_uuids, [""], "one 2g.12gb is left");
        assert!(Arc::ptr_eq(&gpus[0].kind, &gpus[2].kind));
        let (resource, token) = ("nvidia.com/mig-2g.12gb".parse().unwrap(), ids[1].parse().unwrap());
        assert_eq!(crate::gpu::locate(&gpus, &resource, &token), Some((0, 1)));
        let again: Vec<GpuStatus> = gpus.iter().map(GpuStatus::of).collect();
        assert_eq!(again, read.gpus);
        let error = status(&text.replace(r#""model":"M","memorySlices""#, r#""model":"N","memorySlices""#))
            .inventory();
        assert!(error.unwrap_err().to_string().contains("no geometry"));
    }

    #[test]
    fn impossible_inventories_say_why() {
        for (text, want) in [
            (TWO.replace("GPU-b", "GPU-a"), "listed twice"),
            (TWO.replace("GPU-b", "b"), "not a GPU UUID"),
            (TWO.replace(r#""uuid":"GPU-b"}]"#, r#""uuid":"GPU-b","replicas":0}]"#), "GPU GPU-b"),
            (
                TWO.replace(
                    r#""uuid":"GPU-b"}]"#,
                    r#""uuid":"MIG-b","slice":{"profile":"1g.5gb","start":40,"size":1}}]"#,
                ),
                "outside every GPU",
            ),
        ] {
            let error = status(&text).inventory().unwrap_err().to_string();
            assert!(error.contains(want), "{error}");
        }
    }
}
