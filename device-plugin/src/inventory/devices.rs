//! What `Allocate` answers: environment and device nodes, exactly as NVIDIA's plugin tells them to containers.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use kubelet_api::device_plugin::{ContainerAllocateResponse, DeviceSpec};
use stowage_shared::device_id::DeviceId;
use stowage_shared::gpu::locate;
use stowage_shared::resource::ResourceName;

use super::{Inventory, PartDetail};
use crate::config::DeviceIdStrategy;

/// The environment variable that NVIDIA's container runtime reads.
const VISIBLE_DEVICES: &str = "NVIDIA_VISIBLE_DEVICES";

/// Device nodes that every CUDA program opens; which of them exist depends on the loaded kernel modules.
const CONTROL_NODES: [&str; 4] =
    ["dev/nvidiactl", "dev/nvidia-uvm", "dev/nvidia-uvm-tools", "dev/nvidia-modeset"];

/// How devices are told to containers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AnswerRules {
    /// What `NVIDIA_VISIBLE_DEVICES` lists.
    pub device_id_strategy: DeviceIdStrategy,
    /// Where the host has `dev/nvidia*`, if device nodes are told at all.
    pub device_specs: Option<DeviceSpecRules>,
}

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

/// The ids of a call that were never offered.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "{resource} has no device {id:?} on this node: the kubelet's list is out of date, or the request is not the kubelet's"
)]
pub struct UnknownDevice {
    resource: ResourceName,
    id: String,
}

/// What a container is told that holds these devices of `resource`.
///
/// Each part counts once, in the order of the request: two shares of one GPU are one GPU to see.
///
/// # Errors
/// [`UnknownDevice`], for an id that was never offered under this name.
pub fn allocate_response(
    inventory: &Inventory,
    resource: &ResourceName,
    ids: &[String],
    rules: &AnswerRules,
) -> Result<ContainerAllocateResponse, UnknownDevice> {
    let mut parts: Vec<(String, &PartDetail)> = Vec::new();
    for text in ids {
        let unknown = || UnknownDevice { resource: resource.clone(), id: text.chars().take(80).collect() };
        let id: DeviceId = text.parse().map_err(|_| unknown())?;
        locate(inventory.gpus().iter().map(|gpu| &**gpu), resource, &id).ok_or_else(unknown)?;
        let detail = inventory.part(id.part()).ok_or_else(unknown)?;
        if !parts.iter().any(|(uuid, _)| uuid == id.part()) {
            parts.push((id.part().to_owned(), detail));
        }
    }
    let visible: Vec<&str> = parts
        .iter()
        .map(|(uuid, detail)| match rules.device_id_strategy {
            DeviceIdStrategy::Uuid => uuid.as_str(),
            DeviceIdStrategy::Index => detail.index.as_str(),
        })
        .collect();
    let details = parts.iter().map(|(_, detail)| *detail);
    Ok(ContainerAllocateResponse {
        envs: [(VISIBLE_DEVICES.to_owned(), visible.join(","))].into(),
        devices: rules.device_specs.as_ref().map_or_else(Vec::new, |rules| device_specs(rules, details)),
        ..ContainerAllocateResponse::default()
    })
}

fn device_specs<'a>(rules: &DeviceSpecRules, parts: impl Iterator<Item = &'a PartDetail>) -> Vec<DeviceSpec> {
    let exists = |path: &&str| rules.seen_at.iter().any(|root| root.join(path).exists());
    let mut paths: Vec<String> =
        CONTROL_NODES.iter().filter(|path| exists(path)).map(|p| (*p).to_owned()).collect();
    for part in parts {
        let mut add = |path: String| {
            if !paths.contains(&path) {
                paths.push(path);
            }
        };
        add(format!("dev/nvidia{}", part.minor));
        if let Some((gpu_instance, compute_instance)) = part.instances {
            let minors = rules.mig_minors.of(part.minor, gpu_instance, compute_instance);
            minors.for_each(|minor| add(format!("dev/nvidia-caps/nvidia-cap{minor}")));
        }
    }
    let spec = |path: String| DeviceSpec {
        host_path: rules.dev_root.join(&path).display().to_string(),
        container_path: format!("/{path}"),
        permissions: "rw".to_owned(),
    };
    paths.into_iter().map(spec).collect()
}

/// The minor numbers of MIG instances' capability nodes, `/dev/nvidia-caps/nvidia-cap<minor>`.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct MigMinors(HashMap<String, u32>);

/// Why there are no minor numbers.
#[derive(Debug, thiserror::Error)]
#[error(
    "cannot read {}, which passDeviceSpecs needs on a node with MIG devices: is the driver loaded, and the host's procfs visible here at --procfs-root (PROCFS_ROOT)? Else set passDeviceSpecs to false",
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

    /// The nodes of a GPU instance and of its compute instance. The driver numbers GPUs by their minor here.
    fn of(&self, gpu_minor: u32, gpu_instance: u32, compute_instance: u32) -> impl Iterator<Item = u32> + '_ {
        let gpu_instance = format!("gpu{gpu_minor}/gi{gpu_instance}");
        let names = [format!("{gpu_instance}/access"), format!("{gpu_instance}/ci{compute_instance}/access")];
        names.into_iter().filter_map(|name| self.0.get(&name).copied())
    }
}
