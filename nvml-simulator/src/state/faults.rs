//! What breaks, on demand: XIDs, lost GPUs, hanging calls, refused creations, memory errors.

use serde::{Deserialize, Serialize};

use nvml_wrapper_sys::bindings as nvml;
use nvml_wrapper_sys::bindings::nvmlReturn_t;

use super::{Event, Node, Refusal};

/// What a [`CreationFault`] is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Created {
    /// GPU instances.
    GpuInstance,
    /// Compute instances.
    ComputeInstance,
}

/// Creations through the C API that fail although there is room.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct CreationFault {
    /// Of what.
    pub of: Created,
    /// How many more fail; `u32::MAX` for all.
    pub times: u32,
    /// NVML's return code of each.
    pub code: nvmlReturn_t,
}

/// ECC errors of one GPU's memory and caches, since the last reset and ever.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct EccErrors {
    /// Corrected, since the last reset.
    pub volatile_corrected: u64,
    /// Not corrected, since the last reset.
    pub volatile_uncorrected: u64,
    /// Corrected, ever.
    pub aggregate_corrected: u64,
    /// Not corrected, ever.
    pub aggregate_uncorrected: u64,
}

/// Rows of a GPU's memory that were replaced by spare ones (Ampere and later).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct RemappedRows {
    /// Because of correctable errors.
    pub correctable: u32,
    /// Because of uncorrectable errors.
    pub uncorrectable: u32,
    /// Whether a row will be replaced at the next reset.
    pub pending: bool,
    /// Whether a row could not be replaced: no spare was left.
    pub failed: bool,
}

/// What the driver recommends to do with a GPU (`NVML_FI_DEV_GET_GPU_RECOVERY_ACTION`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum RecoveryAction {
    /// Nothing: it works.
    #[default]
    None,
    /// Reset the GPU.
    GpuReset,
    /// Reboot the node.
    NodeReboot,
    /// End what uses peer-to-peer, then reset.
    DrainP2p,
    /// End what runs on it, then reset.
    DrainAndReset,
}

impl RecoveryAction {
    /// NVML's number of it.
    pub fn number(self) -> u32 {
        match self {
            Self::None => 0,
            Self::GpuReset => 1,
            Self::NodeReboot => 2,
            Self::DrainP2p => 3,
            Self::DrainAndReset => 4,
        }
    }
}

impl EccErrors {
    pub(super) fn after_reset(self) -> Self {
        Self { volatile_corrected: 0, volatile_uncorrected: 0, ..self }
    }
}

impl RemappedRows {
    pub(super) fn after_reset(self) -> Self {
        let uncorrectable = self.uncorrectable.saturating_add(self.pending.into());
        Self { uncorrectable, pending: false, ..self }
    }
}

impl Node<'_> {
    /// Takes a GPU off the bus, or puts it back. Its instances stay in the book, as the driver's do.
    ///
    /// # Errors
    /// [`Refusal::NoGpu`].
    pub fn set_lost(&mut self, gpu: u32, lost: bool) -> Result<(), Refusal> {
        self.any_gpu(gpu)?.1.lost = lost;
        Ok(())
    }

    /// Makes every call that concerns a GPU or its instances hang, or lets all that hang go on.
    ///
    /// Waiting for events does not hang: it concerns the driver. Nor does a `nvmlInit`.
    ///
    /// # Errors
    /// [`Refusal::NoGpu`].
    pub fn set_hanging(&mut self, gpu: u32, hanging: bool) -> Result<(), Refusal> {
        self.any_gpu(gpu)?.1.hanging = hanging;
        Ok(())
    }

    /// Raises an XID. `instances` names a GPU instance, and perhaps a compute instance in it.
    ///
    /// # Errors
    /// [`Refusal::NoGpu`]. A lost GPU may still report why (XID 79).
    pub fn raise_xid(
        &mut self,
        gpu: u32,
        xid: u64,
        instances: Option<(u32, Option<u32>)>,
    ) -> Result<(), Refusal> {
        self.any_gpu(gpu)?;
        let gpu_instance = instances.map(|(id, _)| id);
        let compute_instance = instances.and_then(|(_, id)| id);
        let kind = nvml::nvmlEventTypeXidCriticalError.into();
        self.state.push_event(Event { gpu, kind, data: xid, gpu_instance, compute_instance });
        Ok(())
    }

    /// Lets the next so many creations fail with that code, in place of what was set before; 0 of them
    /// lets all succeed again.
    ///
    /// # Errors
    /// [`Refusal::NoGpu`].
    pub fn fail_creations(&mut self, gpu: u32, fault: CreationFault) -> Result<(), Refusal> {
        let faults = &mut self.any_gpu(gpu)?.1.creation_faults;
        faults.retain(|other| other.of != fault.of);
        if fault.times > 0 {
            faults.push(fault);
        }
        Ok(())
    }

    /// The code with which this creation fails on demand, if it does; counts it.
    pub(crate) fn take_creation_fault(
        &mut self,
        gpu: u32,
        of: Created,
    ) -> Result<Option<nvmlReturn_t>, Refusal> {
        let faults = &mut self.gpu(gpu)?.1.creation_faults;
        let Some(fault) = faults.iter_mut().find(|fault| fault.of == of) else { return Ok(None) };
        let code = fault.code;
        if fault.times != u32::MAX {
            fault.times = fault.times.saturating_sub(1);
        }
        faults.retain(|fault| fault.times > 0);
        Ok(Some(code))
    }

    /// Counts ECC errors, and tells them as events.
    ///
    /// # Errors
    /// [`Refusal::NoGpu`].
    pub fn add_ecc_errors(&mut self, gpu: u32, corrected: u64, uncorrected: u64) -> Result<(), Refusal> {
        let ecc = &mut self.any_gpu(gpu)?.1.ecc;
        for (counter, errors) in [
            (&mut ecc.volatile_corrected, corrected),
            (&mut ecc.aggregate_corrected, corrected),
            (&mut ecc.volatile_uncorrected, uncorrected),
            (&mut ecc.aggregate_uncorrected, uncorrected),
        ] {
            *counter = counter.saturating_add(errors);
        }
        let told = [
            (corrected, nvml::nvmlEventTypeSingleBitEccError),
            (uncorrected, nvml::nvmlEventTypeDoubleBitEccError),
        ];
        for (_, kind) in told.into_iter().filter(|(errors, _)| *errors > 0) {
            let kind = kind.into();
            self.state.push_event(Event { gpu, kind, data: 0, gpu_instance: None, compute_instance: None });
        }
        Ok(())
    }

    /// Sets which rows of memory were replaced.
    ///
    /// # Errors
    /// [`Refusal::NoGpu`].
    pub fn set_remapped_rows(&mut self, gpu: u32, rows: RemappedRows) -> Result<(), Refusal> {
        self.any_gpu(gpu)?.1.remapped_rows = rows;
        Ok(())
    }

    /// Sets what the driver recommends; a reset clears it.
    ///
    /// # Errors
    /// [`Refusal::NoGpu`].
    pub fn set_recovery_action(&mut self, gpu: u32, action: RecoveryAction) -> Result<(), Refusal> {
        self.any_gpu(gpu)?.1.recovery_action = action;
        Ok(())
    }
}
