//! What is known of the machine when its labels are made.

use std::fs::File;
use std::io::Read;
use std::path::Path;

use stowage_shared::mig::ProfileName;
use stowage_shared::units::MemoryMib;

use super::pci::{self, VgpuHost};
use crate::nvml::{
    Fabric, GpuDetails, GpuReading, Gpus, MigAttributes, MigDeviceReading, NvmlFault, NvmlGpus, pci_folder,
};

/// The longest name of a machine that is read, in bytes.
const MACHINE_MAX_BYTES: u64 = 1024;

/// What labels are made of.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Facts {
    /// The driver's version, e.g. `570.86.15`.
    pub driver_version: String,
    /// The newest CUDA version that the driver serves.
    pub cuda_version: (i32, i32),
    /// The machine's name, as its maker wrote it; `None` where it cannot be read.
    pub machine: Option<String>,
    /// The GPUs, by index.
    pub gpus: Vec<GpuFacts>,
    /// The virtual GPUs' hosts; `None` where it cannot be told whether there are any.
    pub vgpus: Option<Vec<VgpuHost>>,
}

/// One GPU.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GpuFacts {
    /// The product name.
    pub model: String,
    /// Total memory.
    pub memory: MemoryMib,
    /// CUDA's compute capability.
    pub compute_capability: (i32, i32),
    /// Its class on the PCI bus, where the kernel tells it.
    pub pci_class: Option<u16>,
    /// The NVLink fabric that it is a complete member of.
    pub fabric: Option<Fabric>,
    /// Whether MIG mode is on; `None` where the GPU has no MIG.
    pub mig_enabled: Option<bool>,
    /// The MIG devices that exist.
    pub mig_devices: Vec<MigFacts>,
}

/// One MIG device.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MigFacts {
    /// NVIDIA's name of it, as it stands in resource names: `1g.5gb`, `1g.10gb.me`, `1c.3g.20gb`.
    pub name: String,
    /// What it has of its GPU.
    pub attributes: MigAttributes,
}

/// Reads all of it. Blocks.
///
/// A GPU that falls off the bus meanwhile is left out, as are those that cannot be read at all.
///
/// # Errors
/// [`NvmlFault`] where NVML as a whole does not work.
pub fn read(gpus: &NvmlGpus, sysfs: &Path, machine_type_file: &Path) -> Result<Facts, NvmlFault> {
    let reading = gpus.read()?;
    let known = reading.gpus.iter().filter_map(|gpu| Some(facts(gpu, gpus.details(gpu).ok()?, sysfs)));
    Ok(Facts {
        gpus: known.collect(),
        cuda_version: gpus.cuda_version()?,
        machine: machine(machine_type_file),
        vgpus: pci::vgpus(sysfs),
        driver_version: reading.driver_version,
    })
}

fn facts(gpu: &GpuReading, details: GpuDetails, sysfs: &Path) -> GpuFacts {
    let mig_devices = gpu.mig.iter().flat_map(|mig| &mig.devices).zip(details.mig_devices);
    GpuFacts {
        model: gpu.model.clone(),
        memory: gpu.memory,
        compute_capability: details.compute_capability,
        pci_class: pci_folder(sysfs, &details.bus_id).and_then(|folder| pci::class(&folder)),
        fabric: details.fabric,
        mig_enabled: gpu.mig.as_ref().map(|mig| mig.enabled),
        mig_devices: mig_devices.map(|(device, attributes)| mig_facts(device, attributes)).collect(),
    }
}

fn mig_facts(device: &MigDeviceReading, attributes: MigAttributes) -> MigFacts {
    let part = attributes.compute_instance_slices;
    MigFacts {
        name: mig_name(&device.slice.profile, (!device.fills_gpu_instance).then_some(part)),
        attributes,
    }
}

/// `3g.20gb`, or `1c.3g.20gb` where one compute slice of it is used; `+` cannot stand in a label's key.
fn mig_name(profile: &ProfileName, part: Option<u32>) -> String {
    let name = profile.as_str().replace('+', ".");
    part.map_or_else(|| name.clone(), |slices| format!("{slices}c.{name}"))
}

fn machine(file: &Path) -> Option<String> {
    let mut text = String::new();
    File::open(file).ok()?.take(MACHINE_MAX_BYTES).read_to_string(&mut text).ok()?;
    Some(text.trim().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_part_of_an_instance_says_so_and_plus_becomes_a_dot() {
        assert_eq!(mig_name(&"3g.20gb".parse().unwrap(), None), "3g.20gb");
        assert_eq!(mig_name(&"3g.20gb".parse().unwrap(), Some(1)), "1c.3g.20gb");
        assert_eq!(mig_name(&"1g.24gb+me.all".parse().unwrap(), None), "1g.24gb.me.all");
    }

    #[test]
    fn the_machines_name_is_trimmed_and_need_not_be_there() {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), "  DGX H100\n").unwrap();
        assert_eq!(machine(file.path()).as_deref(), Some("DGX H100"));
        assert_eq!(machine(Path::new("/nowhere")), None);
    }
}
