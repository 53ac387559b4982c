//! Which NUMA node a PCI device hangs on.

use std::path::{Path, PathBuf};

/// Reads `numa_node` in the device's [`pci_folder`]. `None` where the platform does not say: the file is not
/// there, or holds -1.
pub(super) fn node_of(sysfs: &Path, bus_id: &str) -> Option<u32> {
    let file = pci_folder(sysfs, bus_id)?.join("numa_node");
    std::fs::read_to_string(file).ok()?.trim().parse().ok()
}

/// `<sysfs>/bus/pci/devices/<bus id>`; `None` for what is no bus id.
///
/// NVML writes the PCI domain with eight digits and in capitals, the kernel with four and small ones.
pub fn pci_folder(sysfs: &Path, bus_id: &str) -> Option<PathBuf> {
    let lower = bus_id.to_ascii_lowercase();
    let (domain, rest) = lower.split_once(':')?;
    let domain = u32::from_str_radix(domain, 16).ok()?;
    if !rest.bytes().all(|b| b.is_ascii_hexdigit() || b == b':' || b == b'.') {
        return None;
    }
    Some(sysfs.join(format!("bus/pci/devices/{domain:04x}:{rest}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_node_is_the_kernels_and_less_than_zero_is_none() {
        let sysfs = tempfile::tempdir().unwrap();
        for (device, text, asked, want) in [
            ("0000:3b:00.0", "1\n", "00000000:3B:00.0", Some(1)),
            ("0000:86:00.0", "-1\n", "00000000:86:00.0", None),
            ("10001:00:00.0", "0\n", "00010001:00:00.0", Some(0)),
        ] {
            let folder = sysfs.path().join("bus/pci/devices").join(device);
            std::fs::create_dir_all(&folder).unwrap();
            std::fs::write(folder.join("numa_node"), text).unwrap();
            assert_eq!(node_of(sysfs.path(), asked), want, "{device}");
        }
        for asked in ["00000000:AF:00.0", "", "x:y", "0:../../../../etc/x"] {
            assert_eq!(node_of(sysfs.path(), asked), None, "{asked}");
        }
    }
}
