//! Configuration: read once, checked once, then trusted.
//!
//! Flags come before the environment, that before NVIDIA's file, that before the defaults. [`Config`] cannot hold
//! a wrong value; whoever gives one is told the key, the value, where it stands and what would be right.

mod check;
mod file;
pub mod settings;
#[cfg(test)]
mod tests;

use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;

pub use check::{arguments, load};
pub use file::{CONFIG_FILE_MAX_BYTES, File, TimeSlicing};

/// How MIG devices are offered; NVIDIA's words.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MigStrategy {
    /// As if there were none: each GPU is `nvidia.com/gpu`, whatever its MIG mode.
    None,
    /// All GPUs are cut alike, and each slice is `nvidia.com/gpu`.
    Single,
    /// Whole GPUs are `nvidia.com/gpu`, slices `nvidia.com/mig-<profile>`.
    Mixed,
}

/// What `NVIDIA_VISIBLE_DEVICES` lists.
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
    /// Whether a node without a working NVML ends the program.
    pub fail_on_init_error: bool,
    /// What `NVIDIA_VISIBLE_DEVICES` lists.
    pub device_id_strategy: DeviceIdStrategy,
    /// Whether `Allocate` names device nodes.
    pub pass_device_specs: bool,
    /// Where the host has `dev/nvidia*`.
    pub dev_root: PathBuf,
    /// Where this program sees the driver root.
    pub container_driver_root: PathBuf,
    /// Which resources are shared.
    pub time_slicing: Option<TimeSlicing>,
    /// Where the kubelet takes registrations.
    pub kubelet_socket: PathBuf,
    /// Where the kubelet tells who holds what.
    pub pod_resources_socket: PathBuf,
    /// Where `/livez`, `/readyz` and `/metrics` are served.
    pub http_address: SocketAddr,
    /// Whether to talk to the API server.
    pub kubernetes: bool,
    /// Where sysfs is: `/sys`.
    pub sysfs: PathBuf,
    /// Where procfs is: `/proc`.
    pub procfs: PathBuf,
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
