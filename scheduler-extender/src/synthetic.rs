//! Made-up clusters of any size: for benchmarks, simulations and tests.
//!
//! They are built from the same events that the watches give, so nothing here knows how the state works.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde_json::{Value, json};
use stowage_shared::contract::SCHEDULER_NAME;
use stowage_shared::device_id::DeviceId;
use stowage_shared::gpu_node::{AllocationStatus, GpuNodeStatus, GpuStatus, OfferStatus, SliceStatus};
use stowage_shared::host::Host;
use stowage_shared::plan::{Plan, PlannedDevice};
use stowage_shared::pod::{Container, OwnAnnotations, PodSpec, PodStatus, Quantity, Resources};
use stowage_shared::resource::ResourceName;
use stowage_shared::units::MemoryMib;

use crate::clock::Now;
use crate::state::event::{Change, Event, GpuNode, Node, Pod, PodId};
use crate::state::{State, Store};
use crate::verbs::Verbs;

/// GPUs a node has: four whole, two cut into seven MIG slices each, two shared by four pods each.
pub const GPUS_PER_NODE: u32 = 8;
/// `nvidia.com/mig-1g.5gb`, as synthetic nodes offer it.
pub const SLICE: &str = "nvidia.com/mig-1g.5gb";
/// `nvidia.com/gpu.shared`, as synthetic nodes offer it.
pub const SHARE: &str = "nvidia.com/gpu.shared";
/// `nvidia.com/gpu`, as synthetic nodes offer it.
pub const WHOLE: &str = "nvidia.com/gpu";

/// The name of the n-th GPU node.
pub fn gpu_node_name(n: usize) -> String {
    format!("gpu-node-{n}")
}

/// The verbs of a cluster of `nodes` GPU nodes on each of which `pods_per_node` pods are placed, ready to answer.
pub fn verbs(nodes: usize, pods_per_node: usize, now: Now) -> Verbs {
    Verbs::new(Arc::new(Store::new(state(nodes, pods_per_node, now))))
}

/// The state of such a cluster, with everything synced.
pub fn state(nodes: usize, pods_per_node: usize, now: Now) -> State {
    let mut state = State::default();
    for event in events(nodes, pods_per_node, now) {
        state.apply(event, now);
    }
    state
}

/// What the watches would tell of such a cluster at the start.
pub fn events(nodes: usize, pods_per_node: usize, now: Now) -> Vec<Event> {
    let mut events = vec![Event::Node(Change::ListBegins)];
    events.extend((0..nodes).map(|n| Event::Node(Change::Listed(node(&gpu_node_name(n))))));
    events.extend([Event::Node(Change::ListEnds), Event::GpuNode(Change::ListBegins)]);
    for n in 0..nodes {
        let allocations = (0..pods_per_node).filter_map(|p| placed(n, p)).map(|(_, allocation)| allocation);
        let status = status(&gpu_node_name(n), allocations.collect(), now);
        events.push(Event::GpuNode(Change::Listed(GpuNode { name: gpu_node_name(n), status: Ok(status) })));
    }
    events.extend([Event::GpuNode(Change::ListEnds), Event::Pod(Change::ListBegins)]);
    for n in 0..nodes {
        let pods = (0..pods_per_node).filter_map(|p| placed(n, p)).map(|(pod, _)| pod);
        events.extend(pods.map(|pod| Event::Pod(Change::Listed(pod))));
    }
    events.push(Event::Pod(Change::ListEnds));
    events
}

/// A GPU node that is ready.
pub fn node(name: &str) -> Node {
    let allocatable = [(WHOLE, 4), (SLICE, 14), (SHARE, 8)];
    let allocatable = allocatable.into_iter().filter_map(|(name, n)| Some((name.parse().ok()?, n))).collect();
    let host = Host { cpu_milli: 96_000, memory_mib: 768 << 10 };
    let uid = format!("uid-of-{name}");
    Node { name: name.to_owned(), uid, ready: true, allocatable, host, ..Node::default() }
}

