//! Compute instances.

use std::ffi::c_uint;

use nvml_wrapper_sys::bindings as nvml;
use nvml_wrapper_sys::bindings::{
    nvmlComputeInstance_t, nvmlComputeInstanceInfo_t, nvmlComputeInstancePlacement_t,
    nvmlComputeInstanceProfileInfo_t, nvmlComputeInstanceProfileInfo_v2_t,
    nvmlComputeInstanceProfileInfo_v3_t, nvmlGpuInstance_t,
};

use super::mig::put_array;
use super::pointer::{Out, struct_version};
use super::resolve::MigInstance;
use super::{Code, export, mig_profile};
use crate::session::Call;
use crate::state::{Created, Operation, placement};

export! {
    /// One compute instance profile by its place in NVML's enumeration; engines can only be shared (0).
    fn nvmlGpuInstanceGetComputeInstanceProfileInfo(
        instance: nvmlGpuInstance_t,
        profile: c_uint,
        engine_profile: c_uint,
        info: Out<nvmlComputeInstanceProfileInfo_t>,
    ) |call| {
        let (found, slices) = enumerated(call, instance, profile, engine_profile)?;
        info.put(mig_profile::compute_profile_info(found.gpu.geometry()?, found.profile, slices))
    }

    /// The same in struct version 2 or 3, with the name; another version is an `INVALID_ARGUMENT`.
    fn nvmlGpuInstanceGetComputeInstanceProfileInfoV(
        instance: nvmlGpuInstance_t,
        profile: c_uint,
        engine_profile: c_uint,
        info: Out<nvmlComputeInstanceProfileInfo_v2_t>,
    ) |call| {
        const V2: u32 = struct_version::<nvmlComputeInstanceProfileInfo_v2_t>(2);
        const V3: u32 = struct_version::<nvmlComputeInstanceProfileInfo_v3_t>(3);
        let (found, slices) = enumerated(call, instance, profile, engine_profile)?;
        let geometry = found.gpu.geometry()?;
        match info.cast::<c_uint>().get()? {
            V2 => info.put(mig_profile::compute_profile_info_v2(geometry, found.profile, slices)),
            V3 => info.cast().put(mig_profile::compute_profile_info_v3(geometry, found.profile, slices)),
            _ => Err(Code::INVALID_ARGUMENT),
        }
    }

    /// How many more compute instances of that profile fit into the GPU instance.
    fn nvmlGpuInstanceGetComputeInstanceRemainingCapacity(
        instance: nvmlGpuInstance_t,
        profile_id: c_uint,
        count: Out<c_uint>,
    ) |call| {
        let found = call.gpu_instance(instance)?;
        let slices = slices_of(found, profile_id)?;
        let used = &found.instance.compute_instances;
        let open = placement::compute_starts(found.profile.compute_slices, slices)
            .filter(|start| !used.iter().any(|u| *start < u.start + u.slices && u.start < *start + slices));
        count.put(c_uint::try_from(open.count()).unwrap_or(c_uint::MAX))
    }

    /// Where compute instances of that profile may start, used or not.
    fn nvmlGpuInstanceGetComputeInstancePossiblePlacements(
        instance: nvmlGpuInstance_t,
        profile_id: c_uint,
        placements: Out<nvmlComputeInstancePlacement_t>,
        count: Out<c_uint>,
    ) |call| {
        let found = call.gpu_instance(instance)?;
        let slices = slices_of(found, profile_id)?;
        let all: Vec<_> = placement::compute_starts(found.profile.compute_slices, slices)
            .map(|start| nvmlComputeInstancePlacement_t { start: start.into(), size: slices.into() })
            .collect();
        put_array(&placements, &count, &all)
    }

    /// Creates a compute instance at the lowest open start.
    fn nvmlGpuInstanceCreateComputeInstance(
        instance: nvmlGpuInstance_t,
        profile_id: c_uint,
        compute: Out<nvmlComputeInstance_t>,
    ) |call| {
        create(call, instance, profile_id, None, &compute)
    }

    /// Creates a compute instance at a placement.
    fn nvmlGpuInstanceCreateComputeInstanceWithPlacement(
        instance: nvmlGpuInstance_t,
        profile_id: c_uint,
        placement: Out<nvmlComputeInstancePlacement_t>,
        compute: Out<nvmlComputeInstance_t>,
    ) |call| {
        let placement = placement.get()?;
        let slices = slices_of(call.gpu_instance(instance)?, profile_id)?;
        if placement.size != c_uint::from(slices) {
            return Err(Code::INVALID_ARGUMENT);
        }
        let start = u8::try_from(placement.start).map_err(|_| Code::INVALID_ARGUMENT)?;
        create(call, instance, profile_id, Some(start), &compute)
    }

    /// The compute instances of that profile; the array has room for as many as the profile allows.
    fn nvmlGpuInstanceGetComputeInstances(
        instance: nvmlGpuInstance_t,
        profile_id: c_uint,
        instances: Out<nvmlComputeInstance_t>,
        count: Out<c_uint>,
    ) |call| {
        let found = call.gpu_instance(instance)?;
        let slices = slices_of(found, profile_id)?;
        let of_profile = found.instance.compute_instances.iter().filter(|compute| compute.slices == slices);
        let handles: Vec<_> =
            of_profile.map(|compute| call.handle_of_compute(found.gpu, compute.serial)).collect();
        instances.put_all(&handles)?;
        count.put(c_uint::try_from(handles.len()).unwrap_or(c_uint::MAX))
    }

    /// The compute instance of that id.
    fn nvmlGpuInstanceGetComputeInstanceById(
        instance: nvmlGpuInstance_t,
        id: c_uint,
        compute: Out<nvmlComputeInstance_t>,
    ) |call| {
        let found = call.gpu_instance(instance)?;
        let serial = found.instance.compute_instance(id).ok_or(Code::NOT_FOUND)?.serial;
        compute.put(call.handle_of_compute(found.gpu, serial))
    }

    /// A compute instance's ids and placement; `device` is the handle of its MIG device.
    fn nvmlComputeInstanceGetInfo_v2(compute: nvmlComputeInstance_t, info: Out<nvmlComputeInstanceInfo_t>) |call| {
        let mig = call.compute_instance(compute)?;
        info.put(compute_info(call, mig, call.handle_of_mig(mig)))
    }

    /// The older form: `device` is the handle of the GPU.
    fn nvmlComputeInstanceGetInfo(compute: nvmlComputeInstance_t, info: Out<nvmlComputeInstanceInfo_t>) |call| {
        let mig = call.compute_instance(compute)?;
        info.put(compute_info(call, mig, call.handle_of_gpu(mig.gpu())))
    }

    /// Destroys a compute instance.
    fn nvmlComputeInstanceDestroy(compute: nvmlComputeInstance_t) |call| {
        let mig = call.compute_instance(compute)?;
        let (gpu, instance, compute) = (mig.gpu().hardware.index, mig.within.instance, mig.compute);
        call.update(Operation::DestroyComputeInstance, |node| {
            node.expect_gpu_instance(gpu, instance.id, instance.serial)?;
            node.destroy_compute_instance(gpu, instance.id, compute.id)
        })
    }
}

