//! What the PCI bus tells of NVIDIA's devices: whether they are for graphics, and whether they are virtual.
//!
//! A GPU of NVIDIA's vGPU software looks like a GPU to its guest, but for a capability in its configuration space
//! that names the hypervisor's driver. The record's layout is that of NVIDIA's `gpu-feature-discovery`.

use std::fs;
use std::path::Path;

/// NVIDIA's vendor id, as sysfs writes it.
const NVIDIA: &str = "0x10de";
/// The most PCI devices that are looked at.
const DEVICES_MAX: usize = 4096;
/// The configuration space that every device has; without root the kernel shows a quarter of it.
const CONFIG_BYTES: usize = 256;
/// The status register's byte and bit that say that there are capabilities.
const STATUS: (usize, u8) = (0x06, 0x10);
/// Where the first capability's offset stands.
const FIRST_CAPABILITY: usize = 0x34;
/// The id of a vendor's own capability.
const VENDOR_SPECIFIC: u8 = 0x09;
/// The longest list of capabilities: each takes four bytes at least.
const CAPABILITIES_MAX: usize = CONFIG_BYTES / 4;
/// Where a vGPU capability's records begin, behind `VF`.
const RECORDS: usize = 5;
/// The host driver's version and branch in their record, in bytes each.
const VERSION_BYTES: usize = 10;

/// What a virtual GPU tells of the hypervisor's driver.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct VgpuHost {
    /// Its version, e.g. `460.16`.
    pub driver_version: String,
    /// Its branch, e.g. `r460_00`.
    pub driver_branch: String,
}

/// A device's class and subclass, e.g. `0x0302`.
pub fn class(folder: &Path) -> Option<u16> {
    let text = fs::read_to_string(folder.join("class")).ok()?;
    let class = u32::from_str_radix(text.trim().strip_prefix("0x")?, 16).ok()?;
    u16::try_from(class >> 8).ok()
}

/// The virtual GPUs of this machine; `None` where that cannot be told, for want of root.
pub fn vgpus(sysfs: &Path) -> Option<Vec<VgpuHost>> {
    let folder = sysfs.join("bus/pci/devices");
    let Ok(devices) = fs::read_dir(&folder) else {
        // A machine without PCI has no virtual GPUs on it.
        return (!folder.exists()).then(Vec::new);
    };
    let mut hosts = Vec::new();
    for device in devices.flatten().take(DEVICES_MAX) {
        let device = device.path();
        if fs::read_to_string(device.join("vendor")).ok()?.trim() != NVIDIA {
            continue;
        }
        let config = fs::read(device.join("config")).ok()?;
        if config.len() < CONFIG_BYTES {
            return None;
        }
        hosts.extend(vgpu(&config[..CONFIG_BYTES]));
    }
    Some(hosts)
}

/// The host that a configuration space names; `None` for a real GPU.
fn vgpu(config: &[u8]) -> Option<VgpuHost> {
    let capability = vendor_capability(config)?;
    if capability.get(3..RECORDS)? != b"VF" {
        return None;
    }
    Some(host(capability).unwrap_or_default())
}

fn vendor_capability(config: &[u8]) -> Option<&[u8]> {
    if config.get(STATUS.0)? & STATUS.1 == 0 {
        return None;
    }
    let mut at = usize::from(*config.get(FIRST_CAPABILITY)?);
    for _ in 0..CAPABILITIES_MAX {
        let id = *config.get(at)?;
        if at == 0 || id == 0xff {
            return None;
        }
        if id == VENDOR_SPECIFIC {
            return config.get(at..at + usize::from(*config.get(at + 2)?));
        }
        at = usize::from(*config.get(at + 1)?);
    }
    None
}

/// Record 0: an id, a length, and then the driver's version and branch.
fn host(capability: &[u8]) -> Option<VgpuHost> {
    let mut at = RECORDS;
    while *capability.get(at)? != 0 {
        let length = usize::from(*capability.get(at + 1)?);
        if length == 0 {
            return None;
        }
        at += length;
    }
    let text = |from: usize| {
        let bytes = capability.get(from..from + VERSION_BYTES)?;
        Some(String::from_utf8_lossy(bytes).trim_matches('\0').to_owned())
    };
    Some(VgpuHost { driver_version: text(at + 2)?, driver_branch: text(at + 2 + VERSION_BYTES)? })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A virtual GPU's configuration space, with an MSI capability before the vendor's.
    fn config(records: &[u8]) -> Vec<u8> {
        let mut config = vec![0; CONFIG_BYTES];
        config[STATUS.0] = STATUS.1;
        config[FIRST_CAPABILITY] = 0x68;
        config[0x68..0x6a].copy_from_slice(&[0x05, 0xd0]);
        let length = u8::try_from(5 + records.len()).unwrap();
        config[0xd0..0xd5].copy_from_slice(&[VENDOR_SPECIFIC, 0, length, b'V', b'F']);
        config[0xd5..0xd5 + records.len()].copy_from_slice(records);
        config
    }

    const HOST: &[u8] = b"\x00\x16460.16\0\0\0\0r460_00\0\0\0";

    #[test]
    fn a_virtual_gpu_names_its_hosts_driver() {
        let host = VgpuHost { driver_version: "460.16".into(), driver_branch: "r460_00".into() };
        assert_eq!(vgpu(&config(HOST)), Some(host.clone()));
        let behind = [b"\x07\x03x".as_slice(), HOST].concat();
        assert_eq!(vgpu(&config(&behind)), Some(host), "behind another record");
    }

    #[test]
    fn broken_records_end_and_tell_nothing() {
        for records in [b"".as_slice(), b"\x07\x00", b"\x07", b"\x07\xff", &HOST[..8]] {
            assert_eq!(vgpu(&config(records)), Some(VgpuHost::default()), "{records:?}");
        }
        let mut looped = config(HOST);
        looped[0x69] = 0x68;
        assert_eq!(vgpu(&looped), None);
        let mut real = config(HOST);
        real[0xd3] = b'x';
        assert_eq!(vgpu(&real), None);
        assert_eq!(vgpu(&[]), None);
    }

    #[test]
    fn devices_of_others_are_passed_over_and_half_a_space_says_nothing() {
        let sysfs = tempfile::tempdir().unwrap();
        assert_eq!(vgpus(sysfs.path()), Some(vec![]), "no PCI at all");
        let device = |address: &str, vendor: &str, config: &[u8]| {
            let folder = sysfs.path().join("bus/pci/devices").join(address);
            fs::create_dir_all(&folder).unwrap();
            fs::write(folder.join("vendor"), format!("{vendor}\n")).unwrap();
            fs::write(folder.join("config"), config).unwrap();
            fs::write(folder.join("class"), "0x030200\n").unwrap();
            folder
        };
        device("0000:00:01.0", "0x8086", &[]);
        let gpu = device("0000:3b:00.0", NVIDIA, &[0; CONFIG_BYTES]);
        assert_eq!(vgpus(sysfs.path()), Some(vec![]));
        assert_eq!(class(&gpu), Some(0x0302));
        device("0000:3c:00.0", NVIDIA, &config(HOST));
        assert_eq!(vgpus(sysfs.path()).unwrap().len(), 1);
        device("0000:3d:00.0", NVIDIA, &[0; 64]);
        assert_eq!(vgpus(sysfs.path()), None, "not root");
    }
}