/// What the plugin of a GPU node publishes.
pub fn status(node: &str, allocations: Vec<AllocationStatus>, now: Now) -> GpuNodeStatus {
    GpuNodeStatus {
        observed_at: now.wall.to_string(),
        node_uid: format!("uid-of-{node}"),
        gpus: (0..GPUS_PER_NODE).map(|index| gpu(node, index)).collect(),
        allocations,
        ..GpuNodeStatus::default()
    }
}

/// The UUID of a GPU.
pub fn gpu_uuid(node: &str, index: u32) -> String {
    format!("GPU-{node}-{index}")
}

fn gpu(node: &str, index: u32) -> GpuStatus {
    let uuid = gpu_uuid(node, index);
    let offer = |resource: &str, uuid: String, slice, replicas| -> Option<OfferStatus> {
        Some(OfferStatus {
            resource: resource.parse().ok()?,
            uuid,
            slice,
            replicas,
            distinct: false,
            capped: false,
            unhealthy: None,
        })
    };
    let slice = |start: u8| -> Option<OfferStatus> {
        let slice = SliceStatus { profile: "1g.5gb".parse().ok()?, start, size: 1, media_engines: false };
        offer(SLICE, format!("MIG-{node}-{index}-{start}"), Some(slice), None)
    };
    let offers: Vec<Option<OfferStatus>> = match index {
        0..4 => vec![offer(WHOLE, uuid.clone(), None, None)],
        4..6 => (0..7).map(slice).collect(),
        _ => vec![offer(SHARE, uuid.clone(), None, Some(4))],
    };
    GpuStatus {
        uuid,
        index,
        model: "NVIDIA A100-SXM4-40GB".into(),
        memory_mib: MemoryMib(40_960),
        numa_node: Some(index / 4),
        near: Vec::new(),
        unhealthy: None,
        offers: offers.into_iter().flatten().collect(),
        mig_on_demand: false,
        foreign_instances: Vec::new(),
        utilization: None,
    }
}

/// What the p-th pod of the n-th node asks for. On node 0 the kinds take turns; the bits of `n` change some of
/// them, so that nodes differ as in a cluster that has lived for a while.
fn kind(n: usize, p: usize) -> usize {
    (p + (n >> (p % 8) & 1)) % 3
}

/// The p-th pod of the n-th node, with what its kubelet says of it; `None` where the node has no room for it.
fn placed(n: usize, p: usize) -> Option<(Pod, AllocationStatus)> {
    let node = gpu_node_name(n);
    let turn = u32::try_from((0..p).filter(|&before| kind(n, before) == kind(n, p)).count()).ok()?;
    // On half of the nodes pods lie close together, on the others apart.
    let close = n & 4 != 0;
    let (resource, index, place) = match kind(n, p) {
        0 if turn < 4 => (WHOLE, turn, None),
        1 if turn < 14 && close => (SLICE, 4 + turn / 7, Some(turn % 7)),
        1 if turn < 14 => (SLICE, 4 + turn % 2, Some(turn / 2)),
        2 if turn < 8 && close => (SHARE, 6 + turn / 4, Some(turn % 4)),
        2 if turn < 8 => (SHARE, 6 + turn % 2, Some(turn / 2)),
        _ => return None,
    };
    let start = place.filter(|_| resource == SLICE).and_then(|place| u8::try_from(place).ok());
    let (name, uid) = (format!("pod-{n}-{p}"), format!("uid-{n}-{p}"));
    let slice = start.and_then(|start| Some(("1g.5gb".parse().ok()?, start)));
    let device = PlannedDevice { gpu: gpu_uuid(&node, index).parse().ok()?, slice, memory: None };
    let resource_name: ResourceName = resource.parse().ok()?;
    let devices = BTreeMap::from([(resource_name.clone(), vec![device])]);
    let plan =
        Plan { uid: uid.clone(), node: node.clone(), containers: BTreeMap::from([("main".into(), devices)]) };
    let id = match (start, place) {
        (Some(start), _) => DeviceId::exclusive(format!("MIG-{node}-{index}-{start}")),
        (None, Some(replica)) => DeviceId::replica(gpu_uuid(&node, index), replica),
        (None, None) => DeviceId::exclusive(gpu_uuid(&node, index)),
    };
    let allocation = AllocationStatus {
        namespace: "models".into(),
        pod: name.clone(),
        uid: uid.clone(),
        container: "main".into(),
        resource: resource_name,
        device_ids: vec![id.to_string()],
    };
    let mut pod = pod(&name, &uid, resource, 1);
    pod.node = node;
    pod.running = true;
    pod.plan = plan.to_annotation().ok();
    Some((pod, allocation))
}

