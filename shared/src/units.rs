//! Units that cross a border between programs.

use std::fmt;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// GPU memory in mebibytes (MiB): the unit of the node label `nvidia.com/gpu.memory`.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize, JsonSchema,
)]
#[serde(transparent)]
pub struct MemoryMib(pub u64);

impl MemoryMib {
    /// Rounds bytes down to whole mebibytes, as NVIDIA's tools do.
    pub const fn from_bytes(bytes: u64) -> Self {
        Self(bytes >> 20)
    }

    /// The same amount in bytes; saturates at `u64::MAX`.
    pub const fn to_bytes(self) -> u64 {
        self.0.saturating_mul(1 << 20)
    }
}

impl fmt::Display for MemoryMib {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} MiB", self.0)
    }
}
