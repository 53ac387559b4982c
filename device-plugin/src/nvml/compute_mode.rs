//! Who may compute on a GPU: what MPS needs of NVML.

use nvml_wrapper::Device;
use nvml_wrapper::enum_wrappers::device::ComputeMode;
use nvml_wrapper::error::NvmlError;

use super::NvmlGpus;

/// The first compute capability whose MPS server has [`MPS_CLIENTS_MAX`] clients, as NVIDIA's plugin has it.
///
/// [`MPS_CLIENTS_MAX`]: stowage_shared::contract::MPS_CLIENTS_MAX
const MANY_CLIENTS: (i32, i32) = (7, 5);
/// How many an older one has.
const FEW_CLIENTS: u32 = 16;

impl NvmlGpus {
    /// Lets one process alone compute on a GPU, which is MPS's server then. Blocks.
    ///
    /// # Errors
    /// NVML's: it takes root, and the right to write to the GPU's device node.
    pub fn set_exclusive(&self, index: u32) -> Result<(), NvmlError> {
        set_mode(self.nvml.device_by_index(index)?, ComputeMode::ExclusiveProcess)
    }

    /// Lets any process compute on these GPUs. Blocks.
    ///
    /// # Errors
    /// As [`NvmlGpus::set_exclusive`].
    pub fn set_shared(&self, uuids: &[String]) -> Result<(), NvmlError> {
        uuids
            .iter()
            .try_for_each(|uuid| set_mode(self.nvml.device_by_uuid(uuid.as_str())?, ComputeMode::Default))
    }

    /// How many clients an MPS server has on a GPU. Blocks.
    ///
    /// # Errors
    /// NVML's.
    pub fn mps_clients(&self, index: u32) -> Result<u32, NvmlError> {
        let capability = self.nvml.device_by_index(index)?.cuda_compute_capability()?;
        let has_many = (capability.major, capability.minor) >= MANY_CLIENTS;
        Ok(if has_many { stowage_shared::contract::MPS_CLIENTS_MAX } else { FEW_CLIENTS })
    }
}

fn set_mode(mut device: Device<'_>, wanted: ComputeMode) -> Result<(), NvmlError> {
    if device.compute_mode()? != wanted {
        device.set_compute_mode(wanted)?;
    }
    Ok(())
}
