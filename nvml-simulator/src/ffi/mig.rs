//! MIG mode and GPU instances.

use std::ffi::c_uint;

use nvml_wrapper_sys::bindings as nvml;
use nvml_wrapper_sys::bindings::{
    nvmlDevice_t, nvmlGpuInstance_t, nvmlGpuInstanceInfo_t, nvmlGpuInstancePlacement_t,
    nvmlGpuInstanceProfileInfo_t, nvmlGpuInstanceProfileInfo_v2_t, nvmlGpuInstanceProfileInfo_v3_t,
    nvmlReturn_t,
};
use stowage_shared::mig::{Geometry, Profile};

use super::pointer::{Out, struct_version};
use super::{Code, Gpu, export, mig_profile};
use crate::session::Call;
use crate::state::{Activation, Created, Operation, placement};

export! {
    /// Whether MIG mode is on now, and whether it will be after the next reset.
    fn nvmlDeviceGetMigMode(device: nvmlDevice_t, current: Out<c_uint>, pending: Out<c_uint>) |call| {
        let gpu = call.gpu(device)?;
        gpu.geometry()?;
        current.put(gpu.state.mig_enabled.into())?;
        pending.put(gpu.state.mig_pending.into())
    }

    /// Asks for MIG mode on or off: at once since Hopper, else `activation` says that it takes a reset. While
    /// instances exist or processes run, it says `IN_USE`.
    fn nvmlDeviceSetMigMode(device: nvmlDevice_t, mode: c_uint, activation: Out<nvmlReturn_t>) |call| {
        let gpu = call.gpu(device)?;
        gpu.geometry()?;
        if mode > nvml::NVML_DEVICE_MIG_ENABLE || activation.is_null() {
            return Err(Code::INVALID_ARGUMENT);
        }
        let index = gpu.hardware.index;
        let enabled = mode == nvml::NVML_DEVICE_MIG_ENABLE;
        let outcome = call.update(Operation::SetMigMode, |node| node.set_mig_mode(index, enabled))?;
        activation.put(match outcome {
            Activation::Current => Code::SUCCESS.0,
            Activation::AtReset => Code::RESET_REQUIRED.0,
            Activation::InUse => Code::IN_USE.0,
        })
    }

    /// One profile by its place in NVML's enumeration (0 to 17), which is not its id.
    fn nvmlDeviceGetGpuInstanceProfileInfo(
        device: nvmlDevice_t,
        profile: c_uint,
        info: Out<nvmlGpuInstanceProfileInfo_t>,
    ) |call| {
        let (geometry, profile) = enumerated(call, device, profile)?;
        info.put(mig_profile::gpu_profile_info(geometry, profile))
    }

    /// The same in struct version 2 or 3, with the name; another version is an `INVALID_ARGUMENT`.
    fn nvmlDeviceGetGpuInstanceProfileInfoV(
        device: nvmlDevice_t,
        profile: c_uint,
        info: Out<nvmlGpuInstanceProfileInfo_v2_t>,
    ) |call| {
        let (geometry, profile) = enumerated(call, device, profile)?;
        put_profile_info(&info, geometry, profile)
    }

    /// The same by profile id.
    fn nvmlDeviceGetGpuInstanceProfileInfoByIdV(
        device: nvmlDevice_t,
        profile_id: c_uint,
        info: Out<nvmlGpuInstanceProfileInfo_v2_t>,
    ) |call| {
        let gpu = call.gpu(device)?;
        put_profile_info(&info, gpu.geometry()?, profile_by_id(gpu, profile_id)?)
    }

    /// Where instances of that profile may start, used or not. Null `placements` asks for their number; an
    /// array shorter than that is an `INSUFFICIENT_SIZE`, where NVML's documentation leaves it open.
    fn nvmlDeviceGetGpuInstancePossiblePlacements_v2, nvmlDeviceGetGpuInstancePossiblePlacements(
        device: nvmlDevice_t,
        profile_id: c_uint,
        placements: Out<nvmlGpuInstancePlacement_t>,
        count: Out<c_uint>,
    ) |call| {
        let profile = profile_by_id(call.gpu(device)?, profile_id)?;
        let size = profile.size.into();
        let all: Vec<_> =
            profile.starts.iter().map(|&start| nvmlGpuInstancePlacement_t { start: start.into(), size }).collect();
        put_array(&placements, &count, &all)
    }

    /// How many more instances of that profile can be created.
    fn nvmlDeviceGetGpuInstanceRemainingCapacity(device: nvmlDevice_t, profile_id: c_uint, count: Out<c_uint>) |call| {
        let gpu = call.gpu(device)?.mig_enabled()?;
        let profile = profile_by_id(gpu, profile_id)?;
        count.put(placement::remaining(&gpu.state.slices(gpu.hardware), profile))
    }

    /// Creates a GPU instance where most others stay possible.
    fn nvmlDeviceCreateGpuInstance(device: nvmlDevice_t, profile_id: c_uint, instance: Out<nvmlGpuInstance_t>) |call| {
        create(call, device, profile_id, None, &instance)
    }

    /// Creates a GPU instance at a placement; one that is occupied is an `INSUFFICIENT_RESOURCES`.
    fn nvmlDeviceCreateGpuInstanceWithPlacement(
        device: nvmlDevice_t,
        profile_id: c_uint,
        placement: Out<nvmlGpuInstancePlacement_t>,
        instance: Out<nvmlGpuInstance_t>,
    ) |call| {
        let placement = placement.get()?;
        let profile = profile_by_id(call.gpu(device)?.mig_enabled()?, profile_id)?;
        if placement.size != c_uint::from(profile.size) {
            return Err(Code::INVALID_ARGUMENT);
        }
        let start = u8::try_from(placement.start).map_err(|_| Code::INVALID_ARGUMENT)?;
        create(call, device, profile_id, Some(start), &instance)
    }

    /// The GPU instances of that profile; the array has room for as many as the profile allows.
    fn nvmlDeviceGetGpuInstances(
        device: nvmlDevice_t,
        profile_id: c_uint,
        instances: Out<nvmlGpuInstance_t>,
        count: Out<c_uint>,
    ) |call| {
        let gpu = call.gpu(device)?.mig_enabled()?;
        profile_by_id(gpu, profile_id).map_err(|_| Code::INVALID_ARGUMENT)?;
        let of_profile = gpu.instances().filter(|found| found.profile.id == profile_id);
        let handles: Vec<_> =
            of_profile.map(|found| call.handle_of_instance(gpu, found.instance.serial)).collect();
        instances.put_all(&handles)?;
        count.put(c_uint::try_from(handles.len()).unwrap_or(c_uint::MAX))
    }

    /// The GPU instance of that id.
    fn nvmlDeviceGetGpuInstanceById(device: nvmlDevice_t, id: c_uint, instance: Out<nvmlGpuInstance_t>) |call| {
        let gpu = call.gpu(device)?.mig_enabled()?;
        let found = gpu.state.gpu_instance(id).ok_or(Code::NOT_FOUND)?;
        instance.put(call.handle_of_instance(gpu, found.serial))
    }

    /// A GPU instance's device, id, profile id and placement.
    fn nvmlGpuInstanceGetInfo(instance: nvmlGpuInstance_t, info: Out<nvmlGpuInstanceInfo_t>) |call| {
        let found = call.gpu_instance(instance)?;
        info.put(nvmlGpuInstanceInfo_t {
            device: call.handle_of_gpu(found.gpu),
            id: found.instance.id,
            profileId: found.profile.id,
            placement: nvmlGpuInstancePlacement_t {
                start: found.instance.start.into(),
                size: found.profile.size.into(),
            },
        })
    }

    /// Destroys a GPU instance; `IN_USE` while it has compute instances.
    fn nvmlGpuInstanceDestroy(instance: nvmlGpuInstance_t) |call| {
        let found = call.gpu_instance(instance)?;
        let (gpu, id, serial) = (found.gpu.hardware.index, found.instance.id, found.instance.serial);
        call.update(Operation::DestroyGpuInstance, |node| {
            node.expect_gpu_instance(gpu, id, serial)?;
            node.destroy_gpu_instance(gpu, id)
        })
    }
}

