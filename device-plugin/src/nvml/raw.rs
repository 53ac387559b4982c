//! The calls that `nvml-wrapper` does not wrap, and that only read. Those that change a GPU are in `instances`; there is
//! `unsafe` in these two alone.
//!
//! Each function makes one NVML call and returns plain values. Old drivers lack some of the symbols, which is an
//! error of the call like any other.

use std::ffi::{c_int, c_uint};
use std::time::Duration;

use nvml_wrapper::Device;
use nvml_wrapper::error::{NvmlError, nvml_try};
use nvml_wrapper_sys::bindings::{
    NVML_GPU_FABRIC_STATE_COMPLETED, NvmlLib, nvmlDevice_t, nvmlEventData_t, nvmlEventSet_t,
    nvmlEventTypeDoubleBitEccError, nvmlEventTypeXidCriticalError, nvmlFieldValue_t, nvmlGpuFabricInfo_t,
    nvmlGpuInstanceInfo_t, nvmlGpuInstancePlacement_t, nvmlMemory_t,
};
use stowage_shared::gpu::GpuUuid;

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
pub(super) fn symbol<T: Copy, E: std::fmt::Display>(symbol: &Result<T, E>) -> Result<T, NvmlError> {
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

/// A device's memory as every driver tells it, in bytes; what the driver keeps for itself counts as used.
pub(super) fn memory_info(lib: &NvmlLib, device: &Device<'_>) -> Result<nvmlMemory_t, NvmlError> {
    let call = symbol(&lib.nvmlDeviceGetMemoryInfo)?;
    let mut info = nvmlMemory_t { total: 0, free: 0, used: 0 };
    // SAFETY: the symbol has the signature of NVML's header; the handle is live, and `info` outlives the call.
    nvml_try(unsafe { call(device.handle(), &raw mut info) })?;
    Ok(info)
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

/// A GPU's membership in a multi-node NVLink fabric.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct FabricState {
    pub(super) cluster: [u8; 16],
    pub(super) clique: u32,
    /// Whether it has joined, and without a fault.
    pub(super) complete: bool,
}

/// Which fabric a GPU is a member of.
pub(super) fn fabric(lib: &NvmlLib, device: &Device<'_>) -> Result<FabricState, NvmlError> {
    let call = symbol(&lib.nvmlDeviceGetGpuFabricInfo)?;
    // SAFETY: the struct is made of integers, for which all bits zero is a value.
    let mut info: nvmlGpuFabricInfo_t = unsafe { std::mem::zeroed() };
    // SAFETY: the symbol has the signature of NVML's header; the handle is live, and `info` outlives the call.
    nvml_try(unsafe { call(device.handle(), &raw mut info) })?;
    let joined = u32::from(info.state) == NVML_GPU_FABRIC_STATE_COMPLETED && info.status == 0;
    Ok(FabricState { cluster: info.clusterUuid, clique: info.cliqueId, complete: joined })
}

/// Whether a damaged row waits for a reset to be replaced, and whether one could not be replaced.
pub(super) fn remapped_rows(lib: &NvmlLib, device: &Device<'_>) -> Result<(bool, bool), NvmlError> {
    let call = symbol(&lib.nvmlDeviceGetRemappedRows)?;
    let (mut corrected, mut uncorrected, mut pending, mut failed): (c_uint, c_uint, c_uint, c_uint) =
        (0, 0, 0, 0);
    // SAFETY: the symbol has the signature of NVML's header; the handle is live, and the four numbers outlive the call.
    nvml_try(unsafe {
        call(device.handle(), &raw mut corrected, &raw mut uncorrected, &raw mut pending, &raw mut failed)
    })?;
    Ok((pending != 0, failed != 0))
}

/// One of NVML's fields that holds a whole number.
pub(super) fn field(lib: &NvmlLib, device: &Device<'_>, id: u32) -> Result<u64, NvmlError> {
    let call = symbol(&lib.nvmlDeviceGetFieldValues)?;
    // SAFETY: the struct is made of numbers, for which all bits zero is a value.
    let mut value: nvmlFieldValue_t = unsafe { std::mem::zeroed() };
    value.fieldId = id;
    let count: c_int = 1;
    // SAFETY: the symbol has the signature of NVML's header; the handle is live, and `value` is one entry long and
    // outlives the call.
    nvml_try(unsafe { call(device.handle(), count, &raw mut value) })?;
    nvml_try(value.nvmlReturn)?;
    // SAFETY: every variant is a number and all bits were zero before, so the widest one is always initialized; on
    // the little-endian machines that NVIDIA has drivers for, it holds a narrower variant's value too.
    Ok(unsafe { value.value.ullVal })
}

/// An event as NVML tells it.
pub(super) struct RawEvent {
    /// The GPU, where it is one that was added.
    pub(super) gpu: Option<GpuUuid>,
    /// The number, where it is an XID.
    pub(super) xid: Option<u64>,
    /// GPU instance and compute instance.
    pub(super) instances: Option<(u32, Option<u32>)>,
}

/// A set of events, freed when it is dropped. Not for another thread.
pub(super) struct EventSet<'nvml> {
    lib: &'nvml NvmlLib,
    set: nvmlEventSet_t,
    gpus: Vec<(nvmlDevice_t, GpuUuid)>,
}

