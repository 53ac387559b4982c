//! GPU and compute instances, built and taken down: the calls that change a GPU.
//!
//! `nvml-wrapper` has none of them. Each block of `unsafe` is one NVML call; handles are used only within the function
//! that got them, since NVML calls them invalid once the instance is gone.

use std::ffi::{CStr, c_char, c_uint};

use nvml_wrapper::Device;
use nvml_wrapper::error::{NvmlError, nvml_try};
use nvml_wrapper_sys::bindings::{
    NVML_COMPUTE_INSTANCE_ENGINE_PROFILE_SHARED, NVML_COMPUTE_INSTANCE_PROFILE_COUNT, NVML_DEVICE_MIG_ENABLE,
    NVML_DEVICE_UUID_V2_BUFFER_SIZE, NvmlLib, nvmlComputeInstance_t, nvmlComputeInstanceInfo_t,
    nvmlComputeInstanceProfileInfo_t, nvmlDevice_t, nvmlGpuInstance_t, nvmlGpuInstanceInfo_t,
    nvmlGpuInstancePlacement_t, nvmlReturn_t,
};
use serde::{Deserialize, Serialize};
use stowage_shared::gpu::GpuUuid;
use stowage_shared::mig::{Geometry, MigSlice};

use super::raw::symbol;
use super::{Fixed, NvmlGpus, geometry};

/// A GPU instance.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Instance {
    /// NVML's id of the GPU instance.
    pub id: u32,
    /// What it takes of its GPU.
    pub slice: MigSlice,
}

/// A GPU instance with one compute instance that fills it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Built {
    /// The MIG device's UUID.
    pub uuid: String,
    /// NVML's id of the GPU instance.
    pub gpu_instance_id: u32,
    /// NVML's id of the compute instance.
    pub compute_instance_id: u32,
}

/// More instances than a GPU can hold: a bound on what is allocated for an answer.
const INSTANCES_MAX: usize = 64;

impl NvmlGpus {
    fn geometry(&self, device: &Device<'_>) -> Result<Geometry, NvmlError> {
        let uuid: GpuUuid = device.uuid()?.parse().map_err(|_| NvmlError::Unknown)?;
        let Fixed { model, memory, .. } = self.fixed(device, &uuid)?;
        geometry::of(&self.geometries, &self.nvml, device, &model, memory)
    }

    /// The GPU instances that exist on a GPU, whether or not they have a compute instance.
    ///
    /// # Errors
    /// NVML's own.
    pub fn instances(&self, index: u32) -> Result<Vec<Instance>, NvmlError> {
        let device = self.nvml.device_by_index(index)?;
        self.instances_of(&device, &self.geometry(&device)?)
    }

    pub(super) fn instances_of(
        &self,
        device: &Device<'_>,
        geometry: &Geometry,
    ) -> Result<Vec<Instance>, NvmlError> {
        // SAFETY: `device` borrows the `Nvml` that it comes from, so its handle is live.
        let gpu = unsafe { device.handle() };
        let lib = self.nvml.lib();
        let mut found = Vec::new();
        for profile in &geometry.profiles {
            for handle in gpu_instances(lib, gpu, profile.id)? {
                let info = gpu_instance_info(lib, handle)?;
                let place = |number: u32| u8::try_from(number).map_err(|_| NvmlError::Unknown);
                let slice = MigSlice {
                    profile: profile.name.clone(),
                    start: place(info.placement.start)?,
                    size: place(info.placement.size)?,
                    media_engines: profile.media_engines,
                };
                found.push(Instance { id: info.id, slice });
            }
        }
        Ok(found)
    }

    /// Whether MIG mode is on.
    ///
    /// # Errors
    /// NVML's own.
    pub fn is_cut(&self, index: u32) -> Result<bool, NvmlError> {
        Ok(self.nvml.device_by_index(index)?.mig_mode()?.current == NVML_DEVICE_MIG_ENABLE)
    }

    /// Switches MIG mode. Only for GPUs that do so at once: others would wait for a reset with it.
    ///
    /// # Errors
    /// NVML's own, `InUse` while somebody uses the GPU.
    pub fn set_cut(&self, index: u32, cut: bool) -> Result<(), NvmlError> {
        self.nvml.device_by_index(index)?.set_mig_mode(cut)?;
        if self.is_cut(index)? == cut { Ok(()) } else { Err(NvmlError::InUse) }
    }

