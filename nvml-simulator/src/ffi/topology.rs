//! How GPUs are connected.
//!
//! One PCIe host bridge per NUMA node, with switches below it where the description names them. NVLinks are
//! in [`super::nvlink`]; without a fabric of several nodes, its calls say `NOT_SUPPORTED`.

use std::ffi::{c_uint, c_void};

use nvml_wrapper_sys::bindings as nvml;
use nvml_wrapper_sys::bindings::nvmlDevice_t;

use super::pointer::{Out, struct_version};
use super::{Code, export};
use crate::hardware::Fabric;
use crate::session::Call;

/// The GPU has joined the fabric.
const COMPLETED: nvml::nvmlGpuFabricState_t =
    nvml::NVML_GPU_FABRIC_STATE_COMPLETED as nvml::nvmlGpuFabricState_t;

export! {
    /// What two GPUs have in common: a PCIe switch, a host bridge if they share a NUMA node, else the system.
    fn nvmlDeviceGetTopologyCommonAncestor(
        device1: nvmlDevice_t,
        device2: nvmlDevice_t,
        level: Out<nvml::nvmlGpuTopologyLevel_t>,
    ) |call| {
        let (one, other) = (call.gpu(device1)?.hardware, call.gpu(device2)?.hardware);
        level.put(if one.index == other.index {
            nvml::nvmlGpuLevel_enum_NVML_TOPOLOGY_INTERNAL
        } else if one.pcie_switch.is_some() && one.pcie_switch == other.pcie_switch {
            nvml::nvmlGpuLevel_enum_NVML_TOPOLOGY_SINGLE
        } else if one.numa_node == other.numa_node {
            nvml::nvmlGpuLevel_enum_NVML_TOPOLOGY_HOSTBRIDGE
        } else {
            nvml::nvmlGpuLevel_enum_NVML_TOPOLOGY_SYSTEM
        })
    }

    /// Whether two GPUs can reach each other's memory: alike, joined by NVLinks or on one host bridge, and
    /// neither in MIG mode.
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
        let by_nvlink = capability == nvml::nvmlGpuP2PCapsIndex_enum_NVML_P2P_CAPS_INDEX_NVLINK;
        let linked = one.hardware.is_linked(other.hardware);
        let alike = one.hardware.model.key == other.hardware.model.key;
        let near = linked || one.hardware.numa_node == other.hardware.numa_node;
        status.put(if by_nvlink && !linked || one.state.mig_enabled || other.state.mig_enabled {
            nvml::nvmlGpuP2PStatus_enum_NVML_P2P_STATUS_NOT_SUPPORTED
        } else if !alike {
            nvml::nvmlGpuP2PStatus_enum_NVML_P2P_STATUS_GPU_NOT_SUPPORTED
        } else if near {
            nvml::nvmlGpuP2PStatus_enum_NVML_P2P_STATUS_OK
        } else {
            nvml::nvmlGpuP2PStatus_enum_NVML_P2P_STATUS_CHIPSET_NOT_SUPPORTED
        })
    }

    /// The NVLink fabric that the GPU belongs to.
    fn nvmlDeviceGetGpuFabricInfo(device: nvmlDevice_t, info: Out<nvml::nvmlGpuFabricInfo_t>) |call| {
        let fabric = fabric(call, device)?;
        info.put(nvml::nvmlGpuFabricInfo_t {
            clusterUuid: fabric.cluster_uuid,
            status: Code::SUCCESS.0,
            cliqueId: fabric.clique_id,
            state: COMPLETED,
        })
    }

    /// The same in struct version 2 or 3, with its health: nothing is wrong.
    fn nvmlDeviceGetGpuFabricInfoV(device: nvmlDevice_t, info: Out<c_uint>) |call| {
        const V2: u32 = struct_version::<nvml::nvmlGpuFabricInfo_v2_t>(2);
        const V3: u32 = struct_version::<nvml::nvmlGpuFabricInfo_v3_t>(3);
        call.gpu(device)?;
        let version = info.get()?;
        if !matches!(version, V2 | V3) {
            return Err(Code::ARGUMENT_VERSION_MISMATCH);
        }
        let Fabric { cluster_uuid: clusterUuid, clique_id: cliqueId } = fabric(call, device)?;
        let (status, state, healthMask) = (Code::SUCCESS.0, COMPLETED, 0);
        if version == V2 {
            let v2 = nvml::nvmlGpuFabricInfo_v2_t { version, clusterUuid, status, cliqueId, state, healthMask };
            return info.cast().put(v2);
        }
        info.cast().put(nvml::nvmlGpuFabricInfo_v3_t {
            version,
            clusterUuid,
            status,
            cliqueId,
            state,
            healthMask,
            healthSummary: 0,
        })
    }

    /// How the GPU reaches system memory: not told, as on platforms without shared page tables.
    fn nvmlDeviceGetAddressingMode(device: nvmlDevice_t, _mode: Out<c_void>) |call| {
        call.gpu(device)?;
        Err(Code::NOT_SUPPORTED)
    }
}

fn fabric(call: &Call<'_>, device: nvmlDevice_t) -> Result<Fabric, Code> {
    call.gpu(device)?;
    call.hardware.fabric.ok_or(Code::NOT_SUPPORTED)
}
