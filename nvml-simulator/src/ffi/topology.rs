//! How GPUs are connected.
//!
//! One PCIe host bridge per NUMA node, no NVLink, no NVLink fabric. NVLink topologies come later; until
//! then each of its calls says `NOT_SUPPORTED`, as on GPUs without it.

use std::ffi::{c_uint, c_void};

use nvml_wrapper_sys::bindings as nvml;
use nvml_wrapper_sys::bindings::{nvmlDevice_t, nvmlPciInfo_t};

use super::pointer::{Out, struct_version};
use super::{Code, export};

export! {
    /// What two GPUs have in common: a host bridge if they share a NUMA node, else the system.
    fn nvmlDeviceGetTopologyCommonAncestor(
        device1: nvmlDevice_t,
        device2: nvmlDevice_t,
        level: Out<nvml::nvmlGpuTopologyLevel_t>,
    ) |call| {
        let (one, other) = (call.gpu(device1)?.hardware, call.gpu(device2)?.hardware);
        level.put(if one.index == other.index {
            nvml::nvmlGpuLevel_enum_NVML_TOPOLOGY_INTERNAL
        } else if one.numa_node == other.numa_node {
            nvml::nvmlGpuLevel_enum_NVML_TOPOLOGY_HOSTBRIDGE
        } else {
            nvml::nvmlGpuLevel_enum_NVML_TOPOLOGY_SYSTEM
        })
    }

    /// Whether two GPUs can reach each other's memory: alike, on one host bridge, and neither in MIG mode.
    fn nvmlDeviceGetP2PStatus(
        device1: nvmlDevice_t,
        device2: nvmlDevice_t,
        capability: nvml::nvmlGpuP2PCapsIndex_t,
        status: Out<nvml::nvmlGpuP2PStatus_t>,
    ) |call| {
        let (one, other) = (call.gpu(device1)?, call.gpu(device2)?);
        if capability >= nvml::nvmlGpuP2PCapsIndex_enum_NVML_P2P_CAPS_INDEX_UNKNOWN {
            return Err(Code::INVALID_ARGUMENT);
        }
        let nvlink = capability == nvml::nvmlGpuP2PCapsIndex_enum_NVML_P2P_CAPS_INDEX_NVLINK;
        let alike = one.hardware.model.key == other.hardware.model.key;
        status.put(if nvlink || one.state.mig_enabled || other.state.mig_enabled {
            nvml::nvmlGpuP2PStatus_enum_NVML_P2P_STATUS_NOT_SUPPORTED
        } else if !alike {
            nvml::nvmlGpuP2PStatus_enum_NVML_P2P_STATUS_GPU_NOT_SUPPORTED
        } else if one.hardware.numa_node != other.hardware.numa_node {
            nvml::nvmlGpuP2PStatus_enum_NVML_P2P_STATUS_CHIPSET_NOT_SUPPORTED
        } else {
            nvml::nvmlGpuP2PStatus_enum_NVML_P2P_STATUS_OK
        })
    }

    /// The state of an NVLink: there is none.
    fn nvmlDeviceGetNvLinkState(
        device: nvmlDevice_t,
        link: c_uint,
        _is_active: Out<nvml::nvmlEnableState_t>,
    ) |call| {
        call.gpu(device)?;
        Err(no_link(link))
    }

    /// The other end of an NVLink: there is none.
    fn nvmlDeviceGetNvLinkRemotePciInfo_v2, nvmlDeviceGetNvLinkRemotePciInfo(
        device: nvmlDevice_t,
        link: c_uint,
        _pci: Out<nvmlPciInfo_t>,
    ) |call| {
        call.gpu(device)?;
        Err(no_link(link))
    }

    /// The NVLink fabric: none.
    fn nvmlDeviceGetGpuFabricInfo(device: nvmlDevice_t, _info: Out<nvml::nvmlGpuFabricInfo_t>) |call| {
        call.gpu(device)?;
        Err(Code::NOT_SUPPORTED)
    }

    /// The NVLink fabric, in struct version 2 or 3: none.
    fn nvmlDeviceGetGpuFabricInfoV(device: nvmlDevice_t, info: Out<c_uint>) |call| {
        const V2: u32 = struct_version::<nvml::nvmlGpuFabricInfo_v2_t>(2);
        const V3: u32 = struct_version::<nvml::nvmlGpuFabricInfo_v3_t>(3);
        call.gpu(device)?;
        Err(if matches!(info.get()?, V2 | V3) { Code::NOT_SUPPORTED } else { Code::ARGUMENT_VERSION_MISMATCH })
    }

    /// How the GPU reaches system memory: not told, as on platforms without shared page tables.
    fn nvmlDeviceGetAddressingMode(device: nvmlDevice_t, _mode: Out<c_void>) |call| {
        call.gpu(device)?;
        Err(Code::NOT_SUPPORTED)
    }
}

fn no_link(link: c_uint) -> Code {
    if link < nvml::NVML_NVLINK_MAX_LINKS { Code::NOT_SUPPORTED } else { Code::INVALID_ARGUMENT }
}
