//! MIG profiles: their numbers in NVML's enumerations, their engines, the structs that describe them.

use std::ffi::{c_uint, c_ulonglong};

use nvml_wrapper_sys::bindings as nvml;
use nvml_wrapper_sys::bindings::{
    nvmlComputeInstanceProfileInfo_t, nvmlComputeInstanceProfileInfo_v2_t,
    nvmlComputeInstanceProfileInfo_v3_t, nvmlDeviceAttributes_t, nvmlGpuInstanceProfileInfo_t,
    nvmlGpuInstanceProfileInfo_v2_t, nvmlGpuInstanceProfileInfo_v3_t,
};
use stowage_shared::mig::{Geometry, Profile};

use super::pointer::{char_array, struct_version};
use super::resolve::{MigDevice, compute_profile_name};

/// One more than the last GPU instance profile of NVML's enumeration. The bindings are one profile short:
/// 17 is `NVML_GPU_INSTANCE_PROFILE_3_SLICE_GFX`.
pub(super) const GPU_PROFILE_COUNT: c_uint = 18;
/// One more than the last compute instance profile: 8 is `NVML_COMPUTE_INSTANCE_PROFILE_7_SLICE_NVL`.
pub(super) const COMPUTE_PROFILE_COUNT: c_uint = 9;

/// Engines of an instance.
///
/// The table of models has none, so they are set by rules that fit the published A100 table in kind: copy
/// engines as compute slices, decoders as pairs of memory eighths, JPEG and optical flow for `+me` and for
/// the whole GPU. Labels look at them; placement does not.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Engines {
    copy: c_uint,
    decoder: c_uint,
    encoder: c_uint,
    jpeg: c_uint,
    ofa: c_uint,
}

fn engines(geometry: &Geometry, profile: &Profile) -> Engines {
    let eighths = c_uint::from(profile.size) * 8 / c_uint::from(geometry.memory_slices.max(1));
    let whole = profile.size == geometry.memory_slices;
    let special = c_uint::from(profile.media_engines || whole);
    let none = attribute(profile) == "-me";
    Engines {
        copy: profile.compute_slices.into(),
        decoder: if none { 0 } else { (eighths / 2).max(special) },
        encoder: 0,
        jpeg: special,
        ofa: special,
    }
}

fn attribute(profile: &Profile) -> &str {
    let name = profile.name.as_str();
    name.find(['+', '-']).and_then(|at| name.get(at..)).unwrap_or_default()
}

/// Whether it can draw as well as compute.
fn graphics(profile: &Profile) -> bool {
    attribute(profile) == "+gfx"
}

/// The profile at that place of NVML's enumeration (`NVML_GPU_INSTANCE_PROFILE_*`), if this GPU has it.
pub(super) fn by_enumeration(geometry: &Geometry, number: c_uint) -> Option<&Profile> {
    geometry.profiles.iter().find(|profile| enumeration(geometry, profile) == Some(number))
}

fn enumeration(geometry: &Geometry, profile: &Profile) -> Option<c_uint> {
    // Two profiles of one slice without attribute: the one of more memory is "rev2".
    let doubled = geometry.profiles.iter().any(|other| {
        other.compute_slices == profile.compute_slices
            && attribute(other).is_empty()
            && other.size < profile.size
    });
    Some(match (profile.compute_slices, attribute(profile)) {
        (1, "") if doubled => nvml::NVML_GPU_INSTANCE_PROFILE_1_SLICE_REV2,
        (1, "") => nvml::NVML_GPU_INSTANCE_PROFILE_1_SLICE,
        (2, "") => nvml::NVML_GPU_INSTANCE_PROFILE_2_SLICE,
        (3, "") => nvml::NVML_GPU_INSTANCE_PROFILE_3_SLICE,
        (4, "") => nvml::NVML_GPU_INSTANCE_PROFILE_4_SLICE,
        (6, "") => nvml::NVML_GPU_INSTANCE_PROFILE_6_SLICE,
        (7, "") => nvml::NVML_GPU_INSTANCE_PROFILE_7_SLICE,
        (8, "") => nvml::NVML_GPU_INSTANCE_PROFILE_8_SLICE,
        (1, "+me") => nvml::NVML_GPU_INSTANCE_PROFILE_1_SLICE_REV1,
        (2, "+me") => nvml::NVML_GPU_INSTANCE_PROFILE_2_SLICE_REV1,
        (1, "+gfx") => nvml::NVML_GPU_INSTANCE_PROFILE_1_SLICE_GFX,
        (2, "+gfx") => nvml::NVML_GPU_INSTANCE_PROFILE_2_SLICE_GFX,
        (4, "+gfx") => nvml::NVML_GPU_INSTANCE_PROFILE_4_SLICE_GFX,
        (1, "-me") => nvml::NVML_GPU_INSTANCE_PROFILE_1_SLICE_NO_ME,
        (2, "-me") => nvml::NVML_GPU_INSTANCE_PROFILE_2_SLICE_NO_ME,
        (1, "+me.all") => nvml::NVML_GPU_INSTANCE_PROFILE_1_SLICE_ALL_ME,
        (2, "+me.all") => nvml::NVML_GPU_INSTANCE_PROFILE_2_SLICE_ALL_ME,
        _ => return None,
    })
}

