//! Starting and ending, and what concerns the driver.

use std::ffi::{c_char, c_int, c_uint};

use nvml_wrapper_sys::bindings::nvmlReturn_t;

use super::pointer::{Out, TextOut};
use super::{Code, export};
use crate::session;

/// Opens the node that `NVML_SIMULATOR_CONFIG` describes; counted, each needs one `nvmlShutdown`.
// SAFETY: NVML's own name; see `export!`.
#[unsafe(no_mangle)]
pub extern "C" fn nvmlInit_v2() -> nvmlReturn_t {
    session::init()
}

/// The older name of `nvmlInit_v2`.
// SAFETY: NVML's own name; see `export!`.
#[unsafe(no_mangle)]
pub extern "C" fn nvmlInit() -> nvmlReturn_t {
    session::init()
}

/// As `nvmlInit_v2`; the flags (no GPUs is fine, do not attach) change nothing here.
// SAFETY: NVML's own name; see `export!`.
#[unsafe(no_mangle)]
pub extern "C" fn nvmlInitWithFlags(_flags: c_uint) -> nvmlReturn_t {
    session::init()
}

/// Undoes one initialization; the last one forgets all event sets.
// SAFETY: NVML's own name; see `export!`.
#[unsafe(no_mangle)]
pub extern "C" fn nvmlShutdown() -> nvmlReturn_t {
    session::shutdown()
}

/// NVML's words for a return code; needs no initialization.
// SAFETY: NVML's own name; see `export!`.
#[unsafe(no_mangle)]
pub extern "C" fn nvmlErrorString(result: nvmlReturn_t) -> *const c_char {
    Code(result).text().as_ptr()
}

export! {
    /// The driver's version, e.g. `570.86.15`.
    fn nvmlSystemGetDriverVersion(version: TextOut, length: c_uint) |call| {
        version.put(&call.hardware.driver_version, length)
    }

    /// NVML's version: CUDA's major version before the driver's.
    fn nvmlSystemGetNVMLVersion(version: TextOut, length: c_uint) |call| {
        version.put(&format!("{}.{}", call.hardware.cuda.major, call.hardware.driver_version), length)
    }

    /// The newest CUDA version of the driver: 12080 is 12.8.
    fn nvmlSystemGetCudaDriverVersion_v2, nvmlSystemGetCudaDriverVersion(version: Out<c_int>) |call| {
        version.put(call.hardware.cuda.number())
    }
}
