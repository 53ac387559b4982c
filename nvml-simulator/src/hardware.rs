//! What never changes while a node is up: its GPUs and its driver.

use stowage_shared::mig::{Geometry, Profile};
use stowage_shared::models::Model;
use stowage_shared::units::MemoryMib;

use crate::derive;

/// A node's hardware and driver.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hardware {
    /// The driver's version, e.g. `570.86.15`.
    pub driver_version: String,
    /// The newest CUDA version of that driver.
    pub cuda: CudaVersion,
    /// The GPUs, in NVML's order.
    pub gpus: Vec<GpuHardware>,
    /// The NVLink fabric that all of them belong to.
    pub fabric: Option<Fabric>,
    pub(crate) digest: String,
}

/// One GPU.
#[derive(Debug, Clone)]
pub struct GpuHardware {
    /// NVML's index, which is its minor number too (`/dev/nvidia<minor>`).
    pub index: u32,
    /// Which model.
    pub model: &'static Model,
    /// `GPU-<uuid>`.
    pub uuid: String,
    /// Total memory.
    pub memory: MemoryMib,
    /// The NUMA node it is attached to.
    pub numa_node: Option<u32>,
    /// The PCIe switch it is attached to.
    pub pcie_switch: Option<u32>,
    /// The far end of each of its NVLinks.
    pub links: Vec<LinkEnd>,
    /// How MIG can cut it; `None` without MIG.
    pub geometry: Option<Geometry>,
}

/// An NVLink fabric of several nodes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Fabric {
    /// The cluster's UUID.
    pub cluster_uuid: [u8; 16],
    /// The part of it whose GPUs reach each other.
    pub clique_id: u32,
}

/// What an NVLink leads to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LinkEnd {
    /// The GPU of that index.
    Gpu(u32),
    /// The NVSwitch of that number.
    Switch(u32),
}

impl PartialEq for GpuHardware {
    fn eq(&self, other: &Self) -> bool {
        // A model is one row of a table: its key says all.
        (self.index, self.model.key, &self.uuid, self.memory)
            == (other.index, other.model.key, &other.uuid, other.memory)
            && (self.numa_node, self.pcie_switch, &self.links)
                == (other.numa_node, other.pcie_switch, &other.links)
    }
}

impl Eq for GpuHardware {}

impl Hardware {
    /// The GPU of that index.
    pub fn gpu(&self, index: u32) -> Option<&GpuHardware> {
        self.gpus.get(usize::try_from(index).ok()?)
    }

    /// The index of the GPU of that UUID.
    pub fn index_of(&self, uuid: &str) -> Option<u32> {
        self.gpus.iter().find(|gpu| gpu.uuid == uuid).map(|gpu| gpu.index)
    }
}

impl GpuHardware {
    /// The profile of that NVML id.
    pub fn profile(&self, id: u32) -> Option<&Profile> {
        self.geometry.as_ref()?.profiles.iter().find(|profile| profile.id == id)
    }

    /// The UUID of the MIG device that is that compute instance.
    ///
    /// The same instance, built again in the same place under the same ids, has the same UUID.
    pub fn mig_uuid(&self, profile: &Profile, start: u8, gpu_instance: u32, compute_instance: u32) -> String {
        let ids = format!("{}@{start} gi{gpu_instance} ci{compute_instance}", profile.name);
        derive::uuid("MIG-", &[&self.uuid, &ids])
    }

    /// The PCI address as NVML writes it, e.g. `00000000:07:00.0`.
    pub fn pci_bus_id(&self) -> String {
        format!("00000000:{:02X}:00.0", derive::pci_bus(self.index))
    }

    /// Whether NVLinks lead from it to that other GPU, directly or through a switch.
    pub fn is_linked(&self, other: &Self) -> bool {
        self.links.iter().any(|end| match end {
            LinkEnd::Gpu(index) => *index == other.index,
            LinkEnd::Switch(_) => other.links.contains(end),
        })
    }

    /// Whether MIG mode can change without a reset: so since Hopper, by NVIDIA's MIG user guide.
    pub fn switches_mig_without_reset(&self) -> bool {
        self.model.compute_capability >= (9, 0)
    }
}

/// A CUDA version, e.g. 12.8.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CudaVersion {
    /// Before the point.
    pub major: u16,
    /// After it.
    pub minor: u16,
}

impl CudaVersion {
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let (major, minor) = text.split_once('.')?;
        let number = |part: &str| part.bytes().all(|b| b.is_ascii_digit()).then(|| part.parse().ok())?;
        let version = Self { major: number(major)?, minor: number(minor)? };
        (version.major >= 1 && version.major < 1000 && version.minor < 100).then_some(version)
    }

    /// As NVML says it: 12.8 is 12080.
    pub fn number(self) -> i32 {
        i32::from(self.major) * 1000 + i32::from(self.minor) * 10
    }
}
