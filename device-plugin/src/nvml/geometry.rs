//! How a GPU can be cut, read from NVML once for each model.

use std::sync::{Mutex, PoisonError};

use nvml_wrapper::error::NvmlError;
use nvml_wrapper::struct_wrappers::device::ProfileInfo;
use nvml_wrapper::{Device, Nvml};
use stowage_shared::mig::{Geometry, Profile, ProfileName};
use stowage_shared::units::MemoryMib;

use super::raw;

/// One more than the last place of NVML's enumeration of GPU instance profiles: 17 is
/// `NVML_GPU_INSTANCE_PROFILE_3_SLICE_GFX`, which the bindings do not know yet.
const PROFILE_PLACES: u32 = 18;

/// The geometries that were read so far, by model and memory.
#[derive(Default)]
pub(super) struct Cache(Vec<(String, MemoryMib, Geometry)>);

/// The geometry of this GPU's model. The lock is not held while it is read.
pub(super) fn of(
    cache: &Mutex<Cache>,
    nvml: &Nvml,
    device: &Device<'_>,
    model: &str,
    memory: MemoryMib,
) -> Result<Geometry, NvmlError> {
    let known = || cache.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some((_, _, geometry)) = known().0.iter().find(|(name, size, _)| name == model && *size == memory)
    {
        return Ok(geometry.clone());
    }
    let geometry = read(nvml, device, memory)?;
    known().0.push((model.to_owned(), memory, geometry.clone()));
    Ok(geometry)
}

fn read(nvml: &Nvml, device: &Device<'_>, memory: MemoryMib) -> Result<Geometry, NvmlError> {
    let mut profiles = Vec::new();
    for place in 0..PROFILE_PLACES {
        let info = match device.profile_info(place) {
            Ok(info) => info,
            // This GPU, or this driver, has no such profile.
            Err(NvmlError::NotSupported | NvmlError::InvalidArg | NvmlError::NotFound) => continue,
            Err(error) => return Err(error),
        };
        let placements = raw::possible_placements(nvml.lib(), device, info.id)?;
        profiles.extend(profile(place, &info, &placements, memory));
    }
    let ends = profiles.iter().flat_map(|p| p.starts.iter().map(|start| start.saturating_add(p.size)));
    let memory_slices = ends.max().unwrap_or(0);
    let compute_slices = profiles.iter().map(|p| p.compute_slices).max().unwrap_or(0);
    Ok(Geometry { memory_slices, compute_slices, profiles })
}

/// A profile from what NVML says of it; `None` where the numbers cannot be true.
fn profile(
    place: u32,
    info: &ProfileInfo,
    placements: &[(u32, u32)],
    gpu_memory: MemoryMib,
) -> Option<Profile> {
    let attribute = attribute(place);
    let memory = MemoryMib(info.memory_size_mb);
    let mut starts: Vec<u8> =
        placements.iter().map(|&(start, _)| u8::try_from(start)).collect::<Result<_, _>>().ok()?;
    starts.sort_unstable();
    starts.dedup();
    Some(Profile {
        name: ProfileName::of(info.slice_count, memory, gpu_memory, attribute),
        id: info.id,
        compute_slices: u8::try_from(info.slice_count).ok()?,
        size: u8::try_from(placements.first()?.1).ok()?,
        starts,
        max_instances: u8::try_from(info.instance_count).ok()?,
        memory,
        multiprocessors: u16::try_from(info.multiprocessor_count).ok()?,
        media_engines: attribute.starts_with("+me"),
    })
}

/// What go-nvlib writes behind a profile's name, by the profile's place in the enumeration: `REV1` are those with
/// media engines, then follow `GFX`, `NO_ME` and `ALL_ME`.
fn attribute(place: u32) -> &'static str {
    match place {
        7 | 8 => "+me",
        10..=12 | 17 => "+gfx",
        13 | 14 => "-me",
        15 | 16 => "+me.all",
        _ => "",
    }
}
