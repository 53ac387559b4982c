//! MIG devices: compute instances, seen as devices.

use std::ffi::c_uint;

use nvml_wrapper_sys::bindings::{nvmlDevice_t, nvmlDeviceAttributes_t};
use stowage_shared::mig::Geometry;

use super::pointer::Out;
use super::{Code, Device, MigDevice, export, mig_profile};
use crate::session::Call;

export! {
    /// The most MIG devices that the GPU can have: one per compute slice; 0 without MIG or with MIG mode off.
    fn nvmlDeviceGetMaxMigDeviceCount(device: nvmlDevice_t, count: Out<c_uint>) |call| {
        let gpu = call.gpu(device)?;
        let geometry = gpu.hardware.geometry.as_ref().filter(|_| gpu.state.mig_enabled);
        count.put(geometry.map_or(0, most_mig_devices))
    }

    /// The MIG device of that index; `NOT_FOUND` where there is none (yet).
    fn nvmlDeviceGetMigDeviceHandleByIndex(device: nvmlDevice_t, index: c_uint, mig_device: Out<nvmlDevice_t>) |call| {
        let gpu = call.gpu(device)?.mig_enabled()?;
        if index >= most_mig_devices(gpu.geometry()?) {
            return Err(Code::INVALID_ARGUMENT);
        }
        let at = usize::try_from(index).map_err(|_| Code::INVALID_ARGUMENT)?;
        let mig = gpu.mig_devices().nth(at).ok_or(Code::NOT_FOUND)?;
        mig_device.put(call.handle_of_mig(mig))
    }

    /// Whether the handle is a MIG device's.
    fn nvmlDeviceIsMigDeviceHandle(device: nvmlDevice_t, is_mig_device: Out<c_uint>) |call| {
        is_mig_device.put(matches!(call.device(device)?, Device::Mig(_)).into())
    }

    /// The GPU of a MIG device.
    fn nvmlDeviceGetDeviceHandleFromMigDeviceHandle(mig_device: nvmlDevice_t, device: Out<nvmlDevice_t>) |call| {
        let mig = mig(call, mig_device, Code::INVALID_ARGUMENT)?;
        device.put(call.handle_of_gpu(mig.gpu()))
    }

    /// The id of a MIG device's GPU instance.
    fn nvmlDeviceGetGpuInstanceId(device: nvmlDevice_t, id: Out<c_uint>) |call| {
        id.put(mig(call, device, Code::NOT_SUPPORTED)?.within.instance.id)
    }

    /// The id of a MIG device's compute instance.
    fn nvmlDeviceGetComputeInstanceId(device: nvmlDevice_t, id: Out<c_uint>) |call| {
        id.put(mig(call, device, Code::NOT_SUPPORTED)?.compute.id)
    }

    /// A MIG device's slices, multiprocessors, engines and memory.
    fn nvmlDeviceGetAttributes_v2, nvmlDeviceGetAttributes(device: nvmlDevice_t, attributes: Out<nvmlDeviceAttributes_t>) |call| {
        let mig = mig(call, device, Code::NOT_SUPPORTED)?;
        attributes.put(mig_profile::attributes(mig.gpu().geometry()?, mig))
    }
}

fn most_mig_devices(geometry: &Geometry) -> c_uint {
    geometry.compute_slices.into()
}

/// The MIG device of a handle; a GPU is refused with `otherwise`.
fn mig<'a>(call: &Call<'a>, device: nvmlDevice_t, otherwise: Code) -> Result<MigDevice<'a>, Code> {
    match call.device(device)? {
        Device::Mig(mig) => Ok(mig),
        Device::Gpu(_) => Err(otherwise),
    }
}
