//! The MIG calls that `nvml-wrapper` does not wrap: the one place with `unsafe`.
//!
//! Each function makes one NVML call and returns plain values. Old drivers lack some of the symbols, which is an
//! error of the call like any other.

use std::ffi::c_uint;

use nvml_wrapper::Device;
use nvml_wrapper::error::{NvmlError, nvml_try};
use nvml_wrapper_sys::bindings::{NvmlLib, nvmlGpuInstanceInfo_t, nvmlGpuInstancePlacement_t};

/// An existing GPU instance.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct GpuInstance {
    pub(super) profile_id: u32,
    pub(super) start: u32,
    pub(super) size: u32,
}

/// More placements than a profile can have on any GPU: a bound on what is allocated for an answer.
const PLACEMENTS_MAX: c_uint = 64;

/// A symbol that the loaded library has, or the error of a call to one that it lacks.
fn symbol<T: Copy, E: std::fmt::Display>(symbol: &Result<T, E>) -> Result<T, NvmlError> {
    symbol.as_ref().copied().map_err(|error| NvmlError::FailedToLoadSymbol(error.to_string()))
}

/// Where instances of a profile may lie, as pairs of start and size.
///
/// `nvml-wrapper` 0.13 has this call too, but never sets the length of what it returns: its list is always empty.
pub(super) fn possible_placements(
    lib: &NvmlLib,
    device: &Device<'_>,
    profile_id: u32,
) -> Result<Vec<(u32, u32)>, NvmlError> {
    let call = symbol(&lib.nvmlDeviceGetGpuInstancePossiblePlacements_v2)?;
    let mut count: c_uint = 0;
    // SAFETY: the symbol has the signature of NVML's header; `device` is a live handle of the same library (it
    // borrows the `Nvml` that loaded it), `count` outlives the call, and a null array asks for the count alone.
    nvml_try(unsafe { call(device.handle(), profile_id, std::ptr::null_mut(), &raw mut count) })?;
    let room = count.min(PLACEMENTS_MAX);
    let mut placements = vec![nvmlGpuInstancePlacement_t { start: 0, size: 0 }; room as usize];
    count = room;
    // SAFETY: as above; `placements` has room for `count` entries, and NVML writes no more than that.
    nvml_try(unsafe { call(device.handle(), profile_id, placements.as_mut_ptr(), &raw mut count) })?;
    Ok(placements.iter().take(count as usize).map(|placement| (placement.start, placement.size)).collect())
}

/// The id of the GPU instance that a MIG device lies in.
pub(super) fn gpu_instance_id(lib: &NvmlLib, mig_device: &Device<'_>) -> Result<u32, NvmlError> {
    let call = symbol(&lib.nvmlDeviceGetGpuInstanceId)?;
    let mut id: c_uint = 0;
    // SAFETY: the symbol has the signature of NVML's header; the handle is live, and `id` outlives the call.
    nvml_try(unsafe { call(mig_device.handle(), &raw mut id) })?;
    Ok(id)
}

/// The id of a MIG device's compute instance within its GPU instance.
pub(super) fn compute_instance_id(lib: &NvmlLib, mig_device: &Device<'_>) -> Result<u32, NvmlError> {
    let call = symbol(&lib.nvmlDeviceGetComputeInstanceId)?;
    let mut id: c_uint = 0;
    // SAFETY: the symbol has the signature of NVML's header; the handle is live, and `id` outlives the call.
    nvml_try(unsafe { call(mig_device.handle(), &raw mut id) })?;
    Ok(id)
}

/// Profile and place of a GPU instance.
pub(super) fn gpu_instance(lib: &NvmlLib, gpu: &Device<'_>, id: u32) -> Result<GpuInstance, NvmlError> {
    let by_id = symbol(&lib.nvmlDeviceGetGpuInstanceById)?;
    let info_of = symbol(&lib.nvmlGpuInstanceGetInfo)?;
    let mut handle = std::ptr::null_mut();
    // SAFETY: both symbols have the signatures of NVML's header; `gpu` is a live handle, `handle` outlives the call.
    nvml_try(unsafe { by_id(gpu.handle(), id, &raw mut handle) })?;
    // SAFETY: the struct is made of integers and one pointer, for which all bits zero is a value.
    let mut info: nvmlGpuInstanceInfo_t = unsafe { std::mem::zeroed() };
    // SAFETY: `handle` was written by the successful call above; `info` outlives the call.
    nvml_try(unsafe { info_of(handle, &raw mut info) })?;
    Ok(GpuInstance { profile_id: info.profileId, start: info.placement.start, size: info.placement.size })
}
