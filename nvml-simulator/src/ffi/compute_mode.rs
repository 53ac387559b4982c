//! Which processes may compute on a GPU. It is kept, and nothing comes of it: nothing computes here.

use nvml_wrapper_sys::bindings as nvml;
use nvml_wrapper_sys::bindings::{nvmlComputeMode_t, nvmlDevice_t};

use super::pointer::Out;
use super::{Code, export};
use crate::state::Operation;

export! {
    /// Whether any process may compute on it, one, or none.
    fn nvmlDeviceGetComputeMode(device: nvmlDevice_t, mode: Out<nvmlComputeMode_t>) |call| {
        mode.put(call.gpu_or(device, Code::NOT_SUPPORTED)?.state.compute_mode)
    }

    /// The same to be changed, for all processes of the node.
    fn nvmlDeviceSetComputeMode(device: nvmlDevice_t, mode: nvmlComputeMode_t) |call| {
        let index = call.gpu_or(device, Code::NOT_SUPPORTED)?.hardware.index;
        if mode >= nvml::nvmlComputeMode_enum_NVML_COMPUTEMODE_COUNT {
            return Err(Code::INVALID_ARGUMENT);
        }
        call.update(Operation::SetComputeMode, |node| node.set_compute_mode(index, mode))
    }
}
