//! Memory and NUMA.
//!
//! What processes have taken is used; the driver itself takes and reserves nothing.

use std::ffi::{c_uint, c_ulong};

use nvml_wrapper_sys::bindings as nvml;
use nvml_wrapper_sys::bindings::{nvmlDevice_t, nvmlMemory_t, nvmlMemory_v2_st};

use super::pointer::{Out, struct_version};
use super::{Code, Device, export};

/// `NVML_AFFINITY_SCOPE_SOCKET`, the wider of the two scopes.
const AFFINITY_SCOPE_MAX: c_uint = 1;

export! {
    /// Total, free and used memory, in bytes; a MIG device's is its GPU instance's.
    fn nvmlDeviceGetMemoryInfo(device: nvmlDevice_t, memory: Out<nvmlMemory_t>) |call| {
        let (total, used) = bytes(call.device(device)?)?;
        memory.put(nvmlMemory_t { total, free: total.saturating_sub(used), used })
    }

    /// The same with reserved memory, of which there is none; wants struct version 2.
    fn nvmlDeviceGetMemoryInfo_v2(device: nvmlDevice_t, memory: Out<nvmlMemory_v2_st>) |call| {
        let version = memory.cast::<c_uint>().get()?;
        if version != struct_version::<nvmlMemory_v2_st>(2) {
            return Err(Code::ARGUMENT_VERSION_MISMATCH);
        }
        let (total, used) = bytes(call.device(device)?)?;
        memory.put(nvmlMemory_v2_st { version, total, reserved: 0, free: total.saturating_sub(used), used })
    }

    /// The NUMA node. The real call answers only where GPUs are NUMA nodes themselves; this one wherever the
    /// description names a node, since there is no sysfs to look it up in.
    fn nvmlDeviceGetNumaNodeId(device: nvmlDevice_t, node: Out<c_uint>) |call| {
        let numa_node = call.device(device)?.gpu().hardware.numa_node;
        node.put(numa_node.ok_or(Code::NOT_SUPPORTED)?)
    }

    /// The NUMA nodes that are near, as bits; the same one for both scopes.
    fn nvmlDeviceGetMemoryAffinity(
        device: nvmlDevice_t,
        node_set_size: c_uint,
        node_set: Out<c_ulong>,
        scope: nvml::nvmlAffinityScope_t,
    ) |call| {
        let numa_node = call.device(device)?.gpu().hardware.numa_node;
        if node_set_size == 0 || scope > AFFINITY_SCOPE_MAX {
            return Err(Code::INVALID_ARGUMENT);
        }
        let numa_node = numa_node.ok_or(Code::NOT_SUPPORTED)?;
        let word = |index: c_uint| {
            if index == numa_node / c_ulong::BITS { 1 << (numa_node % c_ulong::BITS) } else { 0 }
        };
        let words = node_set_size.min(crate::description::NUMA_NODE_MAX / c_ulong::BITS + 1);
        node_set.put_all(&(0..words).map(word).collect::<Vec<c_ulong>>())
    }
}

/// Total and used. A GPU that has none of its own does not tell.
fn bytes(device: Device<'_>) -> Result<(u64, u64), Code> {
    let (total, used) = match device {
        Device::Gpu(gpu) if gpu.hardware.memory.0 == 0 => return Err(Code::NOT_SUPPORTED),
        Device::Gpu(gpu) => (gpu.hardware.memory, gpu.state.used_memory(None)),
        Device::Mig(mig) => {
            let within = mig.within;
            (within.profile.memory, within.gpu.state.used_memory(Some(within.instance.id)))
        }
    };
    Ok((total.to_bytes(), used.to_bytes()))
}
