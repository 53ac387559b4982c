//! All that changes while a node is up: MIG modes and instances, faults, load, events. One value, shared by
//! all processes.
//!
//! [`State`] is plain data, as it lies in the state file. [`Node`] changes it by the rules of the hardware,
//! for the C API and for tests alike; a [`Refusal`] says which rule forbids a change. What NVML itself cannot
//! do, and only tests and people can, is in `faults` (what breaks) and `load` (what runs).

use serde::{Deserialize, Serialize};
use stowage_shared::mig::{MigSlice, Profile};

use crate::hardware::{GpuHardware, Hardware};

mod events;
mod faults;
mod latency;
mod load;
mod node;
pub mod placement;
#[cfg(test)]
mod tests;

pub use events::{EVENTS_MAX, Event};
pub use faults::{Created, CreationFault, EccErrors, RecoveryAction, RemappedRows};
pub use latency::{LATENCY_MAX_MS, Latency, Operation};
pub use load::{PROCESSES_MAX, Process, Sensors, Utilization};
pub use node::{Activation, Node, Refusal};

/// The version of the state file's form.
pub(crate) const STATE_VERSION: u32 = 3;

/// The changing half of a node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct State {
    pub(crate) version: u32,
    /// Which description it belongs to ([`Hardware::digest`]).
    pub(crate) description: String,
    /// Grows with each instance, so that a handle never means another instance than the one it was made for.
    pub(crate) next_serial: u64,
    /// How long changes take.
    pub latency: Latency,
    /// By GPU index.
    pub gpus: Vec<GpuState>,
    /// The last events, oldest first, at most [`EVENTS_MAX`].
    pub(crate) events: Vec<Event>,
    /// How many events there have ever been.
    pub(crate) event_count: u64,
}

/// The changing half of a GPU.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct GpuState {
    /// Whether it has fallen off the bus.
    pub lost: bool,
    /// Whether every call that concerns it hangs.
    pub hanging: bool,
    /// Whether MIG mode is on.
    pub mig_enabled: bool,
    /// Whether MIG mode will be on after the next reset.
    pub mig_pending: bool,
    /// Which processes may compute on it, as NVML numbers it; 0 for any.
    pub compute_mode: u32,
    /// In order of id.
    pub gpu_instances: Vec<GpuInstance>,
    /// Creations that fail on demand.
    pub creation_faults: Vec<CreationFault>,
    /// ECC errors counted.
    pub ecc: EccErrors,
    /// Rows of memory that were replaced.
    pub remapped_rows: RemappedRows,
    /// What the driver recommends to do with it.
    pub recovery_action: RecoveryAction,
    /// How busy it is.
    pub utilization: Utilization,
    /// What its sensors read; `None` for what fits the utilization.
    pub sensors: Option<Sensors>,
    /// Processes that compute on it, at most [`PROCESSES_MAX`].
    pub processes: Vec<Process>,
}

/// One GPU instance.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct GpuInstance {
    /// Unique on its GPU while it lives; from 1.
    pub id: u32,
    pub(crate) serial: u64,
    /// NVML's profile id, e.g. 9 for `3g.20gb`.
    pub profile_id: u32,
    /// Its first memory slice.
    pub start: u8,
    /// In order of id.
    pub compute_instances: Vec<ComputeInstance>,
}

/// One compute instance: with its GPU instance, it is what CUDA and NVML call a MIG device.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ComputeInstance {
    /// Unique in its GPU instance while it lives; from 0.
    pub id: u32,
    pub(crate) serial: u64,
    /// Its first compute slice within the GPU instance.
    pub start: u8,
    /// Its compute slices.
    pub slices: u8,
}

