//! Device ids: what the kubelet sees, and NVIDIA's grammar of them.
//!
//! ```text
//! id       = part | part "::" replica | token
//! part     = "GPU-" uuid | "MIG-" uuid
//! token    = "GPU-" uuid "::" profile "::" number
//! replica, number = decimal number, counted from 0
//! ```
//! A replica is one share of a time-sliced GPU or MIG slice. A token, which NVIDIA's plugin does not have, is a
//! right to one MIG slice of a profile on that GPU, wherever on it: which slice, is decided when it is used.

use std::fmt;
use std::str::FromStr;

use crate::contract::DEVICE_ID_MAX_BYTES;
use crate::gpu::GpuUuid;
use crate::mig::ProfileName;

/// A device id, split into its halves. A token is a part of its own: nobody shares it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct DeviceId {
    part: String,
    replica: Option<u32>,
}

/// Why a text is no device id.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not a device id such as GPU-<uuid>, MIG-<uuid>, GPU-<uuid>::0 or GPU-<uuid>::1g.5gb::0")]
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

    /// The n-th token of a profile; `None` where it would be longer than a device id may be.
    pub fn token(gpu: &GpuUuid, profile: &ProfileName, n: u32) -> Option<Self> {
        let part = format!("{gpu}::{profile}::{n}");
        (part.len() <= DEVICE_ID_MAX_BYTES).then_some(Self { part, replica: None })
    }

    /// Whether it is a token, and of which GPU and profile.
    pub fn token_of(&self) -> Option<(&str, &str)> {
        let (gpu, rest) = self.part.split_once("::")?;
        Some((gpu, rest.split_once("::")?.0))
    }

    /// NVML's UUID of the GPU or MIG device, or the whole of a token.
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
        let mut pieces = text.split("::");
        let part = pieces.next().unwrap_or_default();
        let uuid = part.strip_prefix("GPU-").or_else(|| part.strip_prefix("MIG-")).ok_or_else(error)?;
        if uuid.is_empty() || !uuid.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-') {
            return Err(error());
        }
        let number = |digits: &str| {
            let canonical = digits == "0" || !digits.starts_with(['0', '+']);
            digits.parse::<u32>().ok().filter(|_| canonical)
        };
        let (part, replica) = match (pieces.next(), pieces.next(), pieces.next()) {
            (None, ..) => (part, None),
            (Some(digits), None, _) => (part, Some(number(digits).ok_or_else(error)?)),
            (Some(profile), Some(digits), None) => {
                let is_token = part.starts_with("GPU-")
                    && profile.parse::<ProfileName>().is_ok()
                    && number(digits).is_some();
                (is_token.then_some(text).ok_or_else(error)?, None)
            }
            _ => return Err(error()),
        };
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
            let id = text.parse::<DeviceId>().unwrap();
            assert_eq!((id.to_string().as_str(), id.token_of()), (text, None));
        }
    }

    #[test]
    fn the_longest_token_of_every_known_profile_is_a_device_id() {
        let gpu: GpuUuid = "GPU-4cf8db2d-06c0-7d70-1a51-e59b25b2c16c".parse().unwrap();
        for profile in
            crate::models::MODELS.iter().filter_map(crate::models::Model::geometry).flat_map(|g| g.profiles)
        {
            let token = DeviceId::token(&gpu, &profile.name, 31).unwrap();
            let read: DeviceId = token.to_string().parse().unwrap();
            assert_eq!(read, token);
            assert_eq!(read.token_of(), Some((gpu.as_str(), profile.name.as_str())));
            assert_eq!(read.replica_index(), None);
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
            "GPU-a::1g.5gb",
            "GPU-a::1g.5gb::",
            "GPU-a::1g.5gb::01",
            "GPU-a::1g.5gb::0::0",
            "MIG-a::1g.5gb::0",
            "GPU-a::gpu::0",
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