/// The compute slices of a compute instance profile, which is its place in the enumeration and its id too.
pub(super) fn compute_slices(profile: c_uint) -> Option<u8> {
    [(0, 1), (1, 2), (2, 3), (3, 4), (4, 7), (5, 8), (6, 6)]
        .into_iter()
        .find(|row| row.0 == profile)
        .map(|row| row.1)
}

/// The compute instance profile of so many compute slices.
pub(super) fn compute_profile(slices: u8) -> c_uint {
    (0..COMPUTE_PROFILE_COUNT).find(|&profile| compute_slices(profile) == Some(slices)).unwrap_or(c_uint::MAX)
}

pub(super) fn gpu_profile_info(geometry: &Geometry, profile: &Profile) -> nvmlGpuInstanceProfileInfo_t {
    let engines = engines(geometry, profile);
    nvmlGpuInstanceProfileInfo_t {
        id: profile.id,
        isP2pSupported: 0,
        sliceCount: profile.compute_slices.into(),
        instanceCount: profile.max_instances.into(),
        multiprocessorCount: profile.multiprocessors.into(),
        copyEngineCount: engines.copy,
        decoderCount: engines.decoder,
        encoderCount: engines.encoder,
        jpegCount: engines.jpeg,
        ofaCount: engines.ofa,
        memorySizeMB: profile.memory.0,
    }
}

pub(super) fn gpu_profile_info_v2(geometry: &Geometry, profile: &Profile) -> nvmlGpuInstanceProfileInfo_v2_t {
    let info = gpu_profile_info(geometry, profile);
    nvmlGpuInstanceProfileInfo_v2_t {
        version: struct_version::<nvmlGpuInstanceProfileInfo_v2_t>(2),
        id: info.id,
        isP2pSupported: info.isP2pSupported,
        sliceCount: info.sliceCount,
        instanceCount: info.instanceCount,
        multiprocessorCount: info.multiprocessorCount,
        copyEngineCount: info.copyEngineCount,
        decoderCount: info.decoderCount,
        encoderCount: info.encoderCount,
        jpegCount: info.jpegCount,
        ofaCount: info.ofaCount,
        memorySizeMB: info.memorySizeMB,
        name: char_array(&format!("MIG {}", profile.name)),
    }
}

pub(super) fn gpu_profile_info_v3(geometry: &Geometry, profile: &Profile) -> nvmlGpuInstanceProfileInfo_v3_t {
    let info = gpu_profile_info(geometry, profile);
    nvmlGpuInstanceProfileInfo_v3_t {
        version: struct_version::<nvmlGpuInstanceProfileInfo_v3_t>(3),
        id: info.id,
        sliceCount: info.sliceCount,
        instanceCount: info.instanceCount,
        multiprocessorCount: info.multiprocessorCount,
        copyEngineCount: info.copyEngineCount,
        decoderCount: info.decoderCount,
        encoderCount: info.encoderCount,
        jpegCount: info.jpegCount,
        ofaCount: info.ofaCount,
        memorySizeMB: info.memorySizeMB,
        name: char_array(&format!("MIG {}", profile.name)),
        capabilities: if graphics(profile) { nvml::NVML_GPU_INSTANCE_PROFILE_CAPS_GFX } else { 0 },
    }
}

