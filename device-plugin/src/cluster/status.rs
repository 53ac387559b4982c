//! What the GpuNode says, from what the book knows. Pure.

use std::collections::BTreeSet;

use stowage_shared::device_id::DeviceId;
use stowage_shared::gpu::locate;
use stowage_shared::gpu_node::{AllocationStatus, GpuNodeStatus, GpuStatus, Summary};

use crate::book::Book;
use crate::telemetry::Published;

/// The status, but for the time: so that two of them can be compared.
pub(super) fn of(book: &Book, node_uid: &str, usage: &Published) -> GpuNodeStatus {
    let gpus = book.gpus();
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
        gpus: gpus.iter().map(|gpu| with_usage(GpuStatus::of(gpu), usage)).collect(),
        allocations,
    }
}

/// Whether all that is new is that somebody holds what nobody held.
pub(super) fn confirms(before: &GpuNodeStatus, now: &GpuNodeStatus) -> bool {
    let GpuNodeStatus { observed_at: _, plugin_version, node_uid, summary: _, geometries, gpus, allocations } =
        before;
    // Both are sorted.
    let mut all = now.allocations.iter();
    allocations.iter().all(|held| all.any(|it| it == held))
        && (plugin_version, node_uid, geometries, gpus)
            == (&now.plugin_version, &now.node_uid, &now.geometries, &now.gpus)
}

fn with_usage(gpu: GpuStatus, usage: &Published) -> GpuStatus {
    GpuStatus { utilization: usage.get(&gpu.uuid).copied(), ..gpu }
}

fn gpus_of<'a>(book: &'a Book, held: &'a AllocationStatus) -> impl Iterator<Item = usize> + 'a {
    held.device_ids.iter().filter_map(|id| {
        let id: DeviceId = id.parse().ok()?;
        locate(book.gpus().iter().map(|gpu| &**gpu), &held.resource, &id).map(|(gpu, _)| gpu)
    })
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::time::Duration;

    use stowage_shared::gpu::GpuUuid;
    use stowage_shared::gpu_node::UtilizationStatus;

    use super::*;
    use crate::book::{Event, Holding};
    use crate::config::MigStrategy;
    use crate::fixture::inventory;
    use crate::inventory::Judge;

    /// These parts are sick.
    struct Sick(&'static [&'static str]);

    impl Judge for Sick {
        fn why_none(&self, gpu: &GpuUuid) -> Option<String> {
            self.0.contains(&gpu.as_str()).then(|| "XID 95".to_owned())
        }

        fn why_not(&self, _: &GpuUuid, part: &str, _: Option<(u32, u32)>) -> Option<String> {
            self.0.contains(&part).then(|| "XID 94".to_owned())
        }

        fn why_unknown(&self) -> Option<String> {
            None
        }
    }

    #[test]
    fn a_sick_slice_and_a_sick_gpu_say_why() {
        let gpus = ["whole", "1g.5gb@0 1g.5gb@1 1g.5gb@2"];
        let inventory = inventory(&gpus, MigStrategy::Mixed, "").unwrap();
        let sick = Sick(&["GPU-0", "MIG-1-0", "MIG-1-1"]);
        let book = Book::new("n1", Arc::new(inventory.judged(&sick)));
        let status = of(&book, "uid-of-node", &Published::default());
        let offers = |gpu: usize| -> Vec<(&str, Option<&str>)> {
            let offers = status.gpus[gpu].offers.iter();
            offers.map(|offer| (offer.uuid.as_str(), offer.unhealthy.as_deref())).collect()
        };
        assert_eq!((offers(0), status.gpus[0].unhealthy.as_deref()), (vec![("GPU-0", None)], Some("XID 95")));
        let slices = vec![("MIG-1-0", Some("XID 94")), ("MIG-1-1", Some("XID 94")), ("MIG-1-2", None)];
        assert_eq!((offers(1), status.gpus[1].unhealthy.as_deref()), (slices, None));
        assert_eq!(status.summary.unhealthy, 1);
        let read = status.inventory().unwrap();
        assert_eq!(read, book.gpus().iter().map(|gpu| (**gpu).clone()).collect::<Vec<_>>());
    }

    #[test]
    fn what_is_held_now_and_was_not_confirms_a_plan_and_nothing_else_does() {
        let held = |pod: &str, id: &str| AllocationStatus {
            namespace: "default".into(),
            pod: pod.into(),
            uid: String::new(),
            container: "main".into(),
            resource: "nvidia.com/gpu".parse().unwrap(),
            device_ids: vec![id.into()],
        };
        let status = |allocations: &[AllocationStatus]| GpuNodeStatus {
            allocations: allocations.to_vec(),
            ..GpuNodeStatus::default()
        };
        let (a, b, c) = (held("a", "GPU-0"), held("b", "GPU-1"), held("c", "GPU-2"));
        let before = status(&[a.clone(), c.clone()]);
        assert!(confirms(&before, &status(&[a.clone(), b.clone(), c.clone()])));
        assert!(!confirms(&before, &status(&[a.clone(), b.clone()])), "c is gone");
        assert!(!confirms(&before, &status(&[a, held("c", "GPU-1")])), "c holds another");
        let sick = GpuNodeStatus { node_uid: "another".into(), ..before.clone() };
        assert!(!confirms(&before, &sick));
    }

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
        let busy = UtilizationStatus { gpu_percent: Some(40), memory_percent: 7 };
        let status = of(&book, "uid-of-node", &[("GPU-0".to_owned(), busy)].into());
        let told: Vec<_> = status.gpus.iter().map(|gpu| gpu.utilization).collect();
        assert_eq!(told, [Some(busy), None]);
        assert_eq!(status.summary, Summary { gpus: 2, in_use: 1, unhealthy: 0 });
        assert_eq!(status.geometries.len(), 1);
        let pods: Vec<&str> = status.allocations.iter().map(|held| held.pod.as_str()).collect();
        assert_eq!(pods, ["a", "b"], "in a fixed order, and unknown devices are told too");
        let read: Vec<_> = status.inventory().unwrap();
        let own: Vec<_> = book.inventory().gpus().iter().map(|gpu| (**gpu).clone()).collect();
        assert_eq!(read, own, "what is published is what this node offers");
    }
}
