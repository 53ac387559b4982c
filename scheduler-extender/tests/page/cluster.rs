//! Clusters to look at: one that is busy in every way that there is, and one that is large.

use std::collections::BTreeSet;

use jiff::Timestamp;
use serde_json::{Value, json};
use stowage_stand_ins::api_server::resources::{GPU_NODES, NAMESPACES, NODES, PODS};
use stowage_stand_ins::api_server::{ApiServer, Gvr, Part};

const SHARE: &str = "nvidia.com/gpu.shared";
const WHOLE: &str = "nvidia.com/gpu";

/// Services: namespace, name.
const APPS: [(&str, &str); 8] = [
    ("search", "embedder"),
    ("search", "ranker"),
    ("chat", "llama-70b"),
    ("chat", "whisper"),
    ("vision", "detector"),
    ("fraud", "scorer"),
    ("ads", "ctr-model"),
    ("speech", "synthesizer"),
];

/// Eight nodes: slices on demand, whole GPUs and shares of different sizes; one GPU and one node that are ill, pods that are
/// on their way, room that is kept, and pods that wait.
pub fn busy(api: &ApiServer) {
    namespaces(api);
    for n in 0..8 {
        let name = format!("gpu-node-{n}");
        let ready = n != 6;
        node(
            api,
            &name,
            ready,
            if n < 4 {
                json!({ WHOLE: "8", "nvidia.com/mig-1g.5gb": "56" })
            } else {
                json!({ WHOLE: "8", SHARE: "32" })
            },
        );
        let uid = api.store().get(&NODES, "", &name).unwrap().uid().to_owned();
        let (mut gpus, mut allocations) = (Vec::new(), Vec::new());
        for index in 0..8 {
            let uuid = gpu_uuid(n, index);
            let mut take = |resource: &str, device: String, app: usize| {
                let (namespace, app) = APPS[app % APPS.len()];
                let pod =
                    format!("{app}-{:05x}", (n * 8_191 + index * 977 + allocations.len() * 131) % 0xf_ffff);
                let pod_uid = bound_pod(api, namespace, &pod, &name, resource);
                allocations.push(json!({
                    "namespace": namespace, "pod": pod, "uid": pod_uid, "container": "main", "resource": resource,
                    "deviceIds": [device],
                }));
            };
            gpus.push(if n < 4 {
                let cuts = CUTS[(n * 3 + index * 5) % CUTS.len()];
                let mut offers = Vec::new();
                for (at, &(profile, start, size)) in cuts.iter().enumerate() {
                    let token = format!("{uuid}::{profile}::{at}");
                    take(&format!("nvidia.com/mig-{profile}"), token.clone(), n + index + at);
                    offers.push(json!({
                        "resource": format!("nvidia.com/mig-{profile}"), "uuid": token,
                        "slice": { "profile": profile, "start": start, "size": size },
                    }));
                }
                let foreign = if (n, index) == (3, 7) { json!([{ "profile": "3g.20gb", "start": 4, "size": 4 }]) } else { json!([]) };
                json!({ "uuid": uuid, "index": index, "model": A100, "memoryMib": 40_960, "offers": offers,
                    "migOnDemand": true, "foreignInstances": foreign })
            } else {
                match (n + index) % 4 {
                    0 => {}
                    1 => (0..(n + index) % 3 + 1).for_each(|k| take(SHARE, format!("{uuid}::{k}"), n + index + k)),
                    _ => take(WHOLE, uuid.clone(), n + index),
                }
                let ill = ((n, index) == (5, 3)).then_some("XID 79: GPU has fallen off the bus");
                json!({ "uuid": uuid, "index": index, "model": H100, "memoryMib": 81_559, "unhealthy": ill, "offers": [
                    { "resource": WHOLE, "uuid": uuid }, { "resource": SHARE, "uuid": uuid, "replicas": 4 } ] })
            });
        }
        gpu_node(api, &name, &uid, &gpus, &allocations);
    }
    // On its way: bound, with a plan, and not handed out yet.
    let uid = bound_pod(api, "chat", "llama-70b-new", "gpu-node-4", WHOLE);
    let plan = json!({ "v": 1, "uid": uid, "node": "gpu-node-4", "c": { "main": { WHOLE: [{ "gpu": gpu_uuid(4, 4) }] } } }).to_string();
    let change = |pod: &mut Value| pod["metadata"]["annotations"]["stowage.dev/plan"] = plan.clone().into();
    api.store().modify(&PODS, "chat", "llama-70b-new", Part::Main, change).unwrap();
    for (namespace, name, resource, count, annotations) in [
        ("chat", "llama-405b-0", WHOLE, 8, json!({})),
        ("search", "reranker-xl-7d9f", "nvidia.com/mig-7g.40gb", 1, json!({})),
        ("vision", "detector-next", SHARE, 1, json!({ "stowage.dev/gpu-memory": "12Gi" })),
        ("fraud", "scorer-backfill", WHOLE, 16, json!({})),
        ("ads", "ctr-model-h200", WHOLE, 1, json!({ "stowage.dev/gpu-model": "*H200*" })),
        ("speech", "synthesizer-hq", SHARE, 1, json!({ "stowage.dev/gpu-memory": "20Gi" })),
    ] {
        create(
            api,
            &PODS,
            namespace,
            pod(namespace, name, resource, count, &annotations),
            &json!({ "phase": "Pending" }),
        );
    }
    let nominate = |pod: &mut Value| pod["status"]["nominatedNodeName"] = "gpu-node-7".into();
    api.store().modify(&PODS, "speech", "synthesizer-hq", Part::Status, nominate).unwrap();
}

