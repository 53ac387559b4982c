//! What the GpuNode says, from what the book knows. Pure.

use std::collections::BTreeSet;

use stowage_shared::device_id::DeviceId;
use stowage_shared::gpu::locate;
use stowage_shared::gpu_node::{AllocationStatus, GpuNodeStatus, GpuStatus, Summary};

use crate::book::Book;

/// The status, but for the time: so that two of them can be compared.
pub(super) fn of(book: &Book, node_uid: &str) -> GpuNodeStatus {
    let gpus = book.inventory().gpus();
    let allocations = book.allocations();
    let in_use: BTreeSet<usize> = allocations.iter().flat_map(|held| gpus_of(book, held)).collect();
    let count = |n: usize| u32::try_from(n).unwrap_or(u32::MAX);
    GpuNodeStatus {
        observed_at: String::new(),
        plugin_version: env!("CARGO_PKG_VERSION").to_owned(),
        node_uid: node_uid.to_owned(),
        summary: Summary {
            gpus: count(gpus.len()),
            in_use: count(in_use.len()),
            unhealthy: count(gpus.iter().filter(|gpu| gpu.unhealthy.is_some()).count()),
        },
        geometries: book.inventory().geometries().to_vec(),
        gpus: gpus.iter().map(|gpu| GpuStatus::of(gpu)).collect(),
        allocations,
    }
}

fn gpus_of<'a>(book: &'a Book, held: &'a AllocationStatus) -> impl Iterator<Item = usize> + 'a {
    held.device_ids.iter().filter_map(|id| {
        let id: DeviceId = id.parse().ok()?;
        locate(book.inventory().gpus().iter().map(|gpu| &**gpu), &held.resource, &id).map(|(gpu, _)| gpu)
    })
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::time::Duration;

    use super::*;
    use crate::book::{Event, Holding};
    use crate::config::MigStrategy;
    use crate::fixture::inventory;

    #[test]
    fn the_status_tells_gpus_geometries_and_who_holds_what() {
        let inventory = inventory(&["whole", "1g.5gb@0 3g.20gb@4"], MigStrategy::Mixed, "").unwrap();
        let mut book = Book::new("n1", Arc::new(inventory));
        let holding = |pod: &str, name: &str, id: &str| Holding {
            namespace: "default".into(),
            pod: pod.into(),
            container: "main".into(),
            resource: format!("nvidia.com/{name}").parse().unwrap(),
            device_ids: vec![id.into()],
        };
        let held = vec![holding("b", "mig-1g.5gb", "MIG-1-0"), holding("a", "gpu", "GPU-of-before")];
        book.apply(Event::PodResources { held, asked_at: Duration::ZERO });
        let status = of(&book, "uid-of-node");
        assert_eq!(status.summary, Summary { gpus: 2, in_use: 1, unhealthy: 0 });
        assert_eq!(status.geometries.len(), 1);
        let pods: Vec<&str> = status.allocations.iter().map(|held| held.pod.as_str()).collect();
        assert_eq!(pods, ["a", "b"], "in a fixed order, and unknown devices are told too");
        let read: Vec<_> = status.inventory().unwrap();
        let own: Vec<_> = book.inventory().gpus().iter().map(|gpu| (**gpu).clone()).collect();
        assert_eq!(read, own, "what is published is what this node offers");
    }
}
