//! NVML: what this machine's GPUs are, as values.
//!
//! The rest of the plugin asks through [`Gpus`] and gets a [`Reading`]; it never sees a handle. The real
//! implementation loads NVIDIA's library at run time through `nvml-wrapper`; the calls that the wrapper leaves out
//! are in `raw` and, where they change a GPU, in `instances`: the two modules with `unsafe`. Calls can take long or
//! hang in the driver, so they are made through a [`Session`], which bounds them in time, and never while the kubelet
//! waits for an answer.

mod calls;
mod compute_mode;
mod details;
mod events;
mod geometry;
mod instances;
mod library;
mod memory;
mod mig;
mod numa;
mod raw;
mod session;
mod topology;
mod usage;
mod vitals;

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use nvml_wrapper::error::NvmlError;
use nvml_wrapper::{Device, Nvml};
use stowage_shared::contract::GPUS_PER_NODE_MAX;
use stowage_shared::gpu::GpuUuid;
use stowage_shared::mig::{Geometry, MigSlice};
use stowage_shared::units::MemoryMib;

pub use calls::{About, CallError};
pub use details::{Fabric, GpuDetails, MigAttributes};
pub use events::{Listener, Told};
pub use instances::{Built, Instance};
pub use numa::pci_folder;
pub use session::{Look, Session, Trouble};
pub use topology::Nearness;
pub use usage::{GpuUsage, MemoryUsage, ProcessUsage, SliceUsage};
pub use vitals::{RecoveryAction, Vitals};

/// Where GPUs are read from.
pub trait Gpus: Send + Sync {
    /// Reads all GPUs of the machine. Blocks.
    ///
    /// # Errors
    /// [`NvmlFault`] where NVML as a whole does not work. A single GPU that cannot be read is no error: it is
    /// named in [`Reading::unreadable`].
    fn read(&self) -> Result<Reading, NvmlFault>;
}

/// What NVML says of a machine.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Reading {
    /// The driver's version, e.g. `570.86.15`.
    pub driver_version: String,
    /// The GPUs that could be read, by index.
    pub gpus: Vec<GpuReading>,
    /// Those that could not: index and reason, such as a GPU that has fallen off the bus.
    pub unreadable: Vec<(u32, String)>,
    /// How near the GPUs are to each other, as far as that was asked.
    pub nearness: Nearness,
}

/// One GPU.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GpuReading {
    /// NVML's UUID.
    pub uuid: GpuUuid,
    /// NVML's index.
    pub index: u32,
    /// The number in `/dev/nvidia<minor>`.
    pub minor: u32,
    /// The product name.
    pub model: String,
    /// Total memory; 0 where the GPU does not tell, as those that share the machine's.
    pub memory: MemoryMib,
    /// Where it is on the PCI bus, as NVML writes it: `00000000:3B:00.0`.
    pub bus_id: String,
    /// The NUMA node that it hangs on, where the platform says.
    pub numa_node: Option<u32>,
    /// MIG, where the GPU has it.
    pub mig: Option<MigReading>,
}

/// What a GPU that has MIG says of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MigReading {
    /// Whether MIG mode is on.
    pub enabled: bool,
    /// How it can be cut.
    pub geometry: Geometry,
    /// The MIG devices that exist.
    pub devices: Vec<MigDeviceReading>,
    /// The GPU instances that exist, with and without MIG devices, where they were asked for.
    pub instances: Vec<Instance>,
    /// Whether MIG mode can be switched while the GPU is idle, without a reset: from Hopper on.
    pub switchable: bool,
}

/// One MIG device: a compute instance in a GPU instance.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MigDeviceReading {
    /// NVML's UUID, `MIG-…`.
    pub uuid: String,
    /// Its index on its GPU.
    pub index: u32,
    /// The GPU instance: profile and place.
    pub slice: MigSlice,
    /// Whether its compute instance takes all of the GPU instance. Only then is it offered, as NVIDIA does.
    pub fills_gpu_instance: bool,
    /// NVML's id of the GPU instance.
    pub gpu_instance_id: u32,
    /// NVML's id of the compute instance.
    pub compute_instance_id: u32,
}

/// Why NVML does not work.
#[derive(Debug, thiserror::Error)]
pub enum NvmlFault {
    /// The library is not there, or is none.
    #[error(
        "cannot load {}: is the NVIDIA driver installed, and --driver-root-ctr-path (DRIVER_ROOT_CTR_PATH) where this program sees it? Looked below {}, then where the system's loader looks",
        .library.display(), .root.display()
    )]
    Library {
        /// What was loaded at last.
        library: PathBuf,
        /// Below which folder it was looked for.
        root: PathBuf,
        /// Why it failed.
        source: NvmlError,
    },
    /// The library is there, and the driver is not.
    #[error("{} was loaded, but NVML does not start: is the NVIDIA driver's kernel module loaded, and /dev/nvidiactl visible here?", .library.display())]
    Init {
        /// The library.
        library: PathBuf,
        /// Why it failed.
        source: NvmlError,
    },
    /// A call that tells nothing of a single GPU failed.
    #[error("NVML cannot tell {what}")]
    Call {
        /// What was asked.
        what: &'static str,
        /// Why it failed.
        source: NvmlError,
    },
    /// More GPUs than any machine has.
    #[error("NVML counts {0} GPUs: at most {GPUS_PER_NODE_MAX} are served")]
    TooMany(u32),
    /// NVML counts GPUs, and cannot read any of them.
    #[error(
        "NVML cannot read any GPU ({0}): are /dev/nvidia* visible here, and does nvidia-smi work on the node?"
    )]
    NoGpuAnswers(String),
    /// A call was not made, or has not returned.
    #[error(transparent)]
    Blocked(#[from] CallError),
}

