//! From handles to things, and back.

use nvml_wrapper_sys::bindings::{nvmlComputeInstance_t, nvmlDevice_t, nvmlGpuInstance_t};
use stowage_shared::mig::{Geometry, Profile, ProfileName};

use super::Code;
use crate::handles::Target;
use crate::hardware::GpuHardware;
use crate::session::Call;
use crate::state::{ComputeInstance, GpuInstance, GpuState};

/// A GPU: what it is, and how it is.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Gpu<'a> {
    pub(crate) hardware: &'a GpuHardware,
    pub(crate) state: &'a GpuState,
}

/// A GPU instance on its GPU.
#[derive(Debug, Clone, Copy)]
pub(crate) struct MigInstance<'a> {
    pub(crate) gpu: Gpu<'a>,
    pub(crate) instance: &'a GpuInstance,
    pub(crate) profile: &'a Profile,
}

/// A compute instance in its GPU instance: what NVML calls a MIG device.
#[derive(Debug, Clone, Copy)]
pub(crate) struct MigDevice<'a> {
    pub(crate) within: MigInstance<'a>,
    pub(crate) compute: &'a ComputeInstance,
}

/// What a device handle may stand for.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Device<'a> {
    Gpu(Gpu<'a>),
    Mig(MigDevice<'a>),
}

impl<'a> Call<'a> {
    /// The GPU of that index, unless it is lost; where it hangs, so does the call.
    pub(crate) fn gpu_at(&self, index: u32) -> Result<Gpu<'a>, Code> {
        let found = self.hardware.gpu(index).zip(self.state.gpu(index));
        let (hardware, state) = found.ok_or(Code::INVALID_ARGUMENT)?;
        if state.hanging {
            return Err(self.hang());
        }
        if state.lost { Err(Code::GPU_IS_LOST) } else { Ok(Gpu { hardware, state }) }
    }

    /// The GPU or MIG device of a handle.
    pub(crate) fn device(&self, handle: nvmlDevice_t) -> Result<Device<'a>, Code> {
        match self.handles().target(handle) {
            Some(Target::Gpu(index)) => Ok(Device::Gpu(self.gpu_at(index)?)),
            Some(Target::MigDevice(index, serial)) => Ok(Device::Mig(self.gpu_at(index)?.compute(serial)?)),
            _ => Err(Code::INVALID_ARGUMENT),
        }
    }

    /// The GPU of a handle; a MIG device is refused with `otherwise`.
    pub(crate) fn gpu_or(&self, handle: nvmlDevice_t, otherwise: Code) -> Result<Gpu<'a>, Code> {
        match self.device(handle)? {
            Device::Gpu(gpu) => Ok(gpu),
            Device::Mig(_) => Err(otherwise),
        }
    }

    /// The GPU of a handle; a MIG device is an `INVALID_ARGUMENT`.
    pub(crate) fn gpu(&self, handle: nvmlDevice_t) -> Result<Gpu<'a>, Code> {
        self.gpu_or(handle, Code::INVALID_ARGUMENT)
    }

    /// The GPU instance of a handle.
    pub(crate) fn gpu_instance(&self, handle: nvmlGpuInstance_t) -> Result<MigInstance<'a>, Code> {
        match self.handles().target(handle) {
            Some(Target::GpuInstance(index, serial)) => self.gpu_at(index)?.instance(serial),
            _ => Err(Code::INVALID_ARGUMENT),
        }
    }

    /// The compute instance of a handle.
    pub(crate) fn compute_instance(&self, handle: nvmlComputeInstance_t) -> Result<MigDevice<'a>, Code> {
        match self.handles().target(handle) {
            Some(Target::ComputeInstance(index, serial)) => self.gpu_at(index)?.compute(serial),
            _ => Err(Code::INVALID_ARGUMENT),
        }
    }

    pub(crate) fn handle_of_gpu(&self, gpu: Gpu<'_>) -> nvmlDevice_t {
        self.handles().of(Target::Gpu(gpu.hardware.index))
    }

    pub(crate) fn handle_of_mig(&self, mig: MigDevice<'_>) -> nvmlDevice_t {
        self.handles().of(Target::MigDevice(mig.within.gpu.hardware.index, mig.compute.serial))
    }

    pub(crate) fn handle_of_instance(&self, gpu: Gpu<'_>, serial: u64) -> nvmlGpuInstance_t {
        self.handles().of(Target::GpuInstance(gpu.hardware.index, serial))
    }

    pub(crate) fn handle_of_compute(&self, gpu: Gpu<'_>, serial: u64) -> nvmlComputeInstance_t {
        self.handles().of(Target::ComputeInstance(gpu.hardware.index, serial))
    }
}

