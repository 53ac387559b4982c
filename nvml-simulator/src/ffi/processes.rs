//! Processes and how busy they keep a GPU.
//!
//! As with NVML, utilization is a GPU's own: in MIG mode neither the GPU nor its MIG devices tell any.

use std::ffi::{c_uint, c_ulonglong};
use std::time::{SystemTime, UNIX_EPOCH};

use nvml_wrapper_sys::bindings as nvml;
use nvml_wrapper_sys::bindings::{
    nvmlDevice_t, nvmlProcessInfo_v1_t, nvmlProcessInfo_v2_t, nvmlSample_t, nvmlUtilization_t, nvmlValue_t,
    nvmlValueType_t,
};

use super::pointer::Out;
use super::{Code, Device, Gpu, export};
use crate::session::Call;
use crate::state::Process;

/// How NVML says "not an instance".
const NO_INSTANCE: c_uint = 0xffff_ffff;

export! {
    /// Processes that compute on a GPU or MIG device. No array, or one too short, asks for their number.
    fn nvmlDeviceGetComputeRunningProcesses_v3, nvmlDeviceGetComputeRunningProcesses_v2(
        device: nvmlDevice_t,
        count: Out<c_uint>,
        infos: Out<nvmlProcessInfo_v2_t>,
    ) |call| {
        put_processes(call, device, &count, &infos, |process| nvmlProcessInfo_v2_t {
            pid: process.pid,
            usedGpuMemory: process.memory_mib << 20,
            gpuInstanceId: process.instance.map_or(NO_INSTANCE, |(id, _)| id),
            computeInstanceId: process.instance.map_or(NO_INSTANCE, |(_, id)| id),
        })
    }

    /// The oldest form: without the instances.
    fn nvmlDeviceGetComputeRunningProcesses(
        device: nvmlDevice_t,
        count: Out<c_uint>,
        infos: Out<nvmlProcessInfo_v1_t>,
    ) |call| {
        put_processes(call, device, &count, &infos, |process| nvmlProcessInfo_v1_t {
            pid: process.pid,
            usedGpuMemory: process.memory_mib << 20,
        })
    }

    /// Processes that draw, or compute through MPS: none.
    fn nvmlDeviceGetGraphicsRunningProcesses_v3, nvmlDeviceGetMPSComputeRunningProcesses_v3(
        device: nvmlDevice_t,
        count: Out<c_uint>,
        _infos: Out<nvmlProcessInfo_v2_t>,
    ) |call| {
        call.device(device)?;
        count.put(0)
    }

    /// How busy a GPU is, in per cent; not in MIG mode.
    fn nvmlDeviceGetUtilizationRates(device: nvmlDevice_t, utilization: Out<nvmlUtilization_t>) |call| {
        let busy = gpu_without_mig(call, device)?.state.utilization;
        utilization.put(nvmlUtilization_t { gpu: busy.gpu_percent.into(), memory: busy.memory_percent.into() })
    }

    /// The last sample of a GPU's or its memory's utilization: one, of now. Other samples are not simulated.
    fn nvmlDeviceGetSamples(
        device: nvmlDevice_t,
        kind: nvml::nvmlSamplingType_t,
        _last_seen: c_ulonglong,
        value_type: Out<nvmlValueType_t>,
        count: Out<c_uint>,
        samples: Out<nvmlSample_t>,
    ) |call| {
        let busy = gpu_without_mig(call, device)?.state.utilization;
        let percent = match kind {
            nvml::nvmlSamplingType_enum_NVML_GPU_UTILIZATION_SAMPLES => busy.gpu_percent,
            nvml::nvmlSamplingType_enum_NVML_MEMORY_UTILIZATION_SAMPLES => busy.memory_percent,
            _ => return Err(Code::NOT_SUPPORTED),
        };
        value_type.put(nvml::nvmlValueType_enum_NVML_VALUE_TYPE_UNSIGNED_INT)?;
        let sample = nvmlSample_t { timeStamp: microseconds(), sampleValue: nvmlValue_t { uiVal: percent.into() } };
        super::mig::put_array(&samples, &count, &[sample])
    }
}

fn gpu_without_mig<'a>(call: &Call<'a>, device: nvmlDevice_t) -> Result<Gpu<'a>, Code> {
    let gpu = call.gpu_or(device, Code::NOT_SUPPORTED)?;
    if gpu.state.mig_enabled { Err(Code::NOT_SUPPORTED) } else { Ok(gpu) }
}

fn put_processes<T: Copy>(
    call: &Call<'_>,
    device: nvmlDevice_t,
    count: &Out<c_uint>,
    infos: &Out<T>,
    form: impl Fn(&Process) -> T,
) -> Result<(), Code> {
    let device = call.device(device)?;
    let instance = match device {
        Device::Gpu(_) => None,
        Device::Mig(mig) => Some((mig.within.instance.id, mig.compute.id)),
    };
    let running = &device.gpu().state.processes;
    let here = running.iter().filter(|process| instance.is_none() || process.instance == instance);
    let all: Vec<T> = here.map(form).collect();
    let length = c_uint::try_from(all.len()).map_err(|_| Code::UNKNOWN)?;
    let room = count.get()?;
    count.put(length)?;
    if room < length {
        return Err(Code::INSUFFICIENT_SIZE);
    }
    if all.is_empty() { Ok(()) } else { infos.put_all(&all) }
}

/// NVML's time stamps: microseconds since 1970.
pub(super) fn microseconds() -> c_ulonglong {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    c_ulonglong::try_from(since.as_micros()).unwrap_or(c_ulonglong::MAX)
}
