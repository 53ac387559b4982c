//! Says what changed: in the log, the metrics and as an event on the Node, in one place.

use stowage_shared::gpu::GpuUuid;

use super::known::{Gone, Known};
use crate::cluster::{NodeEvents, Reason};
use crate::health::{Cause, Change, Class, Scope, look_up};
use crate::inventory::Inventory;
use crate::plugin::Plugin;

/// An XID was raised, and is counted. What it does to the GPU is told apart from it.
pub(super) fn xid(
    known: &Known,
    gpu: Option<&GpuUuid>,
    xid: u64,
    instances: Option<(u32, Option<u32>)>,
    class: Class,
) {
    let index = gpu.and_then(|gpu| known.index(gpu));
    let (class, what) = (class.word(), look_up(xid).1);
    tracing::info!(
        gpu.uuid = gpu.map_or("unknown", GpuUuid::as_str),
        gpu.index = index,
        xid,
        class,
        what,
        gpu_instance = instances.map(|(gpu, _)| gpu),
        compute_instance = instances.and_then(|(_, compute)| compute),
        "The driver raised an XID."
    );
}

/// A GPU, or an instance of it, became unhealthy or healthy.
pub(super) fn change(plugin: &Plugin, events: &NodeEvents, known: &Known, gpu: &GpuUuid, change: &Change) {
    let index = known.index(gpu);
    let instance = match change.scope {
        Scope::Gpu => String::new(),
        Scope::GpuInstance(id) => format!(", GPU instance {id}"),
        Scope::ComputeInstance(id, compute) => format!(", GPU instance {id}, compute instance {compute}"),
    };
    let name = match index {
        Some(index) => format!("GPU {index} ({gpu}){instance}"),
        None => format!("{gpu}{instance}"),
    };
    let (uuid, instance) = (gpu.as_str(), instance.trim_start_matches(", "));
    match &change.ill {
        Some((cause, why)) => {
            plugin.metrics.health.fell_ill(index, change.scope, *cause);
            tracing::error!(
                gpu.uuid = uuid,
                gpu.index = index,
                instance,
                error = why,
                "The GPU is unhealthy."
            );
            events.tell(Reason::GpuUnhealthy, format!("{name} is unhealthy: {why}"));
        }
        None => {
            tracing::info!(gpu.uuid = uuid, gpu.index = index, instance, "The GPU is healthy again.");
            events.tell(Reason::GpuHealthy, format!("{name} is healthy again"));
        }
    }
}

/// A part that a pod holds is not there any more.
pub(super) fn gone(plugin: &Plugin, events: &NodeEvents, gone: &Gone<'_>) {
    let Gone { part, index, scope, why } = *gone;
    plugin.metrics.health.fell_ill(Some(index), scope, Cause::Gone);
    tracing::error!(gpu.index = index, device = part, error = why, "A device is unhealthy.");
    events.tell(Reason::GpuUnhealthy, format!("{part} of GPU {index} is unhealthy: {why}"));
}

/// How devices are told to containers could not be written down, or could be again.
pub(super) fn untold(events: &NodeEvents, why: Option<&str>) {
    match why {
        Some(why) => {
            tracing::error!(
                error = why,
                "New devices cannot be told to containers in full: it is tried again."
            );
            events.tell(
                Reason::DevicesNotTold,
                format!("New devices cannot be told to containers in full: {why}"),
            );
        }
        None => {
            tracing::info!("Devices are told to containers in full again.");
            events.tell(Reason::DevicesTold, "Devices are told to containers in full again".to_owned());
        }
    }
}

/// NVML stopped working, or works again.
pub(super) fn nvml(events: &NodeEvents, fault: Option<&str>) {
    match fault {
        Some(why) => {
            tracing::error!(error = why, "NVML does not work: nothing new is handed out until it does.");
            events.tell(Reason::NvmlFailed, format!("NVML does not work: {why}"));
        }
        None => {
            tracing::info!("NVML works again.");
            events.tell(Reason::NvmlWorks, "NVML works again".to_owned());
        }
    }
}

/// What is offered changes: how many devices of each resource there are, where that differs.
pub(super) fn offered(plugin: &Plugin, inventory: &Inventory) {
    let (before, after) = (plugin.book.borrow().inventory().devices(), inventory.devices());
    for resource in before.keys().chain(after.keys().filter(|resource| !before.contains_key(resource))) {
        let (was, devices) =
            (before.get(resource).map_or(0, Vec::len), after.get(resource).map_or(0, Vec::len));
        if was != devices {
            tracing::info!(resource_name = %resource, was, devices, "What is offered changed.");
        }
    }
}
