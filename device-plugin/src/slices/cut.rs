//! The seam to the driver: what can be done to one GPU.

use nvml_wrapper::error::NvmlError;
use stowage_shared::mig::MigSlice;

use crate::nvml::{Built, Instance, NvmlGpus};

/// What NVML answers, and the wrapper has no name for, where a place is taken.
pub(super) use nvml_wrapper_sys::bindings::nvmlReturn_enum_NVML_ERROR_INSUFFICIENT_RESOURCES as PLACE_TAKEN;

/// What can be done to one GPU.
pub trait Cut {
    /// Whether it is in MIG mode.
    ///
    /// # Errors
    /// NVML's own, as all of these.
    fn is_cut(&self) -> Result<bool, NvmlError>;
    /// Switches MIG mode.
    ///
    /// # Errors
    /// `InUse` while somebody uses the GPU.
    fn set_cut(&self, cut: bool) -> Result<(), NvmlError>;
    /// The GPU instances that exist.
    ///
    /// # Errors
    /// NVML's own.
    fn instances(&self) -> Result<Vec<Instance>, NvmlError>;
    /// Builds one, with a compute instance that fills it.
    ///
    /// # Errors
    /// `UnexpectedVariant(PLACE_TAKEN)`, which the wrapper has no name for, where the place is taken.
    fn build(&self, slice: &MigSlice) -> Result<Built, NvmlError>;
    /// Takes one down.
    ///
    /// # Errors
    /// `InUse` while a process runs on it.
    fn take_down(&self, gpu_instance_id: u32) -> Result<(), NvmlError>;
}

/// One GPU of the machine, by NVML's index.
pub struct OneGpu<'a>(pub &'a NvmlGpus, pub u32);

impl Cut for OneGpu<'_> {
    fn is_cut(&self) -> Result<bool, NvmlError> {
        self.0.is_cut(self.1)
    }

    fn set_cut(&self, cut: bool) -> Result<(), NvmlError> {
        self.0.set_cut(self.1, cut)
    }

    fn instances(&self) -> Result<Vec<Instance>, NvmlError> {
        self.0.instances(self.1)
    }

    fn build(&self, slice: &MigSlice) -> Result<Built, NvmlError> {
        self.0.build(self.1, slice)
    }

    fn take_down(&self, gpu_instance_id: u32) -> Result<(), NvmlError> {
        self.0.take_down(self.1, gpu_instance_id)
    }
}