pub(super) fn compute_profile_info(
    geometry: &Geometry,
    profile: &Profile,
    slices: u8,
) -> nvmlComputeInstanceProfileInfo_t {
    let engines = engines(geometry, profile);
    nvmlComputeInstanceProfileInfo_t {
        id: compute_profile(slices),
        sliceCount: slices.into(),
        instanceCount: c_uint::from(profile.compute_slices / slices.max(1)),
        multiprocessorCount: multiprocessors(profile, slices),
        sharedCopyEngineCount: engines.copy,
        sharedDecoderCount: engines.decoder,
        sharedEncoderCount: engines.encoder,
        sharedJpegCount: engines.jpeg,
        sharedOfaCount: engines.ofa,
    }
}

pub(super) fn compute_profile_info_v2(
    geometry: &Geometry,
    profile: &Profile,
    slices: u8,
) -> nvmlComputeInstanceProfileInfo_v2_t {
    let info = compute_profile_info(geometry, profile, slices);
    nvmlComputeInstanceProfileInfo_v2_t {
        version: struct_version::<nvmlComputeInstanceProfileInfo_v2_t>(2),
        id: info.id,
        sliceCount: info.sliceCount,
        instanceCount: info.instanceCount,
        multiprocessorCount: info.multiprocessorCount,
        sharedCopyEngineCount: info.sharedCopyEngineCount,
        sharedDecoderCount: info.sharedDecoderCount,
        sharedEncoderCount: info.sharedEncoderCount,
        sharedJpegCount: info.sharedJpegCount,
        sharedOfaCount: info.sharedOfaCount,
        name: compute_name(profile, slices),
    }
}

pub(super) fn compute_profile_info_v3(
    geometry: &Geometry,
    profile: &Profile,
    slices: u8,
) -> nvmlComputeInstanceProfileInfo_v3_t {
    let info = compute_profile_info(geometry, profile, slices);
    nvmlComputeInstanceProfileInfo_v3_t {
        version: struct_version::<nvmlComputeInstanceProfileInfo_v3_t>(3),
        id: info.id,
        sliceCount: info.sliceCount,
        instanceCount: info.instanceCount,
        multiprocessorCount: info.multiprocessorCount,
        sharedCopyEngineCount: info.sharedCopyEngineCount,
        sharedDecoderCount: info.sharedDecoderCount,
        sharedEncoderCount: info.sharedEncoderCount,
        sharedJpegCount: info.sharedJpegCount,
        sharedOfaCount: info.sharedOfaCount,
        name: compute_name(profile, slices),
        capabilities: if graphics(profile) { nvml::NVML_COMPUTE_INSTANCE_PROFILE_CAPS_GFX } else { 0 },
    }
}

/// What a MIG device has: engines shared within its GPU instance, multiprocessors of its own.
pub(super) fn attributes(geometry: &Geometry, mig: MigDevice<'_>) -> nvmlDeviceAttributes_t {
    let profile = mig.within.profile;
    let engines = engines(geometry, profile);
    nvmlDeviceAttributes_t {
        multiprocessorCount: multiprocessors(profile, mig.compute.slices),
        sharedCopyEngineCount: engines.copy,
        sharedDecoderCount: engines.decoder,
        sharedEncoderCount: engines.encoder,
        sharedJpegCount: engines.jpeg,
        sharedOfaCount: engines.ofa,
        gpuInstanceSliceCount: profile.compute_slices.into(),
        computeInstanceSliceCount: mig.compute.slices.into(),
        memorySizeMB: c_ulonglong::from(profile.memory.0),
    }
}

fn multiprocessors(profile: &Profile, slices: u8) -> c_uint {
    c_uint::from(profile.multiprocessors) * c_uint::from(slices) / c_uint::from(profile.compute_slices.max(1))
}

fn compute_name<const N: usize>(profile: &Profile, slices: u8) -> [std::ffi::c_char; N] {
    char_array(&format!("MIG {}", compute_profile_name(&profile.name, profile.compute_slices, slices)))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use stowage_shared::models::MODELS;

    use super::*;

    #[test]
    fn every_profile_of_every_known_model_has_a_place_of_its_own_in_the_enumeration() {
        for model in MODELS {
            let Some(geometry) = model.geometry() else { continue };
            let places: BTreeSet<_> =
                geometry.profiles.iter().map(|profile| enumeration(&geometry, profile)).collect();
            assert_eq!(places.len(), geometry.profiles.len(), "{}", model.key);
            assert!(
                places.iter().all(|place| place.is_some_and(|place| place < GPU_PROFILE_COUNT)),
                "{}",
                model.key
            );
        }
    }
}