impl NvmlFault {
    /// Whether a right is missing, so that a restart by itself helps nothing.
    pub fn is_permission(&self) -> bool {
        match self {
            Self::Library { source, .. } | Self::Init { source, .. } | Self::Call { source, .. } => {
                matches!(source, NvmlError::NoPermission)
            }
            Self::TooMany(_) | Self::NoGpuAnswers(_) | Self::Blocked(_) => false,
        }
    }

    fn mig_permission() -> Self {
        Self::Call {
            what: "the MIG devices: run as root, with CAP_SYS_ADMIN",
            source: NvmlError::NoPermission,
        }
    }
}

/// The machine's own GPUs. NVML is shut down when it is dropped.
pub struct NvmlGpus {
    nvml: Nvml,
    sysfs: PathBuf,
    /// What was read before and cannot change: a look costs a few calls a GPU, and can be had every few seconds.
    /// No lock is held over a call into the driver, which may hang.
    geometries: Mutex<geometry::Cache>,
    fixed: Mutex<HashMap<GpuUuid, Fixed>>,
}

/// What of a GPU never changes.
#[derive(Debug, Clone)]
struct Fixed {
    minor: u32,
    model: String,
    memory: MemoryMib,
    bus_id: String,
    numa_node: Option<u32>,
}

/// What NVML says of the machine as a whole.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Census {
    driver_version: String,
    count: u32,
}

impl NvmlGpus {
    /// Loads NVIDIA's library, which is looked for below `driver_root` first, and starts NVML. Blocks.
    ///
    /// # Errors
    /// [`NvmlFault::Library`] and [`NvmlFault::Init`].
    pub fn open(driver_root: &Path, sysfs: &Path) -> Result<Self, NvmlFault> {
        let library = library::find(driver_root);
        let nvml = Nvml::builder().lib_path(library.as_os_str()).init().map_err(|source| match source {
            NvmlError::LibloadingError(_) | NvmlError::FailedToLoadSymbol(_) => {
                NvmlFault::Library { library: library.clone(), root: driver_root.to_owned(), source }
            }
            source => NvmlFault::Init { library: library.clone(), source },
        })?;
        let sysfs = sysfs.to_owned();
        Ok(Self { nvml, sysfs, geometries: Mutex::default(), fixed: Mutex::default() })
    }

    fn census(&self) -> Result<Census, NvmlFault> {
        let call = |what| move |source| NvmlFault::Call { what, source };
        let count = self.nvml.device_count().map_err(call("how many GPUs there are"))?;
        if count as usize > GPUS_PER_NODE_MAX {
            return Err(NvmlFault::TooMany(count));
        }
        // Only for people to read: a driver that does not tell its version still has GPUs.
        Ok(Census { driver_version: self.nvml.sys_driver_version().unwrap_or_default(), count })
    }

    /// What a GPU is, and how it is.
    fn look(&self, index: u32, with_instances: bool) -> Result<(GpuReading, Vitals), NvmlError> {
        let device = self.nvml.device_by_index(index)?;
        let uuid: GpuUuid = device.uuid()?.parse().map_err(|_| NvmlError::Unknown)?;
        let Fixed { minor, model, memory, bus_id, numa_node } = self.fixed(&device, &uuid)?;
        let mut mig = mig::read(&self.nvml, &device, &model, memory, &self.geometries)?;
        if let Some(mig) = mig.as_mut().filter(|mig| with_instances && mig.enabled) {
            mig.instances = self.instances_of(&device, &mig.geometry)?;
        }
        let vitals = vitals::read(&self.nvml, &device);
        Ok((GpuReading { uuid, index, minor, model, memory, bus_id, numa_node, mig }, vitals))
    }

    fn fixed(&self, device: &Device<'_>, uuid: &GpuUuid) -> Result<Fixed, NvmlError> {
        let known = || self.fixed.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(fixed) = known().get(uuid) {
            return Ok(fixed.clone());
        }
        let bus_id = device.pci_info()?.bus_id;
        let fixed = Fixed {
            minor: device.minor_number()?,
            model: device.name()?,
            memory: memory::of(&self.nvml, device)?.map_or(MemoryMib(0), |memory| memory.total),
            numa_node: numa::node_of(&self.sysfs, &bus_id),
            bus_id,
        };
        known().insert(uuid.clone(), fixed.clone());
        Ok(fixed)
    }
}

impl Gpus for NvmlGpus {
    fn read(&self) -> Result<Reading, NvmlFault> {
        let Census { driver_version, count } = self.census()?;
        let mut reading = Reading { driver_version, ..Reading::default() };
        for index in 0..count {
            match self.look(index, false) {
                Ok((gpu, _)) => reading.gpus.push(gpu),
                Err(NvmlError::NoPermission) => return Err(NvmlFault::mig_permission()),
                Err(error) => reading.unreadable.push((index, error.to_string())),
            }
        }
        Ok(reading)
    }
}
