//! The description of a node: what a user writes, and what it means once checked.
//!
//! [`Description`] mirrors the YAML file. [`Description::check`] turns it into [`Boot`]: hardware and a first
//! state that cannot be wrong, or one error that names the key, the value and the cure. JSON is YAML, so
//! [`Description::write`] writes JSON and needs no YAML writer.

use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::state::Latency;

mod boot;
mod links;

pub use boot::Boot;
pub use links::{FabricDescription, NVLINK_GROUPS_MAX, NvLinkDescription};

/// The most GPUs of one node.
pub const GPUS_MAX: u32 = 64;
/// The longest description read, in bytes.
pub const DESCRIPTION_MAX_BYTES: u64 = 1 << 20;
/// The highest NUMA node: Linux knows at most 1,024 (`CONFIG_NODES_SHIFT` of 10).
pub const NUMA_NODE_MAX: u32 = 1023;
/// The most memory of one GPU: 16 TiB in MiB.
pub const MEMORY_MAX_MIB: u64 = 1 << 24;

/// A node, as its YAML file describes it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Description {
    /// The driver's version, e.g. `570.86.15`.
    #[serde(default = "default_driver_version")]
    pub driver_version: String,
    /// The newest CUDA version of that driver, e.g. `12.8`.
    #[serde(default = "default_cuda_version")]
    pub cuda_version: String,
    /// Makes UUIDs unique per node, as does `name`.
    #[serde(default)]
    pub seed: u64,
    /// Makes UUIDs unique per node, as does `seed`. Nothing else looks at it.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub name: String,
    /// How long changes through the C API take.
    #[serde(default, skip_serializing_if = "is_default")]
    pub latency: Latency,
    /// The GPUs, in NVML's order. None is a node whose driver finds no GPU.
    pub gpus: Vec<GpuDescription>,
    /// Which GPUs NVLinks join.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub nv_links: Vec<NvLinkDescription>,
    /// The NVLink fabric of several nodes that all its GPUs belong to; none if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fabric: Option<FabricDescription>,
}

/// One GPU, or several alike.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct GpuDescription {
    /// A key of [`stowage_shared::models::MODELS`], e.g. `a100-40gb`.
    pub model: String,
    /// How many GPUs of this kind follow each other; 1 if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub count: Option<u32>,
    /// `GPU-<uuid>`; derived from seed, name, index and model if absent. Only for a single GPU.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub uuid: Option<String>,
    /// Total memory in MiB; the model's if absent. 0 is for a GPU without MIG that does not tell, as one that shares the
    /// machine's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub memory_mib: Option<u64>,
    /// The NUMA node it is attached to; none if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub numa_node: Option<u32>,
    /// The PCIe switch it is attached to; GPUs of the same number share one. None if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pcie_switch: Option<u32>,
    /// Whether MIG mode is on at boot.
    #[serde(default)]
    pub mig_mode: MigMode,
    /// GPU instances that exist at boot, created in this order.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub mig_instances: Vec<MigInstanceDescription>,
    /// Whether it has fallen off the bus: what is asked of it fails with `GPU_IS_LOST`.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub lost: bool,
}

/// MIG mode, as a description says it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum MigMode {
    /// Off: the GPU is used whole.
    #[default]
    Disabled,
    /// On: the GPU is used through its instances only.
    Enabled,
}

/// One GPU instance and its compute instances.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct MigInstanceDescription {
    /// A profile of the GPU's model, e.g. `3g.20gb`.
    pub profile: String,
    /// Its first memory slice; if absent, the placement that keeps most others possible.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub start: Option<u8>,
    /// The compute slices of each compute instance; if absent, one that fills the GPU instance. Empty: none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub compute_instances: Option<Vec<u8>>,
}

/// Why there is no usable description. `Display` tells the cure.
#[derive(Debug, thiserror::Error)]
pub enum DescriptionError {
    /// The file cannot be read.
    #[error("cannot read the description {path}")]
    Read {
        /// The file.
        path: String,
        /// Why.
        source: std::io::Error,
    },
    /// The file cannot be written.
    #[error("cannot write the description {path}")]
    Write {
        /// The file.
        path: String,
        /// Why.
        source: std::io::Error,
    },
    /// The file is far larger than any description.
    #[error("the description {0} is larger than {DESCRIPTION_MAX_BYTES} bytes: is it the right file?")]
    TooLarge(String),
    /// The text is no description: not YAML, a missing or unknown key, a value of the wrong type.
    #[error("{place}: {problem}")]
    Yaml {
        /// The file, or what stands for it.
        place: String,
        /// What the YAML reader says, with line and column.
        problem: String,
    },
    /// A value that cannot be.
    #[error("{key} {problem}")]
    Value {
        /// The key, e.g. `gpus[1].migInstances[0].start`.
        key: String,
        /// What is wrong with it, and what would be right.
        problem: String,
    },
}