fn create(
    call: &Call<'_>,
    device: nvmlDevice_t,
    profile_id: c_uint,
    start: Option<u8>,
    instance: &Out<nvmlGpuInstance_t>,
) -> Result<(), Code> {
    let gpu = call.gpu(device)?.mig_enabled()?;
    if instance.is_null() {
        return Err(Code::INVALID_ARGUMENT);
    }
    let index = gpu.hardware.index;
    let created = call.update(Operation::CreateGpuInstance, |node| {
        if let Some(code) = node.take_creation_fault(index, Created::GpuInstance)? {
            return Ok(Err(Code(code)));
        }
        let id = node.create_gpu_instance(index, profile_id, start)?;
        let serial = node.state.gpu(index).and_then(|gpu| gpu.gpu_instance(id)).map(|created| created.serial);
        Ok(serial.ok_or(Code::UNKNOWN))
    })?;
    instance.put(call.handle_of_instance(gpu, created?))
}

fn enumerated<'a>(
    call: &Call<'a>,
    device: nvmlDevice_t,
    number: c_uint,
) -> Result<(&'a Geometry, &'a Profile), Code> {
    let gpu = call.gpu(device)?;
    if number >= mig_profile::GPU_PROFILE_COUNT {
        return Err(Code::INVALID_ARGUMENT);
    }
    let geometry = gpu.geometry()?;
    Ok((geometry, mig_profile::by_enumeration(geometry, number).ok_or(Code::NOT_SUPPORTED)?))
}

fn profile_by_id(gpu: Gpu<'_>, id: c_uint) -> Result<&Profile, Code> {
    gpu.hardware.profile(id).ok_or(Code::NOT_SUPPORTED)
}

fn put_profile_info(
    info: &Out<nvmlGpuInstanceProfileInfo_v2_t>,
    geometry: &Geometry,
    profile: &Profile,
) -> Result<(), Code> {
    const V2: u32 = struct_version::<nvmlGpuInstanceProfileInfo_v2_t>(2);
    const V3: u32 = struct_version::<nvmlGpuInstanceProfileInfo_v3_t>(3);
    match info.cast::<c_uint>().get()? {
        V2 => info.put(mig_profile::gpu_profile_info_v2(geometry, profile)),
        V3 => info.cast().put(mig_profile::gpu_profile_info_v3(geometry, profile)),
        _ => Err(Code::INVALID_ARGUMENT),
    }
}

/// Answers with an array, or with its length where the caller has none yet or too short a one.
pub(super) fn put_array<T: Copy>(array: &Out<T>, count: &Out<c_uint>, values: &[T]) -> Result<(), Code> {
    let length = c_uint::try_from(values.len()).map_err(|_| Code::UNKNOWN)?;
    if array.is_null() {
        return count.put(length);
    }
    let room = count.get()?;
    count.put(length)?;
    if room < length { Err(Code::INSUFFICIENT_SIZE) } else { array.put_all(values) }
}
