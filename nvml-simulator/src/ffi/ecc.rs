//! Memory errors: ECC counters, remapped rows, and what the driver recommends to do.

use std::ffi::{c_int, c_uint, c_ulonglong};

use nvml_wrapper_sys::bindings as nvml;
use nvml_wrapper_sys::bindings::{nvmlDevice_t, nvmlEnableState_t, nvmlFieldValue_t, nvmlValue_t};

use super::pointer::Out;
use super::processes::microseconds;
use super::{Code, Gpu, export};

/// The most fields of one question.
const FIELDS_MAX: usize = 1024;

export! {
    /// Whether ECC is on now and after the next boot: always, on every model here.
    fn nvmlDeviceGetEccMode(
        device: nvmlDevice_t,
        current: Out<nvmlEnableState_t>,
        pending: Out<nvmlEnableState_t>,
    ) |call| {
        call.gpu_or(device, Code::NOT_SUPPORTED)?;
        current.put(nvml::nvmlEnableState_enum_NVML_FEATURE_ENABLED)?;
        pending.put(nvml::nvmlEnableState_enum_NVML_FEATURE_ENABLED)
    }

    /// How many errors were (not) corrected, since the last reset or ever.
    fn nvmlDeviceGetTotalEccErrors(
        device: nvmlDevice_t,
        kind: nvml::nvmlMemoryErrorType_t,
        counter: nvml::nvmlEccCounterType_t,
        count: Out<c_ulonglong>,
    ) |call| {
        let ecc = call.gpu_or(device, Code::NOT_SUPPORTED)?.state.ecc;
        let corrected = match kind {
            nvml::nvmlMemoryErrorType_enum_NVML_MEMORY_ERROR_TYPE_CORRECTED => true,
            nvml::nvmlMemoryErrorType_enum_NVML_MEMORY_ERROR_TYPE_UNCORRECTED => false,
            _ => return Err(Code::INVALID_ARGUMENT),
        };
        count.put(match (counter, corrected) {
            (nvml::nvmlEccCounterType_enum_NVML_VOLATILE_ECC, true) => ecc.volatile_corrected,
            (nvml::nvmlEccCounterType_enum_NVML_VOLATILE_ECC, false) => ecc.volatile_uncorrected,
            (nvml::nvmlEccCounterType_enum_NVML_AGGREGATE_ECC, true) => ecc.aggregate_corrected,
            (nvml::nvmlEccCounterType_enum_NVML_AGGREGATE_ECC, false) => ecc.aggregate_uncorrected,
            _ => return Err(Code::INVALID_ARGUMENT),
        })
    }

    /// Rows that were replaced; only Ampere and later can.
    fn nvmlDeviceGetRemappedRows(
        device: nvmlDevice_t,
        correctable: Out<c_uint>,
        uncorrectable: Out<c_uint>,
        is_pending: Out<c_uint>,
        has_failed: Out<c_uint>,
    ) |call| {
        let gpu = call.gpu_or(device, Code::NOT_SUPPORTED)?;
        if !remaps_rows(gpu) {
            return Err(Code::NOT_SUPPORTED);
        }
        let rows = gpu.state.remapped_rows;
        correctable.put(rows.correctable)?;
        uncorrectable.put(rows.uncorrectable)?;
        is_pending.put(rows.pending.into())?;
        has_failed.put(rows.failed.into())
    }

    /// Whether a page of memory will be retired at the next reset; GPUs that remap rows retire no pages.
    fn nvmlDeviceGetRetiredPagesPendingStatus(device: nvmlDevice_t, is_pending: Out<nvmlEnableState_t>) |call| {
        let gpu = call.gpu_or(device, Code::NOT_SUPPORTED)?;
        if remaps_rows(gpu) {
            return Err(Code::NOT_SUPPORTED);
        }
        is_pending.put(gpu.state.remapped_rows.pending.into())
    }

    /// Values by field id: what the driver recommends to do with the GPU (230). Others are `NOT_SUPPORTED`,
    /// each for itself.
    fn nvmlDeviceGetFieldValues(device: nvmlDevice_t, count: c_int, values: Out<nvmlFieldValue_t>) |call| {
        let gpu = call.gpu_or(device, Code::NOT_SUPPORTED)?;
        let count = usize::try_from(count).ok().filter(|count| (1..=FIELDS_MAX).contains(count));
        for index in 0..count.ok_or(Code::INVALID_ARGUMENT)? {
            let value = values.at(index);
            let mut answer = value.get()?;
            answer.timestamp = microseconds().cast_signed();
            answer.nvmlReturn = Code::NOT_SUPPORTED.0;
            if answer.fieldId == nvml::field_id::NVML_FI_DEV_GET_GPU_RECOVERY_ACTION {
                answer.nvmlReturn = Code::SUCCESS.0;
                answer.valueType = nvml::nvmlValueType_enum_NVML_VALUE_TYPE_UNSIGNED_INT;
                answer.value = nvmlValue_t { uiVal: gpu.state.recovery_action.number() };
            }
            value.put(answer)?;
        }
        Ok(())
    }
}

fn remaps_rows(gpu: Gpu<'_>) -> bool {
    gpu.hardware.model.compute_capability >= (8, 0)
}