    /// Builds a GPU instance where `slice` says, and one compute instance that fills it.
    ///
    /// # Errors
    /// NVML's own, `INSUFFICIENT_RESOURCES` where the place is taken; nothing is left behind.
    pub fn build(&self, index: u32, slice: &MigSlice) -> Result<Built, NvmlError> {
        let device = self.nvml.device_by_index(index)?;
        let geometry = self.geometry(&device)?;
        let profile = geometry.profile(&slice.profile).ok_or(NvmlError::NotFound)?;
        // SAFETY: as above.
        let gpu = unsafe { device.handle() };
        let lib = self.nvml.lib();
        let handle = create_gpu_instance(lib, gpu, profile.id, slice)?;
        let built = fill(lib, handle, profile.compute_slices);
        if built.is_err() {
            // The error that is told is the first one: this one would only say that cleaning up failed as well.
            let _ = take_down(lib, handle);
        }
        built
    }

    /// Takes a GPU instance down, its compute instances first.
    ///
    /// # Errors
    /// NVML's own, `InUse` while a process runs on it. One that is gone already is none.
    pub fn take_down(&self, index: u32, gpu_instance_id: u32) -> Result<(), NvmlError> {
        let device = self.nvml.device_by_index(index)?;
        let by_id = symbol(&self.nvml.lib().nvmlDeviceGetGpuInstanceById)?;
        let mut handle = std::ptr::null_mut();
        // SAFETY: the symbol has the signature of NVML's header; the handles are live, `handle` outlives the call.
        match nvml_try(unsafe { by_id(device.handle(), gpu_instance_id, &raw mut handle) }) {
            Err(NvmlError::NotFound) => Ok(()),
            Err(error) => Err(error),
            Ok(()) => take_down(self.nvml.lib(), handle),
        }
    }
}

/// Makes the compute instance that takes all of a GPU instance's compute slices.
fn fill(lib: &NvmlLib, gpu_instance: nvmlGpuInstance_t, slices: u8) -> Result<Built, NvmlError> {
    let profiles = compute_profiles(lib, gpu_instance)?;
    let whole = profiles.iter().find(|profile| profile.sliceCount == u32::from(slices));
    let whole = whole.ok_or(NvmlError::NotFound)?;
    let create = symbol(&lib.nvmlGpuInstanceCreateComputeInstance)?;
    let info_of = symbol(&lib.nvmlComputeInstanceGetInfo_v2)?;
    let mut handle = std::ptr::null_mut();
    // SAFETY: the symbol has the signature of NVML's header; the GPU instance is live, `handle` outlives the call.
    nvml_try(unsafe { create(gpu_instance, whole.id, &raw mut handle) })?;
    // SAFETY: the struct is made of integers and pointers, for which all bits zero is a value.
    let mut info: nvmlComputeInstanceInfo_t = unsafe { std::mem::zeroed() };
    // SAFETY: `handle` was written by the successful call above; `info` outlives the call.
    nvml_try(unsafe { info_of(handle, &raw mut info) })?;
    Ok(Built {
        uuid: uuid(lib, info.device)?,
        gpu_instance_id: gpu_instance_info(lib, gpu_instance)?.id,
        compute_instance_id: info.id,
    })
}

fn take_down(lib: &NvmlLib, gpu_instance: nvmlGpuInstance_t) -> Result<(), NvmlError> {
    let destroy_compute = symbol(&lib.nvmlComputeInstanceDestroy)?;
    let destroy = symbol(&lib.nvmlGpuInstanceDestroy)?;
    for profile in compute_profiles(lib, gpu_instance)? {
        for compute in compute_instances(lib, gpu_instance, profile.id)? {
            // SAFETY: the symbol has the signature of NVML's header; NVML listed the handle just now.
            nvml_try(unsafe { destroy_compute(compute) })?;
        }
    }
    // SAFETY: as above; nothing uses the handle afterwards.
    nvml_try(unsafe { destroy(gpu_instance) })
}

fn create_gpu_instance(
    lib: &NvmlLib,
    gpu: nvmlDevice_t,
    profile_id: u32,
    slice: &MigSlice,
) -> Result<nvmlGpuInstance_t, NvmlError> {
    let create = symbol(&lib.nvmlDeviceCreateGpuInstanceWithPlacement)?;
    let placement = nvmlGpuInstancePlacement_t { start: u32::from(slice.start), size: u32::from(slice.size) };
    let mut handle = std::ptr::null_mut();
    // SAFETY: the symbol has the signature of NVML's header; `gpu` is live, the other two outlive the call.
    nvml_try(unsafe { create(gpu, profile_id, &raw const placement, &raw mut handle) })?;
    Ok(handle)
}

