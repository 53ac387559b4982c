//! What this node offers: the GPUs that NVML shows, under the names that the configuration gives them.
//!
//! Pure: a [`Reading`] and the rules go in, an [`Inventory`] comes out. It changes only with a new reading, so
//! everybody else holds it in an `Arc`, and `Allocate` is a look-up in it.

mod health;
mod offers;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use stowage_shared::device_id::DeviceId;
use stowage_shared::gpu::{Gpu, GpuKindError, GpuUuid, Offer, locate};
use stowage_shared::gpu_node::{GeometryStatus, ProfileStatus};
use stowage_shared::mig::ProfileName;
use stowage_shared::resource::ResourceName;

use crate::config::{AllocationPolicy, Config, MigStrategy, ResourceNames, Sharing};
use crate::nvml::{GpuReading, Reading};

pub use health::Judge;

/// How NVML's GPUs become offers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OfferRules {
    /// How MIG devices are offered.
    pub mig_strategy: MigStrategy,
    /// GPUs, by UUID or NVML's index, that MIG on demand leaves alone.
    pub mig_static: Vec<String>,
    /// Whether a GPU is offered in several forms at once.
    pub elastic: bool,
    /// Names other than the usual ones.
    pub names: ResourceNames,
    /// Which resources are shared.
    pub sharing: Option<Sharing>,
    /// Which shares are handed out first.
    pub allocation_policy: AllocationPolicy,
}

/// Which shares of a resource one container gets, where no plan says.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct ShareRules {
    /// Which GPU is taken first.
    pub policy: AllocationPolicy,
    /// Whether they must be of different GPUs or MIG devices.
    pub distinct_gpus: bool,
}

impl OfferRules {
    /// The rules of a configuration.
    pub fn of(config: &Config) -> Self {
        Self {
            mig_strategy: config.mig_strategy,
            mig_static: config.mig_static.clone(),
            elastic: config.elastic_gpus,
            names: config.names.clone(),
            sharing: config.sharing.clone(),
            allocation_policy: config.allocation_policy,
        }
    }
}

/// Why the GPUs of this node cannot be offered as configured.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum OfferError {
    /// Strategy `single` with GPUs in different MIG modes.
    #[error(
        "migStrategy is single, which wants all GPUs in MIG mode or none: GPU {with} is, GPU {without} is not. Use mixed, or switch MIG mode"
    )]
    Modes {
        /// A GPU in MIG mode.
        with: u32,
        /// One that is not.
        without: u32,
    },
    /// Strategy `single` with a GPU that has not been cut.
    #[error(
        "migStrategy is single, which wants MIG devices on each GPU: GPU {0} has none. Create them, or use mixed"
    )]
    NoDevices(u32),
    /// Strategy `single` with different slices.
    #[error(
        "migStrategy is single, which wants one MIG profile on the whole node: there are {0} and {1}. Use mixed, or cut all GPUs alike"
    )]
    Profiles(ProfileName, ProfileName),
    /// Strategy `single` with a compute instance that leaves part of its GPU instance.
    #[error(
        "migStrategy is single, which wants compute instances that fill their GPU instance: {0} does not. Use mixed, which leaves it out, or cut it anew"
    )]
    PartOfInstance(String),
    /// MPS with slices.
    #[error(
        "sharing.mps shares whole GPUs, and {0} is a MIG device: use sharing.timeSlicing, or switch MIG mode off"
    )]
    MpsOnMig(String),
    /// Offers that cannot be.
    #[error("GPU {index} cannot be offered")]
    Kind {
        /// NVML's index.
        index: u32,
        /// Why.
        source: GpuKindError,
    },
}

/// One device as the kubelet lists it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ListedDevice {
    /// Its id.
    pub id: String,
    /// Whether it may be handed out.
    pub healthy: bool,
    /// The NUMA node of its GPU.
    pub numa_node: Option<u32>,
}

/// What `Allocate` must know of a part, by the part's UUID.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PartDetail {
    /// As NVIDIA numbers it: `5`, or `5:0` for a MIG device.
    pub index: String,
    /// The number in `/dev/nvidia<minor>` of its GPU.
    pub minor: u32,
    /// GPU instance and compute instance of a MIG device.
    pub instances: Option<(u32, u32)>,
    /// Where its GPU is on the PCI bus, as NVML writes it.
    pub bus_id: String,
    /// Whether it can render: a whole GPU, or a MIG device that was made for it (`+gfx`).
    pub has_graphics: bool,
}

