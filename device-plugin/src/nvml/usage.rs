//! How much of a GPU is used just now.

use nvml_wrapper::Device;
use nvml_wrapper::enums::device::UsedGpuMemory;
use nvml_wrapper::error::NvmlError;
use nvml_wrapper::struct_wrappers::device::ProcessInfo;
use stowage_shared::units::MemoryMib;

use super::{NvmlGpus, memory, raw};

/// What of a GPU is used.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GpuUsage {
    /// NVML's UUID.
    pub uuid: String,
    /// In how much of the last moments (a sixth of a second to a second, by product) a kernel ran, in per cent;
    /// `None` where the GPU does not tell, as in MIG mode.
    pub gpu_percent: Option<u32>,
    /// In how much of that time memory was read or written, in per cent; `None` as above.
    pub memory_copy_percent: Option<u32>,
    /// Its memory.
    pub memory: MemoryUsage,
    /// Its MIG devices.
    pub slices: Vec<SliceUsage>,
    /// The processes that compute on it, as far as they can be seen; none in MIG mode.
    pub processes: Vec<ProcessUsage>,
}

/// A process that computes on a GPU.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ProcessUsage {
    /// Its number, as this program's process namespace has it.
    pub pid: u32,
    /// What it has taken.
    pub memory: MemoryMib,
}

/// Memory, without what the driver keeps for itself; nothing where the GPU does not tell.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MemoryUsage {
    /// What programs have taken.
    pub used: MemoryMib,
    /// What is left.
    pub free: MemoryMib,
}

/// What of a MIG device is used.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SliceUsage {
    /// The id of its GPU instance.
    pub gpu_instance_id: u32,
    /// The first memory slice of its GPU instance.
    pub start: u32,
    /// Its memory.
    pub memory: MemoryUsage,
}

impl NvmlGpus {
    /// How much of a GPU is used. Blocks.
    ///
    /// # Errors
    /// NVML's, such as that the GPU has been lost.
    pub fn usage(&self, index: u32) -> Result<GpuUsage, NvmlError> {
        let device = self.nvml.device_by_index(index)?;
        let rates = match device.utilization_rates() {
            Ok(rates) => Some(rates),
            Err(NvmlError::NotSupported | NvmlError::FailedToLoadSymbol(_)) => None,
            Err(error) => return Err(error),
        };
        Ok(GpuUsage {
            uuid: device.uuid()?,
            gpu_percent: rates.as_ref().map(|rates| rates.gpu),
            memory_copy_percent: rates.as_ref().map(|rates| rates.memory),
            memory: self.memory(&device)?,
            slices: self.slices(&device)?,
            processes: processes(&device)?,
        })
    }

    fn memory(&self, device: &Device<'_>) -> Result<MemoryUsage, NvmlError> {
        let nothing = MemoryUsage { used: MemoryMib(0), free: MemoryMib(0) };
        Ok(memory::of(&self.nvml, device)?.map_or(nothing, |memory| memory.usage))
    }

    fn slices(&self, gpu: &Device<'_>) -> Result<Vec<SliceUsage>, NvmlError> {
        let enabled = nvml_wrapper_sys::bindings::NVML_DEVICE_MIG_ENABLE;
        if !gpu.mig_mode().is_ok_and(|mode| mode.current == enabled) {
            return Ok(Vec::new());
        }
        let mut slices = Vec::new();
        for index in 0..gpu.mig_device_count()? {
            let device = match gpu.mig_device_by_index(index) {
                Ok(device) => device,
                Err(NvmlError::NotFound) => continue,
                Err(error) => return Err(error),
            };
            let gpu_instance_id = raw::gpu_instance_id(self.nvml.lib(), &device)?;
            let start = raw::gpu_instance(self.nvml.lib(), gpu, gpu_instance_id)?.start;
            slices.push(SliceUsage { gpu_instance_id, start, memory: self.memory(&device)? });
        }
        Ok(slices)
    }
}

fn processes(device: &Device<'_>) -> Result<Vec<ProcessUsage>, NvmlError> {
    let running = match device.running_compute_processes() {
        Ok(running) => running,
        Err(NvmlError::NotSupported | NvmlError::FailedToLoadSymbol(_) | NvmlError::NoPermission) => {
            Vec::new()
        }
        Err(error) => return Err(error),
    };
    let of = |process: ProcessInfo| match process.used_gpu_memory {
        UsedGpuMemory::Used(bytes) if process.gpu_instance_id.is_none() => {
            Some(ProcessUsage { pid: process.pid, memory: MemoryMib::from_bytes(bytes) })
        }
        UsedGpuMemory::Used(_) | UsedGpuMemory::Unavailable => None,
    };
    Ok(running.into_iter().filter_map(of).collect())
}
