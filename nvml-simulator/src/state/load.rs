//! What runs: processes and their memory, utilization, and what the sensors read.

use serde::{Deserialize, Serialize};
use stowage_shared::units::MemoryMib;

use super::{GpuState, Node, Refusal};
use crate::hardware::GpuHardware;

/// The most processes of one GPU.
pub const PROCESSES_MAX: usize = 64;

/// The hottest that a sensor may read: 150 degrees Celsius.
const TEMPERATURE_MAX: u32 = 150;
/// The most power: 10 kW.
const POWER_MAX_MILLIWATTS: u32 = 10_000_000;
/// The fastest clock: 10 GHz.
const CLOCK_MAX_MHZ: u32 = 10_000;

/// A process that computes on a GPU, or on one of its compute instances.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Process {
    /// Its id, in the namespace of whoever asks: the simulator does not look whether it exists.
    pub pid: u32,
    /// The memory it has taken, in MiB.
    pub memory_mib: u64,
    /// Its GPU and compute instance; `None` where MIG mode is off.
    pub instance: Option<(u32, u32)>,
}

/// How busy a GPU is, in per cent of the last sample period.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Utilization {
    /// Time in which a kernel ran.
    pub gpu_percent: u8,
    /// Time in which memory was read or written.
    pub memory_percent: u8,
}

/// What a GPU's sensors read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Sensors {
    /// In degrees Celsius.
    pub temperature_celsius: u32,
    /// In milliwatts.
    pub power_milliwatts: u32,
    /// Clock of the multiprocessors, in MHz.
    pub sm_clock_mhz: u32,
    /// Clock of the memory, in MHz.
    pub memory_clock_mhz: u32,
}

impl Process {
    pub(super) fn runs_on(&self, gpu_instance: u32, compute_instance: u32) -> bool {
        self.instance == Some((gpu_instance, compute_instance))
    }
}

impl Sensors {
    /// What they might read at that utilization: an A100 between idle and full.
    pub fn at(utilization: Utilization) -> Self {
        let percent = u32::from(utilization.gpu_percent);
        Self {
            temperature_celsius: 32 + percent * 36 / 100,
            power_milliwatts: 55_000 + percent * 3_450,
            sm_clock_mhz: if percent == 0 { 210 } else { 1_410 },
            memory_clock_mhz: 1_215,
        }
    }
}

impl GpuState {
    /// Memory that processes have taken: on the GPU, or in one GPU instance.
    pub fn used_memory(&self, gpu_instance: Option<u32>) -> MemoryMib {
        let here = |process: &&Process| {
            gpu_instance.is_none_or(|id| process.instance.is_some_and(|(own, _)| own == id))
        };
        let taken = self.processes.iter().filter(here).map(|process| process.memory_mib);
        MemoryMib(taken.fold(0, u64::saturating_add))
    }

    /// What its sensors read: what was set, or what fits its utilization.
    pub fn sensors_now(&self) -> Sensors {
        self.sensors.unwrap_or_else(|| Sensors::at(self.utilization))
    }

    /// The memory of that GPU instance, or of the GPU.
    fn memory(&self, hardware: &GpuHardware, gpu_instance: Option<u32>) -> MemoryMib {
        let profile = |id| hardware.profile(self.gpu_instance(id)?.profile_id);
        gpu_instance.map_or(hardware.memory, |id| profile(id).map_or(MemoryMib(0), |profile| profile.memory))
    }
}

impl Node<'_> {
    /// Starts a process; one of the same id in the same place has changed its memory.
    ///
    /// # Errors
    /// [`Refusal::ProcessPlace`], [`Refusal::NoGpuInstance`], [`Refusal::NoComputeInstance`],
    /// [`Refusal::Memory`], [`Refusal::NoGpu`] or [`Refusal::Lost`].
    pub fn start_process(&mut self, gpu: u32, process: Process) -> Result<(), Refusal> {
        let (hardware, state) = self.gpu(gpu)?;
        if process.instance.is_some() != state.mig_enabled {
            return Err(Refusal::ProcessPlace(gpu));
        }
        if let Some((gpu_instance, id)) = process.instance {
            let instance = state.gpu_instance(gpu_instance);
            let instance = instance.ok_or(Refusal::NoGpuInstance { gpu, id: gpu_instance })?;
            instance.compute_instance(id).ok_or(Refusal::NoComputeInstance { gpu_instance, id })?;
        }
        state.processes.retain(|other| (other.pid, other.instance) != (process.pid, process.instance));
        let within = process.instance.map(|(gpu_instance, _)| gpu_instance);
        let free_mib = state.memory(hardware, within).0.saturating_sub(state.used_memory(within).0);
        if process.memory_mib > free_mib || state.processes.len() >= PROCESSES_MAX {
            return Err(Refusal::Memory { free_mib });
        }
        state.processes.push(process);
        Ok(())
    }

    /// Ends a process, wherever on the GPU it runs. On a lost GPU too: its processes can be killed.
    ///
    /// # Errors
    /// [`Refusal::NoProcess`] or [`Refusal::NoGpu`].
    pub fn end_process(&mut self, gpu: u32, pid: u32) -> Result<(), Refusal> {
        let processes = &mut self.any_gpu(gpu)?.1.processes;
        let before = processes.len();
        processes.retain(|process| process.pid != pid);
        if processes.len() < before { Ok(()) } else { Err(Refusal::NoProcess { gpu, pid }) }
    }

    /// Sets how busy a GPU is.
    ///
    /// # Errors
    /// [`Refusal::Range`] above 100, [`Refusal::NoGpu`].
    pub fn set_utilization(&mut self, gpu: u32, utilization: Utilization) -> Result<(), Refusal> {
        for percent in [utilization.gpu_percent, utilization.memory_percent] {
            in_range("utilization in per cent", percent.into(), 100)?;
        }
        self.any_gpu(gpu)?.1.utilization = utilization;
        Ok(())
    }

    /// Sets what a GPU's sensors read; `None` for what fits its utilization.
    ///
    /// # Errors
    /// [`Refusal::Range`], [`Refusal::NoGpu`].
    pub fn set_sensors(&mut self, gpu: u32, sensors: Option<Sensors>) -> Result<(), Refusal> {
        if let Some(sensors) = sensors {
            in_range("the temperature", sensors.temperature_celsius, TEMPERATURE_MAX)?;
            in_range("the power", sensors.power_milliwatts, POWER_MAX_MILLIWATTS)?;
            in_range("the clock", sensors.sm_clock_mhz.max(sensors.memory_clock_mhz), CLOCK_MAX_MHZ)?;
        }
        self.any_gpu(gpu)?.1.sensors = sensors;
        Ok(())
    }
}

fn in_range(what: &'static str, value: u32, most: u32) -> Result<(), Refusal> {
    if value <= most { Ok(()) } else { Err(Refusal::Range { what, value: value.into(), most: most.into() }) }
}