/// What this node offers.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Inventory {
    gpus: Vec<Arc<Gpu>>,
    geometries: Vec<GeometryStatus>,
    parts: HashMap<String, PartDetail>,
    /// The GPUs that are cut on demand, by UUID.
    cut: HashMap<String, PartDetail>,
    share_rules: ShareRules,
    remarks: Vec<String>,
    /// Why parts must not be handed out, by UUID.
    sick: BTreeMap<String, String>,
    /// Why it is not known how the GPUs are.
    unknown: Option<String>,
}

impl Inventory {
    /// Makes offers of a reading.
    ///
    /// # Errors
    /// [`OfferError`], where the strategy does not fit how the GPUs are cut.
    pub fn build(reading: &Reading, rules: &OfferRules) -> Result<Self, OfferError> {
        offers::build(reading, rules)
    }

    /// These GPUs, whatever a machine has.
    #[cfg(test)]
    pub(crate) fn of_gpus(gpus: Vec<Gpu>) -> Self {
        Self { gpus: gpus.into_iter().map(Arc::new).collect(), ..Self::default() }
    }

    /// The GPUs, by index.
    pub fn gpus(&self) -> &[Arc<Gpu>] {
        &self.gpus
    }

    /// How the models that have MIG can be cut, once for each.
    pub fn geometries(&self) -> &[GeometryStatus] {
        &self.geometries
    }

    /// What is not offered and why, for the log.
    pub fn remarks(&self) -> &[String] {
        &self.remarks
    }

    /// The resources that have devices, or could have some.
    pub fn resources(&self) -> BTreeSet<ResourceName> {
        let offers = self.gpus.iter().flat_map(|gpu| gpu.kind.offers());
        offers.map(|offer| offer.resource.clone()).collect()
    }

    /// The resources that have devices which are there already, with all of them in NVML's order.
    pub fn devices(&self) -> BTreeMap<ResourceName, Vec<ListedDevice>> {
        let mut devices: BTreeMap<ResourceName, Vec<ListedDevice>> = BTreeMap::new();
        for gpu in &self.gpus {
            for (offer, Offer { resource, .. }) in gpu.kind.offers().iter().enumerate() {
                let listed = gpu.device_ids(offer).map(|id| ListedDevice {
                    id: id.to_string(),
                    healthy: self.is_well(gpu, offer),
                    numa_node: gpu.numa_node,
                });
                devices.entry(resource.clone()).or_default().extend(listed);
            }
        }
        devices
    }

    /// Which shares go together.
    pub fn share_rules(&self) -> ShareRules {
        self.share_rules
    }

    /// The part of which these devices are two shares or more, if there is one.
    pub fn same_part_twice(&self, resource: &ResourceName, ids: &[String]) -> Option<String> {
        let mut seen = BTreeSet::new();
        let shares = ids.iter().filter(|id| self.is_share(resource, id)).filter_map(|id| id.parse().ok());
        shares.map(|id: DeviceId| id.part().to_owned()).find(|part| !seen.insert(part.clone()))
    }

    /// Whether a device is a share.
    pub fn is_share(&self, resource: &ResourceName, id: &str) -> bool {
        let gpus = || self.gpus.iter().map(|gpu| &**gpu);
        let place = id.parse().ok().and_then(|id| locate(gpus(), resource, &id));
        place.is_some_and(|(gpu, offer)| self.gpus[gpu].kind.offers()[offer].replicas.is_some())
    }

    /// What `Allocate` must know of every part, by UUID, in no order.
    pub fn parts(&self) -> impl Iterator<Item = (&str, &PartDetail)> {
        self.parts.iter().map(|(uuid, detail)| (uuid.as_str(), detail))
    }

    /// The GPUs that are cut on demand, by UUID: what their slices inherit.
    pub fn cut_on_demand(&self, gpu: &GpuUuid) -> Option<&PartDetail> {
        self.cut.get(gpu.as_str())
    }

    /// Whether slices are built here when somebody has got them.
    pub fn has_slices_on_demand(&self) -> bool {
        !self.cut.is_empty()
    }

    /// What `Allocate` must know of a part.
    pub fn part(&self, uuid: &str) -> Option<&PartDetail> {
        self.parts.get(uuid)
    }
}

/// A model's geometry, as it is published.
fn geometry_status(gpu: &GpuReading) -> Option<GeometryStatus> {
    let geometry = &gpu.mig.as_ref()?.geometry;
    let profiles: Vec<ProfileStatus> = geometry
        .profiles
        .iter()
        .map(|profile| ProfileStatus {
            name: profile.name.clone(),
            size: profile.size,
            starts: profile.starts.clone(),
            memory_mib: profile.memory,
            media_engines: profile.media_engines,
        })
        .collect();
    (!profiles.is_empty()).then(|| GeometryStatus {
        model: gpu.model.clone(),
        memory_slices: geometry.memory_slices,
        compute_slices: geometry.compute_slices,
        profiles,
    })
}
