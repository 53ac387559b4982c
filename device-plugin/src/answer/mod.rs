//! What `Allocate` answers: environment, mounts, annotations, CDI devices and device nodes, field by field as NVIDIA's
//! plugin tells them to containers.
//!
//! Pure: everything that must be looked up on the machine is looked up at the start and stands in [`AnswerRules`]. Who
//! wants several strategies at once gets them all, as NVIDIA's plugin does; a container runtime takes the one that it knows.

pub mod imex;
mod nodes;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::path::{Path, PathBuf};

use kubelet_api::device_plugin::{CdiDevice, ContainerAllocateResponse, Mount};
use stowage_shared::device_id::DeviceId;
use stowage_shared::gpu::locate;
use stowage_shared::resource::ResourceName;

use crate::book::ShareLimit;
use crate::config::{Config, DeviceIdStrategy, DeviceListStrategy, Extra};
use crate::inventory::{Inventory, PartDetail};
use crate::mps::Folders;
use crate::slices::Part;

pub use imex::ImexError;
pub use nodes::{DeviceSpecRules, MigMinors, MigMinorsError};

/// The environment variable that NVIDIA's container runtime reads.
const VISIBLE_DEVICES: &str = "NVIDIA_VISIBLE_DEVICES";
/// The same for IMEX channels.
const IMEX_CHANNELS: &str = "NVIDIA_IMEX_CHANNELS";
/// Below this, mounts of [`NOTHING`] name the devices: an unprivileged pod can set an environment variable, but not that.
const DEVICE_MOUNTS: &str = "/var/run/nvidia-container-devices";
/// What is mounted there.
const NOTHING: &str = "/dev/null";
/// Where CUDA looks for MPS's daemon.
const MPS_PIPE_DIRECTORY: &str = "CUDA_MPS_PIPE_DIRECTORY";
/// How much memory a client of MPS may have, by GPU.
const MPS_MEMORY_LIMIT: &str = "CUDA_MPS_PINNED_DEVICE_MEM_LIMIT";
/// How many of a GPU's threads, in per cent.
const MPS_THREADS: &str = "CUDA_MPS_ACTIVE_THREAD_PERCENTAGE";
/// Where MPS's daemon and its clients share memory.
const SHM: &str = "/dev/shm";
/// The vendor of our CDI devices, which is that of NVIDIA's plugin.
pub const CDI_VENDOR: &str = "k8s.device-plugin.nvidia.com";

/// How devices are told to containers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AnswerRules {
    /// The ways in which they are told.
    pub strategies: BTreeSet<DeviceListStrategy>,
    /// What names them.
    pub device_id_strategy: DeviceIdStrategy,
    /// What stands before the name of a CDI annotation's key: `cdi.k8s.io/`.
    pub cdi_annotation_prefix: String,
    /// What containers with GPUs get besides.
    pub extras: BTreeSet<Extra>,
    /// Those of them that have a CDI spec: a node without the device has none.
    pub cdi_extras: BTreeSet<Extra>,
    /// The IMEX channels of this node that every container with GPUs gets.
    pub imex_channels: Vec<u32>,
    /// Where the host has MPS's folders, if shares are clients of its daemons.
    pub mps: Option<Folders>,
    /// Where the host has `dev/nvidia*`, if device nodes are told at all.
    pub device_specs: Option<DeviceSpecRules>,
}

