//! Changing a node's state by the rules of the hardware.

use super::{ComputeInstance, GpuInstance, GpuState, PROCESSES_MAX, State, placement, slice_of};
use crate::hardware::{GpuHardware, Hardware};

/// A node to be changed: its hardware, and its state.
#[derive(Debug)]
pub struct Node<'a> {
    /// What never changes.
    pub hardware: &'a Hardware,
    /// What this type changes.
    pub state: &'a mut State,
}

/// Which rule forbids a change.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// No such GPU.
    #[error("there is no GPU {0}")]
    NoGpu(u32),
    /// It has fallen off the bus.
    #[error("GPU {0} is lost")]
    Lost(u32),
    /// The model has no MIG, or its MIG mode is off.
    #[error("GPU {0} has no MIG, or its MIG mode is off")]
    NoMig(u32),
    /// No such GPU instance.
    #[error("GPU {gpu} has no GPU instance {id}")]
    NoGpuInstance {
        /// Index of the GPU.
        gpu: u32,
        /// The id asked for.
        id: u32,
    },
    /// No such compute instance.
    #[error("GPU instance {gpu_instance} has no compute instance {id}")]
    NoComputeInstance {
        /// Id of the GPU instance.
        gpu_instance: u32,
        /// The id asked for.
        id: u32,
    },
    /// The GPU or GPU instance has no such profile.
    #[error("there is no such profile ({0})")]
    Profile(u32),
    /// The profile may not start there.
    #[error("profile {profile} may not start at {start}")]
    Start {
        /// NVML's profile id, or the compute slices of a compute instance.
        profile: u32,
        /// The start asked for.
        start: u8,
    },
    /// Its slices, or the GPU's shared media engines, are in use.
    #[error("no room: instances that exist take what it needs")]
    NoRoom,
    /// Instances exist in it, or processes run on it.
    #[error("it is in use")]
    InUse,
    /// A process must name the compute instance that it runs on, and only where MIG mode is on.
    #[error("GPU {0}: a process names its GPU and compute instance if MIG mode is on, and none if it is off")]
    ProcessPlace(u32),
    /// No such process.
    #[error("no process {pid} runs on GPU {gpu}")]
    NoProcess {
        /// Index of the GPU.
        gpu: u32,
        /// The process id asked for.
        pid: u32,
    },
    /// There is not so much memory left, or there are too many processes.
    #[error(
        "the GPU or its instance has {free_mib} MiB left, and room for at most {PROCESSES_MAX} processes"
    )]
    Memory {
        /// Memory left, in MiB.
        free_mib: u64,
    },
    /// A number that cannot be.
    #[error("{what} is {value}: the most is {most}")]
    Range {
        /// Which number.
        what: &'static str,
        /// What it is.
        value: u64,
        /// The most it may be.
        most: u64,
    },
}

/// When a MIG mode that was asked for is the current one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Activation {
    /// It is so already.
    Current,
    /// After the next reset of the GPU.
    AtReset,
    /// Not while instances exist or processes run.
    InUse,
}