fn gpu_instance_info(
    lib: &NvmlLib,
    gpu_instance: nvmlGpuInstance_t,
) -> Result<nvmlGpuInstanceInfo_t, NvmlError> {
    let call = symbol(&lib.nvmlGpuInstanceGetInfo)?;
    // SAFETY: the struct is made of integers and one pointer, for which all bits zero is a value.
    let mut info: nvmlGpuInstanceInfo_t = unsafe { std::mem::zeroed() };
    // SAFETY: the symbol has the signature of NVML's header; the handle is live, `info` outlives the call.
    nvml_try(unsafe { call(gpu_instance, &raw mut info) })?;
    Ok(info)
}

/// The GPU instances of a profile.
fn gpu_instances(
    lib: &NvmlLib,
    gpu: nvmlDevice_t,
    profile_id: u32,
) -> Result<Vec<nvmlGpuInstance_t>, NvmlError> {
    let call = symbol(&lib.nvmlDeviceGetGpuInstances)?;
    // SAFETY: the symbol has the signature of NVML's header, which wants room for as many as the profile can have:
    // there is more. `gpu` is live.
    handles(|room, count| unsafe { call(gpu, profile_id, room, count) })
}

/// The compute instances of a profile in a GPU instance.
fn compute_instances(
    lib: &NvmlLib,
    gpu_instance: nvmlGpuInstance_t,
    profile_id: u32,
) -> Result<Vec<nvmlComputeInstance_t>, NvmlError> {
    let call = symbol(&lib.nvmlGpuInstanceGetComputeInstances)?;
    // SAFETY: as in `gpu_instances`.
    handles(|room, count| unsafe { call(gpu_instance, profile_id, room, count) })
}

/// The handles that a call writes; it gets room for [`INSTANCES_MAX`], and tells how many there are. Where a GPU cannot have
/// any, there are none.
fn handles<T>(list: impl FnOnce(*mut *mut T, *mut c_uint) -> nvmlReturn_t) -> Result<Vec<*mut T>, NvmlError> {
    let mut handles = vec![std::ptr::null_mut(); INSTANCES_MAX];
    let mut count = 0;
    match nvml_try(list(handles.as_mut_ptr(), &raw mut count)) {
        Err(NvmlError::NotSupported | NvmlError::NotFound) => count = 0,
        result => result?,
    }
    handles.truncate(count as usize);
    Ok(handles)
}

/// The kinds of compute instances that a GPU instance can be cut into.
fn compute_profiles(
    lib: &NvmlLib,
    gpu_instance: nvmlGpuInstance_t,
) -> Result<Vec<nvmlComputeInstanceProfileInfo_t>, NvmlError> {
    let call = symbol(&lib.nvmlGpuInstanceGetComputeInstanceProfileInfo)?;
    let mut profiles = Vec::new();
    for place in 0..NVML_COMPUTE_INSTANCE_PROFILE_COUNT {
        // SAFETY: the struct is made of integers, for which all bits zero is a value.
        let mut info: nvmlComputeInstanceProfileInfo_t = unsafe { std::mem::zeroed() };
        let engines = NVML_COMPUTE_INSTANCE_ENGINE_PROFILE_SHARED;
        // SAFETY: the symbol has the signature of NVML's header; the handle is live, `info` outlives the call.
        match nvml_try(unsafe { call(gpu_instance, place, engines, &raw mut info) }) {
            Ok(()) => profiles.push(info),
            // This GPU instance cannot be cut so.
            Err(NvmlError::NotSupported | NvmlError::InvalidArg | NvmlError::NotFound) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(profiles)
}

fn uuid(lib: &NvmlLib, device: nvmlDevice_t) -> Result<String, NvmlError> {
    let call = symbol(&lib.nvmlDeviceGetUUID)?;
    let mut text: [c_char; NVML_DEVICE_UUID_V2_BUFFER_SIZE as usize] =
        [0; NVML_DEVICE_UUID_V2_BUFFER_SIZE as usize];
    let room: c_uint = NVML_DEVICE_UUID_V2_BUFFER_SIZE;
    // SAFETY: the symbol has the signature of NVML's header; the handle is live, and NVML writes no more than `room`
    // bytes, the terminating zero among them.
    nvml_try(unsafe { call(device, text.as_mut_ptr(), room) })?;
    // SAFETY: `text` is zero-terminated: NVML wrote a string into it, and it was zeros before.
    let uuid = unsafe { CStr::from_ptr(text.as_ptr()) };
    uuid.to_str().map(str::to_owned).map_err(|_| NvmlError::Unknown)
}