fn enumerated<'a>(
    call: &Call<'a>,
    instance: nvmlGpuInstance_t,
    profile: c_uint,
    engine_profile: c_uint,
) -> Result<(MigInstance<'a>, u8), Code> {
    let found = call.gpu_instance(instance)?;
    if profile >= mig_profile::COMPUTE_PROFILE_COUNT
        || engine_profile >= nvml::NVML_COMPUTE_INSTANCE_ENGINE_PROFILE_COUNT
    {
        return Err(Code::INVALID_ARGUMENT);
    }
    Ok((found, slices_of(found, profile)?))
}

/// The compute slices of that profile id, if the GPU instance has it.
fn slices_of(found: MigInstance<'_>, profile_id: c_uint) -> Result<u8, Code> {
    let slices = mig_profile::compute_slices(profile_id).ok_or(Code::NOT_SUPPORTED)?;
    let mut sizes = placement::compute_sizes(found.profile.compute_slices);
    sizes.find(|&size| size == slices).ok_or(Code::NOT_SUPPORTED)
}

fn create(
    call: &Call<'_>,
    instance: nvmlGpuInstance_t,
    profile_id: c_uint,
    start: Option<u8>,
    compute: &Out<nvmlComputeInstance_t>,
) -> Result<(), Code> {
    let found = call.gpu_instance(instance)?;
    let slices = slices_of(found, profile_id)?;
    if compute.is_null() {
        return Err(Code::INVALID_ARGUMENT);
    }
    let (gpu, within) = (found.gpu.hardware.index, found.instance);
    let created = call.update(Operation::CreateComputeInstance, |node| {
        node.expect_gpu_instance(gpu, within.id, within.serial)?;
        if let Some(code) = node.take_creation_fault(gpu, Created::ComputeInstance)? {
            return Ok(Err(Code(code)));
        }
        let id = node.create_compute_instance(gpu, within.id, slices, start)?;
        let instance = node.state.gpu(gpu).and_then(|gpu| gpu.gpu_instance(within.id));
        let created = instance.and_then(|instance| instance.compute_instance(id));
        Ok(created.map(|created| created.serial).ok_or(Code::UNKNOWN))
    })?;
    compute.put(call.handle_of_compute(found.gpu, created?))
}

fn compute_info(
    call: &Call<'_>,
    mig: super::MigDevice<'_>,
    device: nvml::nvmlDevice_t,
) -> nvmlComputeInstanceInfo_t {
    nvmlComputeInstanceInfo_t {
        device,
        gpuInstance: call.handle_of_instance(mig.gpu(), mig.within.instance.serial),
        id: mig.compute.id,
        profileId: mig_profile::compute_profile(mig.compute.slices),
        placement: nvmlComputeInstancePlacement_t {
            start: mig.compute.start.into(),
            size: mig.compute.slices.into(),
        },
    }
}
