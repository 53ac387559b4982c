//! Device nodes: `/dev/nvidia*`, as `passDeviceSpecs` wants them told.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use kubelet_api::device_plugin::DeviceSpec;

use super::imex;
use crate::inventory::{Inventory, PartDetail};

/// Device nodes that every CUDA program opens; which of them exist depends on the loaded kernel modules.
const CONTROL_NODES: [&str; 4] =
    ["dev/nvidiactl", "dev/nvidia-uvm", "dev/nvidia-uvm-tools", "dev/nvidia-modeset"];

/// How device nodes are told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeviceSpecRules {
    /// Where the host has `dev/nvidia*`.
    pub dev_root: PathBuf,
    /// Where this program may see it: control nodes are told only if they exist below one of these.
    pub seen_at: Vec<PathBuf>,
    /// The capability nodes of MIG instances.
    pub mig_minors: MigMinors,
}

impl DeviceSpecRules {
    /// The nodes of these parts and IMEX channels, after those that every container with a GPU needs.
    pub(super) fn device_specs<'a>(
        &self,
        parts: impl Iterator<Item = &'a PartDetail>,
        imex_channels: &[u32],
    ) -> Vec<DeviceSpec> {
        let exists = |path: &&str| self.seen_at.iter().any(|root| root.join(path).exists());
        let mut paths: Vec<String> =
            CONTROL_NODES.iter().filter(|path| exists(path)).map(|p| (*p).to_owned()).collect();
        let parts = parts.flat_map(|part| self.mig_minors.nodes_of(part));
        for path in parts.chain(imex_channels.iter().map(|channel| imex::node(*channel))) {
            if !paths.contains(&path) {
                paths.push(path);
            }
        }
        let spec = |path: String| DeviceSpec {
            host_path: self.dev_root.join(&path).display().to_string(),
            container_path: format!("/{path}"),
            permissions: "rw".to_owned(),
        };
        paths.into_iter().map(spec).collect()
    }
}

/// The minor numbers of MIG instances' capability nodes, `/dev/nvidia-caps/nvidia-cap<minor>`.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct MigMinors(HashMap<String, u32>);

/// Why there are no minor numbers.
#[derive(Debug, thiserror::Error)]
#[error(
    "cannot read {}, which passDeviceSpecs and CDI need on a node with MIG devices: is the driver loaded, and the host's procfs visible here at --procfs-root (PROCFS_ROOT)? Else use deviceListStrategy envvar without passDeviceSpecs",
    .path.display()
)]
pub struct MigMinorsError {
    path: PathBuf,
    source: std::io::Error,
}

impl MigMinors {
    /// Reads `<procfs>/driver/nvidia-caps/mig-minors`: lines such as `gpu0/gi1/ci0/access 12`.
    ///
    /// # Errors
    /// [`MigMinorsError`], where the file cannot be read.
    pub fn read(procfs: &Path) -> Result<Self, MigMinorsError> {
        let path = procfs.join("driver/nvidia-caps/mig-minors");
        let text = std::fs::read_to_string(&path).map_err(|source| MigMinorsError { path, source })?;
        let pair = |line: &str| {
            let (name, minor) = line.trim().rsplit_once(' ')?;
            Some((name.to_owned(), minor.parse().ok()?))
        };
        Ok(Self(text.lines().filter_map(pair).collect()))
    }

    /// Reads them, if this node offers MIG devices.
    ///
    /// # Errors
    /// As [`MigMinors::read`].
    pub fn needed(inventory: &Inventory, procfs: &Path) -> Result<Self, MigMinorsError> {
        let has_mig_devices = inventory.parts().any(|(_, part)| part.instances.is_some());
        if has_mig_devices || inventory.has_slices_on_demand() {
            Self::read(procfs)
        } else {
            Ok(Self::default())
        }
    }

    /// The device nodes of a part, below the root: its GPU's, and those of a MIG device's instances.
    pub fn nodes_of(&self, part: &PartDetail) -> Vec<String> {
        let mut nodes = vec![format!("dev/nvidia{}", part.minor)];
        if let Some((gpu_instance, compute_instance)) = part.instances {
            // The driver numbers GPUs by their minor here.
            let gpu_instance = format!("gpu{}/gi{gpu_instance}", part.minor);
            let names =
                [format!("{gpu_instance}/access"), format!("{gpu_instance}/ci{compute_instance}/access")];
            let minors = names.iter().filter_map(|name| self.0.get(name));
            nodes.extend(minors.map(|minor| format!("dev/nvidia-caps/nvidia-cap{minor}")));
        }
        nodes
    }
}