/// A slice of a cut: its profile, start and size.
type Slice = (&'static str, u8, u8);

/// Ways in which an A100 is cut.
const CUTS: &[&[Slice]] = &[
    &[("3g.20gb", 4, 4), ("1g.5gb", 0, 1), ("1g.5gb", 1, 1)],
    &[("2g.10gb", 0, 2), ("2g.10gb", 4, 2), ("1g.5gb", 6, 1)],
    &[("7g.40gb", 0, 8)],
    &[("1g.5gb", 3, 1)],
    &[],
    &[("4g.20gb", 0, 4), ("3g.20gb", 4, 4)],
    &[("1g.5gb", 0, 1), ("1g.5gb", 1, 1), ("1g.5gb", 2, 1), ("1g.5gb", 3, 1), ("2g.10gb", 4, 2)],
    &[("3g.20gb", 0, 4)],
];

/// So many nodes of eight GPUs: four whole, two in seven slices, two in four shares; and a thousand pods that wait.
pub fn many(api: &ApiServer, nodes: usize) {
    namespaces(api);
    for n in 0..nodes {
        let name = format!("gpu-node-{n}");
        node(api, &name, n % 997 != 996, json!({ WHOLE: "4", "nvidia.com/mig-1g.5gb": "14", SHARE: "8" }));
        let uid = api.store().get(&NODES, "", &name).unwrap().uid().to_owned();
        let (mut gpus, mut allocations) = (Vec::new(), Vec::new());
        for index in 0..8 {
            let uuid = gpu_uuid(n, index);
            let mut take = |resource: &str, device: String, k: usize| {
                let (namespace, app) = APPS[(n + index + k) % APPS.len()];
                // Pods that the kubelet tells of, and nobody else: as many objects as need be.
                let pod = format!("{app}-{n:04x}{index}{k}");
                allocations
                    .push(json!({ "namespace": namespace, "pod": pod, "uid": format!("uid-{n}-{index}-{k}"),
                    "container": "main", "resource": resource, "deviceIds": [device] }));
            };
            let mix = n.wrapping_mul(2_654_435_761) >> index;
            let offers = match index {
                0..4 => {
                    if mix % 5 < 3 {
                        take(WHOLE, uuid.clone(), 0);
                    }
                    json!([{ "resource": WHOLE, "uuid": uuid }])
                }
                4 | 5 => {
                    let mig = |start: usize| format!("MIG-{n:08x}-0000-0000-{index:04x}-{start:012x}");
                    (0..7)
                        .filter(|start| mix >> start & 3 != 0)
                        .for_each(|start| take("nvidia.com/mig-1g.5gb", mig(start), start));
                    (0..7).map(|start| json!({ "resource": "nvidia.com/mig-1g.5gb", "uuid": mig(start), "slice": { "profile": "1g.5gb", "start": start, "size": 1 } })).collect()
                }
                _ => {
                    (0..mix % 5).for_each(|k| take(SHARE, format!("{uuid}::{k}"), k));
                    json!([{ "resource": SHARE, "uuid": uuid, "replicas": 4 }])
                }
            };
            let ill = (n * 8 + index).is_multiple_of(613).then_some("XID 48: double bit ECC error");
            gpus.push(json!({ "uuid": uuid, "index": index, "model": if n % 2 == 0 { A100 } else { H100 }, "memoryMib": 40_960, "unhealthy": ill, "offers": offers }));
        }
        gpu_node(api, &name, &uid, &gpus, &allocations);
    }
    for n in 0..1_000 {
        let (namespace, app) = APPS[n % APPS.len()];
        let pod = pod(namespace, &format!("{app}-waits-{n}"), WHOLE, 5 + n % 3, &json!({}));
        create(api, &PODS, namespace, pod, &json!({ "phase": "Pending" }));
    }
}

fn namespaces(api: &ApiServer) {
    let names: BTreeSet<&str> = APPS.iter().map(|(namespace, _)| *namespace).collect();
    for name in names {
        let namespace = json!({ "apiVersion": "v1", "kind": "Namespace", "metadata": { "name": name } });
        api.store().create(&NAMESPACES, "", namespace).unwrap();
    }
}

const A100: &str = "NVIDIA A100-SXM4-40GB";
const H100: &str = "NVIDIA H100 80GB HBM3";

fn gpu_uuid(n: usize, index: usize) -> String {
    format!("GPU-{n:08x}-06c0-7d70-1a51-{index:012x}")
}

fn node(api: &ApiServer, name: &str, ready: bool, allocatable: Value) {
    let node = json!({ "apiVersion": "v1", "kind": "Node", "metadata": { "name": name } });
    let ready = if ready { "True" } else { "False" };
    let status = json!({ "conditions": [{ "type": "Ready", "status": ready }], "allocatable": allocatable });
    create(api, &NODES, "", node, &status);
}

fn gpu_node(api: &ApiServer, name: &str, uid: &str, gpus: &[Value], allocations: &[Value]) {
    let profile = |name: &str, size: u8, starts: &[u8]| json!({ "name": name, "size": size, "starts": starts, "memoryMib": 4_864 });
    let geometry = json!({ "model": A100, "memorySlices": 8, "computeSlices": 7, "profiles": [
        profile("1g.5gb", 1, &[0, 1, 2, 3, 4, 5, 6]), profile("2g.10gb", 2, &[0, 2, 4]), profile("3g.20gb", 4, &[0, 4]),
        profile("4g.20gb", 4, &[0]), profile("7g.40gb", 8, &[0]) ] });
    let status = json!({ "observedAt": Timestamp::now().to_string(), "nodeUid": uid, "geometries": [geometry],
        "gpus": gpus, "allocations": allocations });
    let object = json!({ "apiVersion": "stowage.dev/v1alpha1", "kind": "GpuNode", "metadata": { "name": name }, "spec": {} });
    create(api, &GPU_NODES, "", object, &status);
}

fn pod(namespace: &str, name: &str, resource: &str, count: usize, annotations: &Value) -> Value {
    let resources = json!({ resource: count.to_string() });
    json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": { "name": name, "namespace": namespace, "annotations": annotations },
        "spec": { "schedulerName": "stowage-scheduler", "containers": [{ "name": "main", "image": "x",
            "resources": { "limits": resources, "requests": resources } }] },
    })
}

/// A pod that runs on a node; its UID.
fn bound_pod(api: &ApiServer, namespace: &str, name: &str, node: &str, resource: &str) -> String {
    let mut pod = pod(namespace, name, resource, 1, &json!({}));
    pod["spec"]["nodeName"] = node.into();
    create(api, &PODS, namespace, pod, &json!({ "phase": "Running" }))
}

/// Makes an object and writes its status, as its owner would; its UID.
fn create(api: &ApiServer, resource: &Gvr, namespace: &str, object: Value, status: &Value) -> String {
    let made = api.store().create(resource, namespace, object).unwrap();
    let change = |object: &mut Value| object["status"] = status.clone();
    api.store().modify(resource, namespace, made.name(), Part::Status, change).unwrap();
    made.uid().to_owned()
}
