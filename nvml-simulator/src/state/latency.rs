//! How long changes of a node take.
//!
//! On real hardware, creating and destroying MIG instances takes from a fraction of a second to some
//! seconds; nobody publishes figures, so they are the user's to set, in the description and at run time. Only
//! calls through the C API wait; other calls of the process go on meanwhile. A change takes effect at the
//! end of its time, and what is refused is refused at once.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::{Node, Refusal};

/// The longest that a change may take: a minute, in milliseconds.
pub const LATENCY_MAX_MS: u32 = 60_000;

/// How long each kind of change takes, in milliseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Latency {
    /// Creating a GPU instance.
    pub create_gpu_instance_ms: u32,
    /// Destroying a GPU instance.
    pub destroy_gpu_instance_ms: u32,
    /// Creating a compute instance.
    pub create_compute_instance_ms: u32,
    /// Destroying a compute instance.
    pub destroy_compute_instance_ms: u32,
    /// Switching MIG mode.
    pub set_mig_mode_ms: u32,
}

/// A change that takes time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Operation {
    /// Creating a GPU instance.
    CreateGpuInstance,
    /// Destroying a GPU instance.
    DestroyGpuInstance,
    /// Creating a compute instance.
    CreateComputeInstance,
    /// Destroying a compute instance.
    DestroyComputeInstance,
    /// Switching MIG mode.
    SetMigMode,
    /// Switching compute mode.
    SetComputeMode,
}

impl Latency {
    /// So long for each.
    pub fn of_each_ms(milliseconds: u32) -> Self {
        Self {
            create_gpu_instance_ms: milliseconds,
            destroy_gpu_instance_ms: milliseconds,
            create_compute_instance_ms: milliseconds,
            destroy_compute_instance_ms: milliseconds,
            set_mig_mode_ms: milliseconds,
        }
    }

    /// How long that change takes.
    pub fn of(&self, operation: Operation) -> Duration {
        let milliseconds = match operation {
            Operation::CreateGpuInstance => self.create_gpu_instance_ms,
            Operation::DestroyGpuInstance => self.destroy_gpu_instance_ms,
            Operation::CreateComputeInstance => self.create_compute_instance_ms,
            Operation::DestroyComputeInstance => self.destroy_compute_instance_ms,
            Operation::SetMigMode => self.set_mig_mode_ms,
            Operation::SetComputeMode => 0,
        };
        Duration::from_millis(milliseconds.into())
    }

    /// The key and the value of the first that is longer than [`LATENCY_MAX_MS`].
    pub(crate) fn too_long(&self) -> Option<(&'static str, u32)> {
        [
            ("createGpuInstanceMs", self.create_gpu_instance_ms),
            ("destroyGpuInstanceMs", self.destroy_gpu_instance_ms),
            ("createComputeInstanceMs", self.create_compute_instance_ms),
            ("destroyComputeInstanceMs", self.destroy_compute_instance_ms),
            ("setMigModeMs", self.set_mig_mode_ms),
        ]
        .into_iter()
        .find(|(_, milliseconds)| *milliseconds > LATENCY_MAX_MS)
    }
}

impl Node<'_> {
    /// Sets how long changes take, from the next call on.
    ///
    /// # Errors
    /// [`Refusal::Range`] above [`LATENCY_MAX_MS`].
    pub fn set_latency(&mut self, latency: Latency) -> Result<(), Refusal> {
        if let Some((what, value)) = latency.too_long() {
            return Err(Refusal::Range { what, value: value.into(), most: LATENCY_MAX_MS.into() });
        }
        self.state.latency = latency;
        Ok(())
    }
}
