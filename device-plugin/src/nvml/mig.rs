//! The MIG devices that exist on a GPU.

use std::sync::Mutex;

use nvml_wrapper::error::NvmlError;
use nvml_wrapper::{Device, Nvml};
use stowage_shared::mig::{Geometry, MigSlice};
use stowage_shared::units::MemoryMib;

use super::{MigDeviceReading, MigReading, geometry, raw};

/// The compute capability of the first GPUs that switch MIG mode without a reset.
const HOPPER: i32 = 9;

/// MIG as the GPU has it now; `None` where it has none.
pub(super) fn read(
    nvml: &Nvml,
    gpu: &Device<'_>,
    model: &str,
    memory: MemoryMib,
    geometries: &Mutex<geometry::Cache>,
) -> Result<Option<MigReading>, NvmlError> {
    let enabled = match gpu.mig_mode() {
        // The mode that was asked for last may wait for a reset of the GPU; what counts is what it does now.
        Ok(mode) => mode.current == nvml_wrapper_sys::bindings::NVML_DEVICE_MIG_ENABLE,
        Err(NvmlError::NotSupported | NvmlError::FailedToLoadSymbol(_)) => return Ok(None),
        Err(error) => return Err(error),
    };
    let geometry = match geometry::of(geometries, nvml, gpu, model, memory) {
        Ok(geometry) => geometry,
        // Nothing needs the geometry of a GPU that is not cut; some drivers tell it only in MIG mode.
        Err(_) if !enabled => Geometry { memory_slices: 0, compute_slices: 0, profiles: Vec::new() },
        Err(error) => return Err(error),
    };
    let mut devices = Vec::new();
    if enabled {
        for index in 0..gpu.mig_device_count()? {
            match gpu.mig_device_by_index(index) {
                Ok(device) => devices.push(mig_device(nvml, gpu, &device, index, &geometry)?),
                // Indices have gaps: one for each instance that could be there.
                Err(NvmlError::NotFound) => {}
                Err(error) => return Err(error),
            }
        }
    }
    // An older GPU needs a reset for it, and a newer one not (NVIDIA MIG User Guide, "Enable MIG Mode").
    let switchable = gpu.cuda_compute_capability().is_ok_and(|capability| capability.major >= HOPPER);
    Ok(Some(MigReading { enabled, geometry, devices, instances: Vec::new(), switchable }))
}

fn mig_device(
    nvml: &Nvml,
    gpu: &Device<'_>,
    device: &Device<'_>,
    index: u32,
    geometry: &Geometry,
) -> Result<MigDeviceReading, NvmlError> {
    let gpu_instance_id = raw::gpu_instance_id(nvml.lib(), device)?;
    let instance = raw::gpu_instance(nvml.lib(), gpu, gpu_instance_id)?;
    let profile = geometry
        .profiles
        .iter()
        .find(|profile| profile.id == instance.profile_id)
        .ok_or(NvmlError::NotFound)?;
    let attributes = device.attributes()?;
    let place = |number: u32| u8::try_from(number).map_err(|_| NvmlError::Unknown);
    Ok(MigDeviceReading {
        uuid: device.uuid()?,
        index,
        slice: MigSlice {
            profile: profile.name.clone(),
            start: place(instance.start)?,
            size: place(instance.size)?,
            media_engines: profile.media_engines,
        },
        fills_gpu_instance: attributes.compute_instance_slice_count == attributes.gpu_instance_slice_count,
        gpu_instance_id,
        compute_instance_id: raw::compute_instance_id(nvml.lib(), device)?,
    })
}
