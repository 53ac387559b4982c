//! Configuration: read once, checked once, then trusted.
//!
//! Flags come before the environment, that before NVIDIA's file, that before the defaults. [`Config`] cannot hold
//! a wrong value; whoever gives one is told the key, the value, where it stands and what would be right.

mod answers;
mod check;
mod file;
mod health;
mod labels;
mod mps;
mod names;
mod on_demand;
mod per_node;
pub mod settings;
mod sharing;
#[cfg(test)]
mod tests;

use std::collections::BTreeSet;
use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;

pub use answers::{CdiConfig, CdiFeature, DeviceListStrategy, Extra, Imex};
pub use check::{arguments, load, load_chosen};
pub use file::{CONFIG_FILE_MAX_BYTES, File};
pub use health::HealthConfig;
pub use labels::{LabelConfig, LabelTarget};
pub use mps::MpsConfig;
pub use names::{GpuNames, NamePattern, ResourceNames};
pub use per_node::{ChoiceError, Fallback, PerNode};
pub use sharing::{AllocationPolicy, SharedDevices, SharedResource, Sharing, SharingStrategy};

/// How MIG devices are offered; NVIDIA's words.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MigStrategy {
    /// As if there were none: each GPU is `nvidia.com/gpu`, whatever its MIG mode.
    None,
    /// All GPUs are cut alike, and each slice is `nvidia.com/gpu`.
    Single,
    /// Whole GPUs are `nvidia.com/gpu`, slices `nvidia.com/mig-<profile>`.
    Mixed,
    /// The same names, and slices are built when somebody has got them; Stowage's own word.
    OnDemand,
}

/// What names a device, in `NVIDIA_VISIBLE_DEVICES` and everywhere else that containers are told it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DeviceIdStrategy {
    /// UUIDs.
    Uuid,
    /// NVML's indices: `5`, and `5:0` for a MIG device.
    Index,
}

/// What the program was told to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Config {
    /// This node's name.
    pub node_name: String,
    /// How MIG devices are offered.
    pub mig_strategy: MigStrategy,
    /// GPUs, by UUID or NVML's index, whose MIG devices are left as they are in spite of strategy `on-demand`.
    pub mig_static: Vec<String>,
    /// Whether a GPU is offered in several forms at once, until somebody uses one.
    pub elastic_gpus: bool,
    /// Whether a node without a working NVML ends the program.
    pub fail_on_init_error: bool,
    /// How containers are told their devices; at least one way.
    pub device_list_strategies: BTreeSet<DeviceListStrategy>,
    /// What names the devices there.
    pub device_id_strategy: DeviceIdStrategy,
    /// What stands before the name of a CDI annotation's key.
    pub cdi_annotation_prefix: String,
    /// What containers with GPUs get besides.
    pub extras: BTreeSet<Extra>,
    /// Which IMEX channels they get.
    pub imex: Imex,
    /// How CDI specs are made, where a strategy uses them.
    pub cdi: CdiConfig,
    /// Where the host has the NVIDIA driver.
    pub driver_root: PathBuf,
    /// Whether `Allocate` names device nodes.
    pub pass_device_specs: bool,
    /// Where the host has `dev/nvidia*`.
    pub dev_root: PathBuf,
    /// Where this program sees the driver root.
    pub container_driver_root: PathBuf,
    /// Names other than the usual ones.
    pub names: ResourceNames,
    /// Which resources are shared.
    pub sharing: Option<Sharing>,
    /// Where MPS's daemons and pods meet; always there where it is used.
    pub mps: Option<MpsConfig>,
    /// Which shares are handed out first, where no plan says.
    pub allocation_policy: AllocationPolicy,
    /// Where the kubelet takes registrations.
    pub kubelet_socket: PathBuf,
    /// Where the kubelet tells who holds what.
    pub pod_resources_socket: PathBuf,
    /// Where `/livez`, `/readyz` and `/metrics` are served.
    pub http_address: SocketAddr,
    /// Whether to wait while another plugin has that address.
    pub standby: bool,
    /// Whether to talk to the API server.
    pub kubernetes: bool,
    /// Where sysfs is: `/sys`.
    pub sysfs: PathBuf,
    /// Where procfs is: `/proc`.
    pub procfs: PathBuf,
    /// How the GPUs' health is judged.
    pub health: HealthConfig,
    /// Whether the GPUs' metrics are told under `dcgm-exporter`'s names.
    pub dcgm_metrics: bool,
    /// How the node is labelled; `None` where it is not.
    pub labels: Option<LabelConfig>,
    /// Where each node's own configuration comes from; `None` where there is one for all.
    pub per_node: Option<PerNode>,
}

impl Config {
    /// The names that GPUs can have here.
    pub fn gpu_names(&self) -> GpuNames {
        GpuNames::of(&self.names, self.sharing.as_ref())
    }

    /// Whether containers are told their devices by CDI.
    pub fn uses_cdi(&self) -> bool {
        self.device_list_strategies.iter().any(|strategy| strategy.is_cdi())
    }

    /// MPS's folders, where shares are by MPS.
    pub fn mps_in_use(&self) -> Option<&MpsConfig> {
        let by_mps = self.sharing.as_ref().is_some_and(|sharing| sharing.strategy == SharingStrategy::Mps);
        self.mps.as_ref().filter(|_| by_mps)
    }
}

/// Why a configuration is not used.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file cannot be read.
    #[error("cannot read the configuration file {}: correct --config-file (CONFIG_FILE), or mount the file", .path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The file is far longer than any configuration.
    #[error("the configuration file {} has {length} bytes, at most {CONFIG_FILE_MAX_BYTES} are read: is it the right file?", .path.display())]
    TooLong {
        /// The file.
        path: PathBuf,
        /// Its length.
        length: u64,
    },
    /// The file is neither YAML nor JSON.
    #[error("the configuration file {place} cannot be read as YAML or JSON: {problem}")]
    Format {
        /// The file.
        place: String,
        /// What the reader says.
        problem: String,
    },
    /// A key that is not known, or a value that is not possible or not supported yet.
    #[error("{key} is {value} ({place}): {cure}")]
    Value {
        /// The key, with its path.
        key: String,
        /// The value as it was given.
        value: String,
        /// The flag, environment name or file that gave it.
        place: String,
        /// What would be right.
        cure: String,
    },
    /// Something that has no default is not given.
    #[error("{key} is not set: {cure}")]
    Missing {
        /// The key.
        key: &'static str,
        /// What to do.
        cure: &'static str,
    },
}
