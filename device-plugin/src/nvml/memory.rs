//! How much memory a GPU or MIG device has.

use nvml_wrapper::error::NvmlError;
use nvml_wrapper::{Device, Nvml};
use stowage_shared::units::MemoryMib;

use super::raw;
use super::usage::MemoryUsage;

/// All of it, and what of it is used.
pub(super) struct Memory {
    pub(super) total: MemoryMib,
    pub(super) usage: MemoryUsage,
}

/// Reads it; `None` where the device does not tell, as GPUs that share the machine's memory.
pub(super) fn of(nvml: &Nvml, device: &Device<'_>) -> Result<Option<Memory>, NvmlError> {
    let told = match device.memory_info() {
        // Drivers before 510.
        Err(NvmlError::FailedToLoadSymbol(_)) => {
            raw::memory_info(nvml.lib(), device).map(|info| (info.total, info.used, info.free))
        }
        told => told.map(|info| (info.total, info.used, info.free)),
    };
    let mib = MemoryMib::from_bytes;
    match told {
        Ok((total, used, free)) => {
            Ok(Some(Memory { total: mib(total), usage: MemoryUsage { used: mib(used), free: mib(free) } }))
        }
        Err(NvmlError::NotSupported) => Ok(None),
        Err(error) => Err(error),
    }
}