/// Why a state read from a file cannot belong to this hardware.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum StateError {
    /// Written by another version of this library.
    #[error("its version is {0}, this library writes {STATE_VERSION}")]
    Version(u32),
    /// Made from another description.
    #[error("it belongs to another description")]
    OtherDescription,
    /// Edited by hand, or damaged.
    #[error("GPU {gpu} has an impossible MIG instance {instance}")]
    Impossible {
        /// Index of the GPU.
        gpu: usize,
        /// Id of the GPU instance.
        instance: u32,
    },
}

impl State {
    /// GPUs out of the box: no MIG, nothing lost.
    pub(crate) fn of(hardware: &Hardware) -> Self {
        Self {
            version: STATE_VERSION,
            description: hardware.digest.clone(),
            next_serial: 1,
            latency: Latency::default(),
            gpus: vec![GpuState::default(); hardware.gpus.len()],
            events: Vec::new(),
            event_count: 0,
        }
    }

    /// Checks that it is a state of that hardware, so that nothing later can be out of range.
    pub(crate) fn check(&self, hardware: &Hardware) -> Result<(), StateError> {
        if self.version != STATE_VERSION {
            return Err(StateError::Version(self.version));
        }
        if self.description != hardware.digest || self.gpus.len() != hardware.gpus.len() {
            return Err(StateError::OtherDescription);
        }
        for (gpu, (state, hardware)) in self.gpus.iter().zip(&hardware.gpus).enumerate() {
            let mut slices: Vec<MigSlice> = Vec::new();
            for instance in &state.gpu_instances {
                let slice = instance.slice(hardware).filter(|slice| {
                    instance.compute_instances_are_possible(hardware)
                        && !slices.iter().any(|s| s.conflicts(slice))
                });
                slices.push(slice.ok_or(StateError::Impossible { gpu, instance: instance.id })?);
            }
        }
        Ok(())
    }

    /// How many events there have ever been.
    pub fn event_count(&self) -> u64 {
        self.event_count
    }

    /// The GPU of that index.
    pub fn gpu(&self, index: u32) -> Option<&GpuState> {
        self.gpus.get(usize::try_from(index).ok()?)
    }
}

impl GpuState {
    /// The GPU instance of that id.
    pub fn gpu_instance(&self, id: u32) -> Option<&GpuInstance> {
        self.gpu_instances.iter().find(|instance| instance.id == id)
    }

    /// The MIG devices in NVML's order: by GPU instance, then by compute instance.
    pub fn mig_devices(&self) -> impl Iterator<Item = (&GpuInstance, &ComputeInstance)> {
        self.gpu_instances
            .iter()
            .flat_map(|gpu| gpu.compute_instances.iter().map(move |compute| (gpu, compute)))
    }

    /// The slices in use.
    pub(crate) fn slices(&self, hardware: &GpuHardware) -> Vec<MigSlice> {
        self.gpu_instances.iter().filter_map(|instance| instance.slice(hardware)).collect()
    }
}

impl GpuInstance {
    /// The slice it takes; `None` if the GPU has no such placement.
    pub fn slice(&self, hardware: &GpuHardware) -> Option<MigSlice> {
        slice_of(hardware.profile(self.profile_id)?, self.start)
    }

    fn compute_instances_are_possible(&self, hardware: &GpuHardware) -> bool {
        let whole = hardware.profile(self.profile_id).map_or(0, |profile| profile.compute_slices);
        self.compute_instances.iter().all(|compute| {
            placement::compute_sizes(whole).any(|size| size == compute.slices)
                && placement::compute_starts(whole, compute.slices).any(|start| start == compute.start)
        })
    }

    /// The compute instance of that id.
    pub fn compute_instance(&self, id: u32) -> Option<&ComputeInstance> {
        self.compute_instances.iter().find(|instance| instance.id == id)
    }
}

/// That profile at that start; `None` if it may not start there.
pub(crate) fn slice_of(profile: &Profile, start: u8) -> Option<MigSlice> {
    profile.starts.contains(&start).then(|| MigSlice {
        profile: profile.name.clone(),
        start,
        size: profile.size,
        media_engines: profile.media_engines,
    })
}
