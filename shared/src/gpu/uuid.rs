//! What names a GPU.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::device_id::DeviceId;

/// NVML's UUID of a whole GPU, `GPU-…`: stable across reboots and unique in the world.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct GpuUuid(String);

/// Why a text is no GPU UUID.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not a GPU UUID such as GPU-4cf8db2d-06c0-7d70-1a51-e59b25b2c16c")]
pub struct GpuUuidError(String);

impl GpuUuid {
    /// The UUID as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for GpuUuid {
    type Err = GpuUuidError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text.parse::<DeviceId>() {
            Ok(id) if text.starts_with("GPU-") && id.part() == text && id.token_of().is_none() => {
                Ok(Self(text.to_owned()))
            }
            _ => Err(GpuUuidError(text.chars().take(80).collect())),
        }
    }
}

impl TryFrom<String> for GpuUuid {
    type Error = GpuUuidError;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        text.parse()
    }
}

impl From<GpuUuid> for String {
    fn from(uuid: GpuUuid) -> Self {
        uuid.0
    }
}

impl fmt::Display for GpuUuid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}
