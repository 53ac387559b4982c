//! How near GPUs are to each other.
//!
//! Scored as NVIDIA's plugin does it (`go-gpuallocator`), so that both choose alike: 100 for each NVLink that leads
//! from one GPU straight to the other, and 10 to 60 for their way over PCIe. Links to an NVSwitch count nothing, as
//! there: all GPUs on it are equally near.

use std::collections::BTreeMap;

use nvml_wrapper::Device;
use nvml_wrapper::enum_wrappers::device::TopologyLevel;
use nvml_wrapper::struct_wrappers::device::PciInfo;
use nvml_wrapper_sys::bindings::NVML_NVLINK_MAX_LINKS;
use stowage_shared::gpu::GpuUuid;

use super::NvmlGpus;

/// How near GPUs are to each other.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Nearness(BTreeMap<(GpuUuid, GpuUuid), u16>);

impl Nearness {
    fn set(&mut self, one: &GpuUuid, other: &GpuUuid, score: u16) {
        self.0.insert((one.min(other).clone(), one.max(other).clone()), score);
    }

    /// The score of two GPUs, where it is known.
    pub fn of(&self, one: &GpuUuid, other: &GpuUuid) -> Option<u16> {
        self.0.get(&(one.min(other).clone(), one.max(other).clone())).copied()
    }

    /// Takes over what another reading tells, and keeps what it does not.
    pub fn update(&mut self, newer: Self) {
        self.0.extend(newer.0);
    }
}

/// What one NVLink counts.
const NVLINK: u16 = 100;

impl NvmlGpus {
    /// How near each two of these GPUs are. Blocks. What cannot be told, such as of a GPU that is lost, is left out:
    /// some other GPUs are chosen then, and none is ill for it.
    pub fn nearness(&self, gpus: &[(u32, GpuUuid)]) -> Nearness {
        let devices: Vec<(&(u32, GpuUuid), Device<'_>, Place)> = gpus
            .iter()
            .filter_map(|gpu| {
                let device = self.nvml.device_by_index(gpu.0).ok()?;
                let place = Place::of(&device.pci_info().ok()?);
                Some((gpu, device, place))
            })
            .collect();
        let mut nearness = Nearness::default();
        for (at, ((_, uuid), device, _)) in devices.iter().enumerate() {
            let ends = nvlinks(device);
            for ((index, other), _, place) in &devices[at + 1..] {
                let links = ends.iter().filter(|end| *end == place).count();
                let links = u16::try_from(links).unwrap_or(u16::MAX).saturating_mul(NVLINK);
                // The wrapper wants the other's handle for itself.
                let path = self
                    .nvml
                    .device_by_index(*index)
                    .and_then(|other| device.topology_common_ancestor(other));
                nearness.set(uuid, other, links.saturating_add(path.map_or(0, of_path)));
            }
        }
        nearness
    }
}

/// Where something is on the PCI bus.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Place {
    domain: u32,
    bus: u32,
    device: u32,
}

impl Place {
    fn of(pci: &PciInfo) -> Self {
        Self { domain: pci.domain, bus: pci.bus, device: pci.device }
    }
}

/// What a GPU's NVLinks lead to, once for each that is up.
fn nvlinks(device: &Device<'_>) -> Vec<Place> {
    let end = |link: u32| {
        let link = device.link_wrapper_for(link);
        Some(Place::of(&link.is_active().ok().filter(|up| *up).and_then(|_| link.remote_pci_info().ok())?))
    };
    (0..NVML_NVLINK_MAX_LINKS).filter_map(end).collect()
}

/// What the way over PCIe counts.
fn of_path(level: TopologyLevel) -> u16 {
    match level {
        TopologyLevel::Internal => 60,
        TopologyLevel::Single => 50,
        TopologyLevel::Multiple => 40,
        TopologyLevel::HostBridge => 30,
        TopologyLevel::Node => 20,
        TopologyLevel::System => 10,
    }
}