/// A pod of our scheduler that waits for `count` devices.
pub fn pod(name: &str, uid: &str, resource: &str, count: u64) -> Pod {
    let limits = [("cpu", "4".to_owned()), ("memory", "8Gi".to_owned()), (resource, count.to_string())];
    let limits = limits.into_iter().map(|(name, amount)| (name.to_owned(), Quantity::Text(amount))).collect();
    let container = Container {
        name: "main".into(),
        resources: Resources { limits, ..Resources::default() },
        ..Container::default()
    };
    let spec =
        PodSpec { scheduler_name: SCHEDULER_NAME.into(), containers: vec![container], ..PodSpec::default() };
    let id = PodId { uid: uid.into(), namespace: "models".into(), name: name.into() };
    Pod::of(id, false, OwnAnnotations::default(), spec, &PodStatus::default())
}

/// What kube-scheduler sends to filter and prioritize for a pod that wants `count` of `resource`.
pub fn request<'a>(resource: &str, count: u32, names: impl IntoIterator<Item = &'a str>) -> Vec<u8> {
    let limits = json!({ "cpu": "4", "memory": "8Gi", resource: count.to_string() });
    let pod = json!({
        "metadata": { "name": "llama-7f9c-x2x4z", "namespace": "models", "uid": "6a1f0f9e-2f7b-4c0d-9a57-0c7f3f2f9a11",
            "labels": { "app": "llama" } },
        "spec": { "schedulerName": SCHEDULER_NAME, "containers": [
            { "name": "main", "image": "llama:7b", "resources": { "limits": limits, "requests": limits } } ] },
        "status": { "phase": "Pending" },
    });
    let names: Vec<&str> = names.into_iter().collect();
    json!({ "Pod": pod, "Nodes": Value::Null, "NodeNames": names }).to_string().into_bytes()
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use stowage_shared::audit::audit;

    use super::*;

    #[test]
    fn a_synthetic_cluster_breaks_no_invariant_and_has_room() {
        let now = Now::read();
        let mut state = state(20, 12, now);
        let findings: Vec<_> = state.audit_views().iter().flat_map(audit).collect();
        assert_eq!(findings, []);
        let snapshot = state.snapshot().unwrap();
        assert_eq!(snapshot.nodes().count(), 20);
        assert!(snapshot.nodes().all(|node| node.usable(now.monotonic).is_ok()));
        assert_eq!(state.plans_ignored(), 0);
    }

    #[test]
    fn filter_and_prioritize_answer_for_it() {
        let now = Now::read();
        let verbs = verbs(100, 4, now);
        let names: Vec<String> = (0..100).map(gpu_node_name).collect();
        let body = request(WHOLE, 2, names.iter().map(String::as_str));
        let filtered: Value = serde_json::from_slice(&verbs.filter(&body, now.monotonic).body).unwrap();
        let fitting = filtered["NodeNames"].as_array().unwrap().len();
        let full = filtered["FailedNodes"].as_object().unwrap().len();
        assert!(fitting > 0 && full > 0 && fitting + full == 100, "{fitting} fit, {full} are full");
        let judged = verbs.remembered();
        let scores: Vec<Value> =
            serde_json::from_slice(&verbs.prioritize(&body, Instant::now()).body).unwrap();
        assert_eq!(scores.iter().filter(|score| score["Score"] == 10).count(), 1);
        assert_eq!(verbs.remembered(), judged, "prioritize reuses what filter judged");
        assert!((5..50).contains(&judged), "{judged} kinds of nodes were judged for 100 nodes");
    }
}
