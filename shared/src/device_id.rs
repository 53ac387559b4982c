//! Device ids: what the kubelet sees, and NVIDIA's grammar of them.
//!
//! ```text
//! id       = part | part "::" replica
//! part     = "GPU-" uuid | "MIG-" uuid
//! replica  = decimal number, counted from 0
//! ```
//! A replica is one share of a time-sliced GPU or MIG slice.

use std::fmt;
use std::str::FromStr;

use crate::contract::DEVICE_ID_MAX_BYTES;

/// A device id, split into its halves.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct DeviceId {
    part: String,
    replica: Option<u32>,
}

/// Why a text is no device id.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not a device id such as GPU-<uuid>, MIG-<uuid> or GPU-<uuid>::0")]
pub struct DeviceIdError(String);

impl DeviceId {
    /// The device that is the whole of a part.
    pub fn exclusive(part: impl Into<String>) -> Self {
        Self { part: part.into(), replica: None }
    }

    /// One replica of a shared part.
    pub fn replica(part: impl Into<String>, replica: u32) -> Self {
        Self { part: part.into(), replica: Some(replica) }
    }

    /// NVML's UUID of the GPU or MIG device.
    pub fn part(&self) -> &str {
        &self.part
    }

    /// Which share of the part, counted from 0; `None` where it is handed out whole.
    pub fn replica_index(&self) -> Option<u32> {
        self.replica
    }
}

impl fmt::Display for DeviceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.replica {
            None => f.write_str(&self.part),
            Some(replica) => write!(f, "{}::{replica}", self.part),
        }
    }
}

impl FromStr for DeviceId {
    type Err = DeviceIdError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let error = || DeviceIdError(text.chars().take(80).collect());
        if text.len() > DEVICE_ID_MAX_BYTES {
            return Err(error());
        }
        let (part, replica) = match text.split_once("::") {
            None => (text, None),
            Some((part, digits)) => {
                let canonical = digits == "0" || !digits.starts_with(['0', '+']);
                (part, Some(digits.parse().ok().filter(|_| canonical).ok_or_else(error)?))
            }
        };
        let uuid = part.strip_prefix("GPU-").or_else(|| part.strip_prefix("MIG-")).ok_or_else(error)?;
        if uuid.is_empty() || !uuid.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-') {
            return Err(error());
        }
        Ok(Self { part: part.to_owned(), replica })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn nvidias_ids_are_read_and_written_alike() {
        for text in ["GPU-4cf8db2d-06c0-7d70-1a51-e59b25b2c16c", "MIG-4cf8db2d::0", "GPU-4cf8db2d::12"] {
            assert_eq!(text.parse::<DeviceId>().unwrap().to_string(), text);
        }
    }

    #[test]
    fn anything_else_is_refused() {
        let long = format!("GPU-{}", "a".repeat(60));
        for text in [
            "",
            "GPU-",
            "gpu-1",
            "GPU-a::",
            "GPU-a::01",
            "GPU-a::+1",
            "GPU-a::1::2",
            "GPU-a b",
            "GPU-a::-1",
            &long,
        ] {
            assert!(text.parse::<DeviceId>().is_err(), "{text}");
        }
    }

    proptest! {
        #[test]
        fn parsing_never_panics_and_what_parses_prints_back(text in ".{0,80}") {
            if let Ok(id) = text.parse::<DeviceId>() {
                prop_assert_eq!(id.to_string(), text);
            }
        }
    }
}
