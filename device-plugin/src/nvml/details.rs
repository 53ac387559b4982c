//! What node labels tell of a GPU and handing it out does not need.

use nvml_wrapper::error::NvmlError;
use nvml_wrapper::{Device, cuda_driver_version_major, cuda_driver_version_minor};

use super::raw::{self, FabricState};
use super::{GpuReading, NvmlFault, NvmlGpus};

/// More of one GPU.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GpuDetails {
    /// CUDA's compute capability: major and minor.
    pub compute_capability: (i32, i32),
    /// Where it is on the PCI bus, as NVML writes it: `00000000:3B:00.0`.
    pub bus_id: String,
    /// The NVLink fabric that it is a complete member of.
    pub fabric: Option<Fabric>,
    /// Its MIG devices, in the order of the reading.
    pub mig_devices: Vec<MigAttributes>,
}

/// A GPU's place in a multi-node NVLink fabric.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Fabric {
    /// The cluster's UUID, sixteen bytes.
    pub cluster: [u8; 16],
    /// The clique within it.
    pub clique: u32,
}

/// What a MIG device has of its GPU.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MigAttributes {
    /// Memory in MiB.
    pub memory_mib: u64,
    /// Streaming multiprocessors.
    pub multiprocessors: u32,
    /// Compute slices of its GPU instance.
    pub gpu_instance_slices: u32,
    /// Compute slices of its own.
    pub compute_instance_slices: u32,
    /// Copy engines.
    pub copy_engines: u32,
    /// Decoders.
    pub decoders: u32,
    /// Encoders.
    pub encoders: u32,
    /// JPEG engines.
    pub jpeg_engines: u32,
    /// Optical flow accelerators.
    pub ofa_engines: u32,
}

impl NvmlGpus {
    /// The newest CUDA version that the driver serves: major and minor. Blocks.
    ///
    /// # Errors
    /// [`NvmlFault::Call`].
    pub fn cuda_version(&self) -> Result<(i32, i32), NvmlFault> {
        let version = self.nvml.sys_cuda_driver_version();
        let version =
            version.map_err(|source| NvmlFault::Call { what: "the driver's CUDA version", source })?;
        Ok((cuda_driver_version_major(version), cuda_driver_version_minor(version)))
    }

    /// More of one GPU. Blocks.
    ///
    /// # Errors
    /// NVML's, such as that the GPU has been lost since it was read.
    pub fn details(&self, gpu: &GpuReading) -> Result<GpuDetails, NvmlError> {
        let device = self.nvml.device_by_index(gpu.index)?;
        let capability = device.cuda_compute_capability()?;
        let mig_devices = gpu.mig.iter().flat_map(|mig| &mig.devices);
        Ok(GpuDetails {
            compute_capability: (capability.major, capability.minor),
            bus_id: device.pci_info()?.bus_id,
            fabric: self.fabric(&device)?,
            mig_devices: mig_devices
                .map(|mig_device| attributes(&device.mig_device_by_index(mig_device.index)?))
                .collect::<Result<_, _>>()?,
        })
    }

    fn fabric(&self, device: &Device<'_>) -> Result<Option<Fabric>, NvmlError> {
        match raw::fabric(self.nvml.lib(), device) {
            Ok(FabricState { cluster, clique, complete }) => {
                Ok((complete && cluster != [0; 16]).then_some(Fabric { cluster, clique }))
            }
            Err(NvmlError::NotSupported | NvmlError::FailedToLoadSymbol(_)) => Ok(None),
            Err(error) => Err(error),
        }
    }
}

fn attributes(device: &Device<'_>) -> Result<MigAttributes, NvmlError> {
    let attributes = device.attributes()?;
    Ok(MigAttributes {
        memory_mib: attributes.memory_size_mb,
        multiprocessors: attributes.multiprocessor_count,
        gpu_instance_slices: attributes.gpu_instance_slice_count,
        compute_instance_slices: attributes.compute_instance_slice_count,
        copy_engines: attributes.shared_copy_engine_count,
        decoders: attributes.shared_decoder_count,
        encoders: attributes.shared_encoder_count,
        jpeg_engines: attributes.shared_jpeg_count,
        ofa_engines: attributes.shared_ofa_count,
    })
}