impl<'nvml> EventSet<'nvml> {
    /// A set without GPUs.
    pub(super) fn new(lib: &'nvml NvmlLib) -> Result<Self, NvmlError> {
        let create = symbol(&lib.nvmlEventSetCreate)?;
        let mut set = std::ptr::null_mut();
        // SAFETY: the symbol has the signature of NVML's header; `set` outlives the call.
        nvml_try(unsafe { create(&raw mut set) })?;
        Ok(Self { lib, set, gpus: Vec::new() })
    }

    /// Adds a GPU's XIDs, and its memory errors where it tells them.
    pub(super) fn add(&mut self, device: &Device<'_>, uuid: &GpuUuid) -> Result<(), NvmlError> {
        let supported = symbol(&self.lib.nvmlDeviceGetSupportedEventTypes)?;
        let register = symbol(&self.lib.nvmlDeviceRegisterEvents)?;
        // SAFETY: the caller's `device` borrows the `Nvml` that it comes from, so its handle is live.
        let handle = unsafe { device.handle() };
        let mut types = 0;
        // SAFETY: the symbol has the signature of NVML's header; `types` outlives the call.
        nvml_try(unsafe { supported(handle, &raw mut types) })?;
        let wanted = types & u64::from(nvmlEventTypeXidCriticalError | nvmlEventTypeDoubleBitEccError);
        if wanted & u64::from(nvmlEventTypeXidCriticalError) == 0 {
            return Err(NvmlError::NotSupported);
        }
        // SAFETY: as above; `self.set` is live until `self` is dropped.
        nvml_try(unsafe { register(handle, wanted, self.set) })?;
        self.gpus.push((handle, uuid.clone()));
        Ok(())
    }

    /// Waits for the next event.
    pub(super) fn wait(&mut self, most: Duration) -> Result<RawEvent, NvmlError> {
        let wait = symbol(&self.lib.nvmlEventSetWait_v2)?;
        // SAFETY: the struct is made of integers and one pointer, for which all bits zero is a value.
        let mut data: nvmlEventData_t = unsafe { std::mem::zeroed() };
        let most = c_uint::try_from(most.as_millis()).unwrap_or(c_uint::MAX);
        // SAFETY: the symbol has the signature of NVML's header; the set is live, `data` outlives the call.
        nvml_try(unsafe { wait(self.set, &raw mut data, most) })?;
        // NVML gives one GPU one handle for as long as it is loaded; asking a lost GPU for its UUID would fail.
        let gpu = self.gpus.iter().find(|(handle, _)| *handle == data.device).map(|(_, uuid)| uuid.clone());
        let is_xid = data.eventType & u64::from(nvmlEventTypeXidCriticalError) != 0;
        let instance = |id: c_uint| (id != c_uint::MAX).then_some(id);
        Ok(RawEvent {
            gpu,
            xid: is_xid.then_some(data.eventData),
            instances: instance(data.gpuInstanceId).map(|id| (id, instance(data.computeInstanceId))),
        })
    }
}

impl Drop for EventSet<'_> {
    fn drop(&mut self) {
        if let Ok(free) = symbol(&self.lib.nvmlEventSetFree) {
            // SAFETY: the set was made by this library and is used no more.
            unsafe { free(self.set) };
        }
    }
}
