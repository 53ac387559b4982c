//! What a GPU says of its own health, as values.
//!
//! What an older driver or GPU does not tell is `None` or `false`: no GPU is ill because it keeps quiet.

use nvml_wrapper::enum_wrappers::device::{EccCounter, MemoryError};
use nvml_wrapper::{Device, Nvml};
use nvml_wrapper_sys::bindings as sys;

use super::raw;

/// What the driver says must be done with a GPU (drivers from 565 on).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum RecoveryAction {
    /// Nothing.
    None,
    /// Whatever uses it together with other GPUs must end.
    DrainPeers,
    /// What runs may end by itself, then it must be reset.
    DrainAndReset,
    /// It must be reset.
    Reset,
    /// The node must be rebooted.
    Reboot,
}

/// A GPU's own words.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Vitals {
    /// Memory errors since the driver was loaded or the GPU reset that ECC found and could not mend.
    pub uncorrected_errors: Option<u64>,
    /// Whether a damaged row waits for a reset to be replaced.
    pub row_remap_pending: bool,
    /// Whether a damaged row could not be replaced.
    pub row_remap_failed: bool,
    /// What must be done.
    pub recovery_action: Option<RecoveryAction>,
}

/// Reads them. Blocks.
pub(super) fn read(nvml: &Nvml, device: &Device<'_>) -> Vitals {
    let errors = device.total_ecc_errors(MemoryError::Uncorrected, EccCounter::Volatile);
    let (pending, failed) = raw::remapped_rows(nvml.lib(), device).unwrap_or_default();
    let action = raw::field(nvml.lib(), device, sys::field_id::NVML_FI_DEV_GET_GPU_RECOVERY_ACTION);
    Vitals {
        uncorrected_errors: errors.ok(),
        row_remap_pending: pending,
        row_remap_failed: failed,
        recovery_action: action.ok().and_then(recovery_action),
    }
}

fn recovery_action(number: u64) -> Option<RecoveryAction> {
    Some(match u32::try_from(number).ok()? {
        sys::nvmlDeviceGpuRecoveryAction_s_NVML_GPU_RECOVERY_ACTION_NONE => RecoveryAction::None,
        sys::nvmlDeviceGpuRecoveryAction_s_NVML_GPU_RECOVERY_ACTION_GPU_RESET => RecoveryAction::Reset,
        sys::nvmlDeviceGpuRecoveryAction_s_NVML_GPU_RECOVERY_ACTION_NODE_REBOOT => RecoveryAction::Reboot,
        sys::nvmlDeviceGpuRecoveryAction_s_NVML_GPU_RECOVERY_ACTION_DRAIN_P2P => RecoveryAction::DrainPeers,
        sys::nvmlDeviceGpuRecoveryAction_s_NVML_GPU_RECOVERY_ACTION_DRAIN_AND_RESET => {
            RecoveryAction::DrainAndReset
        }
        _ => return None,
    })
}
