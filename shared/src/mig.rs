//! MIG geometry: which slices a GPU can be cut into, and which of them exclude each other.
//!
//! Starts and sizes are counted in the memory slices *of that GPU* (8 on an A100, 4 on an A30, 12 on an
//! RTX PRO 6000 Blackwell), as NVML reports them. Nothing here assumes one of those numbers.

use std::fmt;
use std::str::FromStr;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::units::MemoryMib;

/// The most memory slices a GPU may have: slices are bits of a `u32`.
pub const MEMORY_SLICES_MAX: u8 = 32;

/// A MIG profile's name in NVIDIA's spelling: `1g.5gb`, `1g.5gb+me`, `1c.3g.20gb`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(try_from = "String", into = "String")]
#[schemars(with = "String")]
pub struct ProfileName(String);

/// Why a text is no MIG profile name.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not a MIG profile name such as 1g.5gb or 1g.5gb+me")]
pub struct ProfileNameError(String);

const PROFILE_NAME_MAX_BYTES: usize = 40;

impl ProfileName {
    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The name that NVIDIA's tools give a GPU instance whose one compute instance fills it.
    ///
    /// The gigabytes are not the instance's memory but its eighths of the GPU's, rounded as go-nvlib does:
    /// 4,864 MiB of a 40 GiB card is `5gb`. `attribute` is e.g. `+me`, `-me`, `+gfx` or empty.
    pub fn of(slices: u32, instance: MemoryMib, gpu: MemoryMib, attribute: &str) -> Self {
        let gpu_mib = gpu.0.max(1);
        let eighths = instance.0.saturating_mul(8).div_ceil(gpu_mib);
        let gpu_gib = gpu_mib.div_ceil(1024);
        let gigabytes = (eighths.saturating_mul(gpu_gib) + 4) / 8;
        Self(format!("{slices}g.{gigabytes}gb{attribute}"))
    }
}

impl FromStr for ProfileName {
    type Err = ProfileNameError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let digits = |part: &str, unit: &str| {
            part.strip_suffix(unit)
                .is_some_and(|n| !n.is_empty() && n.len() <= 4 && n.bytes().all(|b| b.is_ascii_digit()))
        };
        let (plain, attributes) = match text.find(['+', '-']) {
            Some(at) => text.split_at(at),
            None => (text, ""),
        };
        let parts: Vec<&str> = plain.split('.').collect();
        let shape = match parts.as_slice() {
            [g, gb] => digits(g, "g") && digits(gb, "gb"),
            [c, g, gb] => digits(c, "c") && digits(g, "g") && digits(gb, "gb"),
            _ => false,
        };
        let tail = attributes.bytes().all(|b| b.is_ascii_lowercase() || matches!(b, b'+' | b'-' | b'.'));
        if shape && tail && text.len() <= PROFILE_NAME_MAX_BYTES && !text.ends_with(['+', '-', '.']) {
            Ok(Self(text.to_owned()))
        } else {
            Err(ProfileNameError(text.chars().take(80).collect()))
        }
    }
}

impl TryFrom<String> for ProfileName {
    type Error = ProfileNameError;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        text.parse()
    }
}

impl From<ProfileName> for String {
    fn from(name: ProfileName) -> Self {
        name.0
    }
}

impl fmt::Display for ProfileName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// One kind of GPU instance that a GPU can be cut into.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Profile {
    /// NVIDIA's name, e.g. `2g.10gb`.
    pub name: ProfileName,
    /// NVML's profile id (`info.id`, e.g. 14), which is not the index it is enumerated by.
    pub id: u32,
    /// Compute slices.
    pub compute_slices: u8,
    /// Memory slices that it takes from its start on.
    pub size: u8,
    /// The memory slices at which it may start, ascending.
    pub starts: Vec<u8>,
    /// The most instances of it at once.
    pub max_instances: u8,
    /// Memory of one instance.
    pub memory: MemoryMib,
    /// Streaming multiprocessors of one instance.
    pub multiprocessors: u16,
    /// Whether it takes the GPU's shared media engines (`+me`): one instance a GPU can.
    pub media_engines: bool,
}

/// How one GPU can be cut.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Geometry {
    /// Memory slices: the unit of starts and sizes.
    pub memory_slices: u8,
    /// Compute slices.
    pub compute_slices: u8,
    /// The profiles, in NVML's order.
    pub profiles: Vec<Profile>,
}

/// Why a geometry cannot be true.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum GeometryError {
    /// A GPU of no slices, or of more than fit a mask.
    #[error("{0} memory slices: 1 to {MEMORY_SLICES_MAX} are possible")]
    MemorySlices(u8),
    /// A placement outside the GPU.
    #[error("profile {profile} at {start} takes {size} memory slices of {of}")]
    Outside {
        /// Which profile.
        profile: ProfileName,
        /// Its start.
        start: u8,
        /// Its size.
        size: u8,
        /// The GPU's memory slices.
        of: u8,
    },
}

impl Geometry {
    /// Checks that each placement lies within the GPU.
    ///
    /// # Errors
    /// [`GeometryError`], naming the first profile that does not.
    pub fn check(&self) -> Result<(), GeometryError> {
        if self.memory_slices == 0 || self.memory_slices > MEMORY_SLICES_MAX {
            return Err(GeometryError::MemorySlices(self.memory_slices));
        }
        for profile in &self.profiles {
            for &start in &profile.starts {
                if profile.size == 0
                    || u16::from(start) + u16::from(profile.size) > u16::from(self.memory_slices)
                {
                    let of = self.memory_slices;
                    return Err(GeometryError::Outside {
                        profile: profile.name.clone(),
                        start,
                        size: profile.size,
                        of,
                    });
                }
            }
        }
        Ok(())
    }

    /// The profile of that name.
    pub fn profile(&self, name: &ProfileName) -> Option<&Profile> {
        self.profiles.iter().find(|profile| &profile.name == name)
    }

    /// Every slice that could exist, each by itself: the profiles' starts, in NVML's order.
    pub fn slices(&self) -> impl Iterator<Item = MigSlice> + '_ {
        self.profiles.iter().flat_map(|profile| {
            profile.starts.iter().map(|&start| MigSlice {
                profile: profile.name.clone(),
                start,
                size: profile.size,
                media_engines: profile.media_engines,
            })
        })
    }
}

/// One slice of a GPU: a profile at a start.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct MigSlice {
    /// Its profile.
    pub profile: ProfileName,
    /// Its first memory slice.
    pub start: u8,
    /// How many memory slices it takes.
    pub size: u8,
    /// Whether it takes the GPU's shared media engines.
    pub media_engines: bool,
}

impl MigSlice {
    /// The memory slices it takes, as bits.
    pub fn mask(&self) -> u32 {
        let ones = 1_u64.checked_shl(u32::from(self.size)).map_or(u64::MAX, |bit| bit - 1);
        let mask = ones.checked_shl(u32::from(self.start)).unwrap_or(0) & u64::from(u32::MAX);
        u32::try_from(mask).unwrap_or(u32::MAX)
    }

    /// Whether both can exist at once: they share no memory slice, nor the one set of media engines.
    ///
    /// Compute slices need no look of their own: on every geometry that NVIDIA publishes, placements
    /// that share no memory slice never ask for more compute slices than there are (a test walks them all).
    pub fn conflicts(&self, other: &Self) -> bool {
        self.mask() & other.mask() != 0 || (self.media_engines && other.media_engines)
    }
}

#[cfg(test)]
mod tests;