impl<'a> Gpu<'a> {
    /// The geometry of a GPU that has MIG, whatever its mode.
    pub(crate) fn geometry(self) -> Result<&'a Geometry, Code> {
        self.hardware.geometry.as_ref().ok_or(Code::NOT_SUPPORTED)
    }

    /// `NOT_SUPPORTED` unless MIG mode is on.
    pub(crate) fn mig_enabled(self) -> Result<Self, Code> {
        if self.state.mig_enabled { Ok(self) } else { Err(Code::NOT_SUPPORTED) }
    }

    /// The MIG devices in NVML's order.
    pub(crate) fn mig_devices(self) -> impl Iterator<Item = MigDevice<'a>> {
        self.state.mig_devices().filter_map(move |(instance, compute)| {
            let profile = self.hardware.profile(instance.profile_id)?;
            Some(MigDevice { within: MigInstance { gpu: self, instance, profile }, compute })
        })
    }

    /// The GPU instances in order of id.
    pub(crate) fn instances(self) -> impl Iterator<Item = MigInstance<'a>> {
        self.state.gpu_instances.iter().filter_map(move |instance| {
            let profile = self.hardware.profile(instance.profile_id)?;
            Some(MigInstance { gpu: self, instance, profile })
        })
    }

    fn instance(self, serial: u64) -> Result<MigInstance<'a>, Code> {
        self.instances().find(|found| found.instance.serial == serial).ok_or(Code::INVALID_ARGUMENT)
    }

    fn compute(self, serial: u64) -> Result<MigDevice<'a>, Code> {
        self.mig_devices().find(|mig| mig.compute.serial == serial).ok_or(Code::INVALID_ARGUMENT)
    }
}

impl<'a> Device<'a> {
    /// The GPU itself, or the one that a MIG device is a part of.
    pub(crate) fn gpu(self) -> Gpu<'a> {
        match self {
            Self::Gpu(gpu) => gpu,
            Self::Mig(mig) => mig.gpu(),
        }
    }
}

impl<'a> MigDevice<'a> {
    pub(crate) fn gpu(self) -> Gpu<'a> {
        self.within.gpu
    }

    /// `MIG-<uuid>`.
    pub(crate) fn uuid(self) -> String {
        let MigInstance { gpu, instance, profile } = self.within;
        gpu.hardware.mig_uuid(profile, instance.start, instance.id, self.compute.id)
    }

    /// The index by which its GPU lists it.
    pub(crate) fn index(self) -> u32 {
        let before =
            self.gpu().mig_devices().take_while(|mig| mig.compute.serial != self.compute.serial).count();
        u32::try_from(before).unwrap_or(u32::MAX)
    }

    /// `3g.20gb`, or `1c.3g.20gb` where it is a part of its GPU instance.
    pub(crate) fn profile_name(self) -> String {
        compute_profile_name(
            &self.within.profile.name,
            self.within.profile.compute_slices,
            self.compute.slices,
        )
    }
}

/// How NVIDIA names a compute instance of so many slices in a GPU instance of that profile.
pub(crate) fn compute_profile_name(profile: &ProfileName, whole: u8, slices: u8) -> String {
    if slices == whole { profile.to_string() } else { format!("{slices}c.{profile}") }
}