impl Node<'_> {
    /// Lets one process compute on a GPU, or any.
    ///
    /// # Errors
    /// [`Refusal::NoGpu`], [`Refusal::Lost`].
    pub fn set_compute_mode(&mut self, gpu: u32, mode: u32) -> Result<(), Refusal> {
        self.gpu(gpu)?.1.compute_mode = mode;
        Ok(())
    }

    /// Which processes may compute on a GPU, as NVML numbers it; 0 for any.
    ///
    /// # Errors
    /// [`Refusal::NoGpu`], [`Refusal::Lost`].
    pub fn compute_mode(&mut self, gpu: u32) -> Result<u32, Refusal> {
        Ok(self.gpu(gpu)?.1.compute_mode)
    }

    /// Asks for MIG mode to be on or off.
    ///
    /// While processes run on it, the mode stays as it is; before Hopper it is pending all the same, as
    /// `nvidia-smi -mig 1` then says ("in pending enable state …: In use by another client").
    ///
    /// # Errors
    /// [`Refusal::NoMig`] without MIG.
    pub fn set_mig_mode(&mut self, gpu: u32, enabled: bool) -> Result<Activation, Refusal> {
        let (hardware, state) = self.gpu(gpu)?;
        if hardware.geometry.is_none() {
            return Err(Refusal::NoMig(gpu));
        }
        if !enabled && !state.gpu_instances.is_empty() {
            return Ok(Activation::InUse);
        }
        let at_once = hardware.switches_mig_without_reset();
        let busy = state.mig_enabled != enabled && !state.processes.is_empty();
        if !(busy && at_once) {
            state.mig_pending = enabled;
        }
        if busy {
            return Ok(Activation::InUse);
        }
        if at_once {
            state.mig_enabled = enabled;
        }
        Ok(if state.mig_enabled == enabled { Activation::Current } else { Activation::AtReset })
    }

    /// Resets a GPU: MIG instances are gone, the pending MIG mode is current, a lost or hanging GPU is back,
    /// pending rows are remapped. What the hardware remembers stays: ECC aggregates, remapped rows.
    ///
    /// # Errors
    /// [`Refusal::NoGpu`], [`Refusal::InUse`] while processes run on it.
    pub fn reset_gpu(&mut self, gpu: u32) -> Result<(), Refusal> {
        let state = self.any_gpu(gpu)?.1;
        if !state.processes.is_empty() {
            return Err(Refusal::InUse);
        }
        *state = GpuState {
            mig_enabled: state.mig_pending,
            mig_pending: state.mig_pending,
            ecc: state.ecc.after_reset(),
            remapped_rows: state.remapped_rows.after_reset(),
            ..GpuState::default()
        };
        Ok(())
    }

    /// Creates a GPU instance of NVML's profile id, at `start` or where [`placement::choose_start`] says.
    /// Answers with its id.
    ///
    /// # Errors
    /// Any [`Refusal`] but those of compute instances.
    pub fn create_gpu_instance(
        &mut self,
        gpu: u32,
        profile_id: u32,
        start: Option<u8>,
    ) -> Result<u32, Refusal> {
        let serial = self.state.next_serial;
        let (hardware, state) = self.mig_gpu(gpu)?;
        let geometry = hardware.geometry.as_ref().ok_or(Refusal::NoMig(gpu))?;
        let profile = hardware.profile(profile_id).ok_or(Refusal::Profile(profile_id))?;
        let in_use = state.slices(hardware);
        let start = match start {
            Some(start) => start,
            None => placement::choose_start(geometry, &in_use, profile).ok_or(Refusal::NoRoom)?,
        };
        let slice = slice_of(profile, start).ok_or(Refusal::Start { profile: profile_id, start })?;
        if in_use.iter().any(|used| used.conflicts(&slice)) {
            return Err(Refusal::NoRoom);
        }
        let id = lowest_unused(1, state.gpu_instances.iter().map(|instance| instance.id));
        let at = state.gpu_instances.partition_point(|instance| instance.id < id);
        let instance = GpuInstance { id, serial, profile_id, start, compute_instances: Vec::new() };
        state.gpu_instances.insert(at, instance);
        self.state.next_serial += 1;
        Ok(id)
    }

    /// Destroys a GPU instance.
    ///
    /// # Errors
    /// [`Refusal::InUse`] while it has compute instances.
    pub fn destroy_gpu_instance(&mut self, gpu: u32, id: u32) -> Result<(), Refusal> {
        if !self.gpu_instance(gpu, id)?.1.compute_instances.is_empty() {
            return Err(Refusal::InUse);
        }
        self.gpu(gpu)?.1.gpu_instances.retain(|instance| instance.id != id);
        Ok(())
    }

    /// Creates a compute instance of so many compute slices, at `start` or at the lowest open one. Answers
    /// with its id.
    ///
    /// # Errors
    /// [`Refusal::Profile`], [`Refusal::Start`], [`Refusal::NoRoom`] or [`Refusal::NoGpuInstance`].
    pub fn create_compute_instance(
        &mut self,
        gpu: u32,
        gpu_instance: u32,
        slices: u8,
        start: Option<u8>,
    ) -> Result<u32, Refusal> {
        let serial = self.state.next_serial;
        let (hardware, instance) = self.gpu_instance(gpu, gpu_instance)?;
        let profile = hardware.profile(instance.profile_id).ok_or(Refusal::Profile(instance.profile_id))?;
        let whole = profile.compute_slices;
        if !placement::compute_sizes(whole).any(|size| size == slices) {
            return Err(Refusal::Profile(slices.into()));
        }
        let mut starts = placement::compute_starts(whole, slices);
        let free = |start: u8| {
            !instance
                .compute_instances
                .iter()
                .any(|used| start < used.start + used.slices && used.start < start + slices)
        };
        let start = match start {
            None => starts.find(|&start| free(start)).ok_or(Refusal::NoRoom)?,
            Some(start) if !starts.any(|possible| possible == start) => {
                return Err(Refusal::Start { profile: slices.into(), start });
            }
            Some(start) if free(start) => start,
            Some(_) => return Err(Refusal::NoRoom),
        };
        let id = lowest_unused(0, instance.compute_instances.iter().map(|instance| instance.id));
        let at = instance.compute_instances.partition_point(|instance| instance.id < id);
        instance.compute_instances.insert(at, ComputeInstance { id, serial, start, slices });
        self.state.next_serial += 1;
        Ok(id)
    }

    /// Destroys a compute instance.
    ///
    /// # Errors
    /// [`Refusal::InUse`] while a process runs on it, [`Refusal::NoComputeInstance`] or
    /// [`Refusal::NoGpuInstance`].
    pub fn destroy_compute_instance(&mut self, gpu: u32, gpu_instance: u32, id: u32) -> Result<(), Refusal> {
        if self.gpu(gpu)?.1.processes.iter().any(|process| process.runs_on(gpu_instance, id)) {
            return Err(Refusal::InUse);
        }
        let instances = &mut self.gpu_instance(gpu, gpu_instance)?.1.compute_instances;
        let at = instances.iter().position(|instance| instance.id == id);
        instances.remove(at.ok_or(Refusal::NoComputeInstance { gpu_instance, id })?);
        Ok(())
    }

    /// Checks, with the lock held, that an id still means the instance that a handle was made for.
    pub(crate) fn expect_gpu_instance(&mut self, gpu: u32, id: u32, serial: u64) -> Result<(), Refusal> {
        let same = self.gpu_instance(gpu, id)?.1.serial == serial;
        if same { Ok(()) } else { Err(Refusal::NoGpuInstance { gpu, id }) }
    }

    pub(super) fn any_gpu(&mut self, gpu: u32) -> Result<(&GpuHardware, &mut GpuState), Refusal> {
        let index = usize::try_from(gpu).map_err(|_| Refusal::NoGpu(gpu))?;
        self.hardware.gpu(gpu).zip(self.state.gpus.get_mut(index)).ok_or(Refusal::NoGpu(gpu))
    }

    pub(super) fn gpu(&mut self, gpu: u32) -> Result<(&GpuHardware, &mut GpuState), Refusal> {
        let (hardware, state) = self.any_gpu(gpu)?;
        if state.lost { Err(Refusal::Lost(gpu)) } else { Ok((hardware, state)) }
    }

    fn mig_gpu(&mut self, gpu: u32) -> Result<(&GpuHardware, &mut GpuState), Refusal> {
        let (hardware, state) = self.gpu(gpu)?;
        if state.mig_enabled { Ok((hardware, state)) } else { Err(Refusal::NoMig(gpu)) }
    }

    fn gpu_instance(&mut self, gpu: u32, id: u32) -> Result<(&GpuHardware, &mut GpuInstance), Refusal> {
        let (hardware, state) = self.mig_gpu(gpu)?;
        let instance = state.gpu_instances.iter_mut().find(|instance| instance.id == id);
        instance.map(|instance| (hardware, instance)).ok_or(Refusal::NoGpuInstance { gpu, id })
    }
}

fn lowest_unused(from: u32, used: impl Iterator<Item = u32> + Clone) -> u32 {
    (from..).find(|id| !used.clone().any(|other| other == *id)).unwrap_or(u32::MAX)
}