impl Description {
    /// A node of these GPUs, with the default driver.
    pub fn new(gpus: Vec<GpuDescription>) -> Self {
        Self {
            driver_version: default_driver_version(),
            cuda_version: default_cuda_version(),
            seed: 0,
            name: String::new(),
            latency: Latency::default(),
            gpus,
            nv_links: Vec::new(),
            fabric: None,
        }
    }

    /// The same node under another name: other UUIDs.
    #[must_use]
    pub fn named(mut self, name: &str) -> Self {
        name.clone_into(&mut self.name);
        self
    }

    /// The same node, whose changes take that long.
    #[must_use]
    pub fn with_latency(mut self, latency: Latency) -> Self {
        self.latency = latency;
        self
    }

    /// The same node with these NVLinks too.
    #[must_use]
    pub fn linked(mut self, links: NvLinkDescription) -> Self {
        self.nv_links.push(links);
        self
    }

    /// Reads a description from YAML text. `place` is named in errors.
    ///
    /// # Errors
    /// [`DescriptionError::Yaml`]. The values are not looked at: [`Description::check`] does that.
    pub fn parse(text: &str, place: &str) -> Result<Self, DescriptionError> {
        serde_saphyr::from_str(text)
            .map_err(|error| DescriptionError::Yaml { place: place.to_owned(), problem: error.to_string() })
    }

    /// Reads a description from a file.
    ///
    /// # Errors
    /// [`DescriptionError`], except `Value` and `Write`.
    pub fn read(path: &Path) -> Result<Self, DescriptionError> {
        let place = path.display().to_string();
        let read = |source| DescriptionError::Read { path: place.clone(), source };
        if std::fs::metadata(path).map_err(read)?.len() > DESCRIPTION_MAX_BYTES {
            return Err(DescriptionError::TooLarge(place));
        }
        Self::parse(&std::fs::read_to_string(path).map_err(read)?, &place)
    }

    /// Writes it to a file, as JSON, which is YAML too.
    ///
    /// # Errors
    /// [`DescriptionError::Write`].
    pub fn write(&self, path: &Path) -> Result<(), DescriptionError> {
        let write = |source| DescriptionError::Write { path: path.display().to_string(), source };
        let text = serde_json::to_string_pretty(self).map_err(|error| write(error.into()))?;
        std::fs::write(path, text + "\n").map_err(write)
    }
}

impl GpuDescription {
    /// One GPU of that model, as it comes out of the box.
    pub fn new(model: &str) -> Self {
        Self {
            model: model.to_owned(),
            count: None,
            uuid: None,
            memory_mib: None,
            numa_node: None,
            pcie_switch: None,
            mig_mode: MigMode::Disabled,
            mig_instances: Vec::new(),
            lost: false,
        }
    }

    /// So many of it.
    #[must_use]
    pub fn times(mut self, count: u32) -> Self {
        self.count = Some(count);
        self
    }

    /// Attached to that NUMA node.
    #[must_use]
    pub fn on_numa_node(mut self, node: u32) -> Self {
        self.numa_node = Some(node);
        self
    }

    /// Attached to that PCIe switch.
    #[must_use]
    pub fn behind_pcie_switch(mut self, switch: u32) -> Self {
        self.pcie_switch = Some(switch);
        self
    }

    /// In MIG mode, with one GPU instance of each of these profiles, each placed as NVML would.
    #[must_use]
    pub fn with_mig(mut self, profiles: &[&str]) -> Self {
        self.mig_mode = MigMode::Enabled;
        self.mig_instances = profiles.iter().map(|profile| MigInstanceDescription::new(profile)).collect();
        self
    }

    /// Fallen off the bus.
    #[must_use]
    pub fn lost(mut self) -> Self {
        self.lost = true;
        self
    }
}

impl MigInstanceDescription {
    /// One GPU instance, filled by one compute instance, placed as NVML would.
    pub fn new(profile: &str) -> Self {
        Self { profile: profile.to_owned(), start: None, compute_instances: None }
    }

    /// The same, at that memory slice.
    #[must_use]
    pub fn at(mut self, start: u8) -> Self {
        self.start = Some(start);
        self
    }
}

fn default_driver_version() -> String {
    "570.86.15".to_owned()
}

fn default_cuda_version() -> String {
    "12.8".to_owned()
}

fn is_default<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}