/// Why containers cannot be told their devices as configured.
#[derive(Debug, thiserror::Error)]
pub enum AnswerError {
    /// MIG devices without capability nodes.
    #[error(transparent)]
    MigMinors(#[from] MigMinorsError),
    /// A required IMEX channel is missing.
    #[error(transparent)]
    Imex(#[from] ImexError),
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

/// The name of a token as a CDI device, which has no `+` in it: as resource names write it.
pub fn token_name(token: &str) -> String {
    token.replace('+', ".")
}

/// What a container is told that holds these devices of `resource`; `slices` are those of tokens, by token.
///
/// Each part counts once, in the order of the request: two shares of one GPU are one GPU to see.
///
/// # Errors
/// [`UnknownDevice`], for an id that was never offered under this name.
pub fn allocate_response(
    inventory: &Inventory,
    resource: &ResourceName,
    ids: &[String],
    slices: &BTreeMap<String, Part>,
    rules: &AnswerRules,
) -> Result<ContainerAllocateResponse, UnknownDevice> {
    let mut parts: Vec<(String, &PartDetail)> = Vec::new();
    for text in ids {
        if let Some((name, detail)) = slices.get(text) {
            parts.push((name.clone(), detail));
            continue;
        }
        let unknown = || UnknownDevice { resource: resource.clone(), id: text.chars().take(80).collect() };
        let id: DeviceId = text.parse().map_err(|_| unknown())?;
        locate(inventory.gpus().iter().map(|gpu| &**gpu), resource, &id).ok_or_else(unknown)?;
        let detail = inventory.part(id.part()).ok_or_else(unknown)?;
        if !parts.iter().any(|(uuid, _)| uuid == id.part()) {
            parts.push((id.part().to_owned(), detail));
        }
    }
    let name = |(uuid, detail): &(String, &PartDetail)| rules.device_id_strategy.name(uuid, detail);
    let visible: Vec<String> = parts.iter().map(name).collect();
    let mut response = ContainerAllocateResponse::default();
    rules.tell_cdi(&mut response, &visible, (resource, ids));
    if ids.iter().any(|id| inventory.is_share(resource, id)) {
        rules.tell_mps(&mut response, resource);
    }
    for extra in &rules.extras {
        response.envs.insert(extra.env().to_owned(), "enabled".to_owned());
    }
    rules.tell_env(&mut response, &visible);
    rules.tell_mounts(&mut response, &visible);
    // A runtime that takes CDI devices makes the device nodes itself.
    if let Some(specs) = rules.device_specs.as_ref().filter(|_| !rules.only_cdi()) {
        response.devices = specs.device_specs(parts.iter().map(|(_, detail)| *detail), &rules.imex_channels);
    }
    Ok(response)
}

impl DeviceIdStrategy {
    /// The name of a part.
    pub fn name(self, uuid: &str, detail: &PartDetail) -> String {
        match self {
            Self::Uuid => uuid.to_owned(),
            Self::Index => detail.index.clone(),
        }
    }
}

impl AnswerRules {
    /// The rules that a configuration makes, with what they need of this machine; `root` is `/`, as this program sees it.
    ///
    /// # Errors
    /// [`AnswerError`], where the machine has not what the configuration says.
    pub fn look_up(config: &Config, inventory: &Inventory, root: &Path) -> Result<Self, AnswerError> {
        let seen_at = [config.container_driver_root.clone(), root.to_owned()];
        let imex_channels = imex::channels(&config.imex.channels, config.imex.required, &seen_at)?;
        let device_specs = if config.pass_device_specs {
            Some(DeviceSpecRules {
                dev_root: config.dev_root.clone(),
                seen_at: seen_at.into(),
                mig_minors: MigMinors::needed(inventory, &config.procfs)?,
            })
        } else {
            None
        };
        Ok(Self {
            strategies: config.device_list_strategies.clone(),
            device_id_strategy: config.device_id_strategy,
            cdi_annotation_prefix: config.cdi_annotation_prefix.clone(),
            extras: config.extras.clone(),
            cdi_extras: BTreeSet::new(),
            imex_channels,
            mps: config.mps_in_use().map(|mps| Folders::at(mps.host_root.clone())),
            device_specs,
        })
    }

    fn only_cdi(&self) -> bool {
        self.strategies.iter().all(|strategy| strategy.is_cdi())
    }

    fn tell_env(&self, response: &mut ContainerAllocateResponse, visible: &[String]) {
        if self.strategies.contains(&DeviceListStrategy::EnvVar) {
            response.envs.insert(VISIBLE_DEVICES.to_owned(), visible.join(","));
            if !self.imex_channels.is_empty() {
                let channels: Vec<String> = self.imex_channels.iter().map(u32::to_string).collect();
                response.envs.insert(IMEX_CHANNELS.to_owned(), channels.join(","));
            }
        }
    }

    fn tell_mounts(&self, response: &mut ContainerAllocateResponse, visible: &[String]) {
        if !self.strategies.contains(&DeviceListStrategy::VolumeMounts) {
            return;
        }
        // Also where the variable lists the devices already: the runtime that reads mounts wants to be sent to them.
        response.envs.insert(VISIBLE_DEVICES.to_owned(), DEVICE_MOUNTS.to_owned());
        let channels = self.imex_channels.iter().map(|channel| format!("imex/{channel}"));
        let mount = |name: String| Mount {
            host_path: NOTHING.to_owned(),
            container_path: format!("{DEVICE_MOUNTS}/{name}"),
            read_only: false,
        };
        response.mounts.extend(visible.iter().cloned().chain(channels).map(mount));
    }

    /// How a share's processes find the MPS daemon of their resource, which gives them their limits.
    fn tell_mps(&self, response: &mut ContainerAllocateResponse, resource: &ResourceName) {
        let Some(host) = &self.mps else { return };
        let pipe = Folders::in_containers().pipe(resource).display().to_string();
        response.envs.insert(MPS_PIPE_DIRECTORY.to_owned(), pipe.clone());
        let mount = |host_path: PathBuf, container_path: String| Mount {
            host_path: host_path.display().to_string(),
            container_path,
            read_only: false,
        };
        response.mounts.push(mount(host.pipe(resource), pipe));
        response.mounts.push(mount(host.shm(), SHM.to_owned()));
    }

    /// Within which limits a container with these shares is a client of MPS. A client can only narrow what its daemon
    /// grants, so a share that is larger than an equal part wants a daemon that grants everything (`sizedShares`).
    ///
    /// Memory counts by CUDA's number of a GPU in the container: their order.
    pub fn tell_limits(&self, response: &mut ContainerAllocateResponse, limits: &[ShareLimit]) {
        if self.mps.is_none() || limits.is_empty() {
            return;
        }
        let memory = limits.iter().enumerate().map(|(n, limit)| format!("{n}={}M", limit.memory.0));
        response.envs.insert(MPS_MEMORY_LIMIT.to_owned(), memory.collect::<Vec<_>>().join(","));
        let percent = |limit: &ShareLimit| (limit.memory.0 * 100).div_ceil(limit.of.0.max(1)).clamp(1, 100);
        if let Some(percent) = limits.iter().filter(|limit| limit.is_free).map(percent).max() {
            response.envs.insert(MPS_THREADS.to_owned(), percent.to_string());
        }
    }

    fn tell_cdi(
        &self,
        response: &mut ContainerAllocateResponse,
        visible: &[String],
        call: (&ResourceName, &[String]),
    ) {
        let channels =
            self.imex_channels.iter().map(|channel| cdi_name("imex-channel", &channel.to_string()));
        let extras = self.cdi_extras.iter().map(|extra| cdi_name(extra.cdi_class(), "all"));
        let devices: Vec<String> =
            visible.iter().map(|name| cdi_name("gpu", name)).chain(channels).chain(extras).collect();
        if devices.is_empty() {
            return;
        }
        if self.strategies.contains(&DeviceListStrategy::CdiAnnotations) {
            let key = format!("{}nvidia-device-plugin_{}", self.cdi_annotation_prefix, digest(call));
            response.annotations.insert(key, devices.join(","));
        }
        if self.strategies.contains(&DeviceListStrategy::CdiCri) {
            response.cdi_devices = devices.into_iter().map(|name| CdiDevice { name }).collect();
        }
    }
}

/// A CDI device's full name.
fn cdi_name(class: &str, name: &str) -> String {
    format!("{CDI_VENDOR}/{class}={name}")
}

/// Tells apart the annotations of one container, which may hold devices of several resources.
///
/// NVIDIA's plugin draws a random UUID for it. Devices of one container differ, so a digest of them does as well, and
/// the same call gets the same answer.
fn digest(call: (&ResourceName, &[String])) -> String {
    let half = |salt: u8| {
        let mut hasher = DefaultHasher::new();
        (salt, call.0.as_str(), call.1).hash(&mut hasher);
        hasher.finish()
    };
    let (one, two) = (half(0), half(1));
    format!(
        "{:08x}-{:04x}-{:04x}-{:04x}-{:012x}",
        one >> 32,
        one >> 16 & 0xffff,
        one & 0xffff,
        two >> 48,
        two & 0xffff_ffff_ffff
    )
}
