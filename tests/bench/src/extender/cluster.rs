//! A cluster of any size in the API server stand-in, its objects as large as they are in life.
//!
//! A node has eight GPUs: four in four shares each, two cut into seven MIG slices each, two whole. Four pods are
//! placed on it, with their plans; which, depends on its number, so that nodes differ as in a cluster that has
//! lived for a while. Each has room for one more share.

use std::sync::Arc;

use anyhow::Result;
use serde_json::{Value, json};
use stowage_stand_ins::api_server::resources::{GPU_NODES, NODES, PODS};
use stowage_stand_ins::api_server::{Gvr, Object, Part, Store};

/// GPUs a node has.
pub(super) const GPUS_PER_NODE: usize = 8;
/// Pods that are placed on each.
pub(super) const PODS_PER_NODE: usize = 4;
/// What every node has room for.
pub(super) const SHARE: &str = "nvidia.com/gpu.shared";
const SLICE: &str = "nvidia.com/mig-1g.5gb";
/// A node has two.
pub(super) const WHOLE: &str = "nvidia.com/gpu";

/// The n-th node's name.
pub(super) fn node_name(n: usize) -> String {
    format!("gpu-node-{n:05}")
}

/// Makes the nodes, with their GpuNodes and the pods placed on them.
pub(super) fn fill(store: &Store, nodes: usize) -> Result<()> {
    let now = jiff::Timestamp::now().to_string();
    for n in 0..nodes {
        let name = node_name(n);
        let made = create(store, &NODES, "", node(&name))?;
        let mut allocations = Vec::new();
        for p in 0..PODS_PER_NODE {
            let Placed { resource, gpu, slice, device } = placed(n, p);
            let pod_name = format!("llama-{n:05}-{p}");
            let uid = create(store, &PODS, "default", gpu_pod(&pod_name, Some(&name), resource, 1))?
                .uid()
                .to_owned();
            let mut planned = json!({"gpu": gpu_uuid(n, gpu)});
            if let Some(start) = slice {
                planned["profile"] = "1g.5gb".into();
                planned["start"] = start.into();
            }
            let plan =
                json!({"v": 1, "uid": uid, "node": name, "c": {"main": {resource: [planned]}}}).to_string();
            let change = |pod: &mut Value| pod["metadata"]["annotations"]["stowage.dev/plan"] = plan.into();
            store.modify(&PODS, "default", &pod_name, Part::Main, change)?;
            allocations.push(json!({
                "namespace": "default", "pod": pod_name, "uid": uid, "container": "main", "resource": resource,
                "deviceIds": [device],
            }));
        }
        let gpus: Vec<Value> = (0..GPUS_PER_NODE).map(|gpu| gpu_status(n, gpu)).collect();
        let status = json!({
            "observedAt": now, "pluginVersion": "0.1.0", "nodeUid": made.uid(), "gpus": gpus,
            "summary": {"gpus": 8, "inUse": 4, "unhealthy": 0}, "allocations": allocations,
        });
        let object = json!({
            "apiVersion": "stowage.dev/v1alpha1", "kind": "GpuNode", "metadata": {"name": name}, "spec": {},
            "status": status,
        });
        create(store, &GPU_NODES, "", object)?;
    }
    Ok(())
}

/// Makes pods that run on the nodes and ask for no GPU.
pub(super) fn add_ordinary_pods(store: &Store, nodes: usize, count: usize) -> Result<()> {
    for i in 0..count {
        let name = format!("web-{i:06}");
        let mut pod = pod(&name, json!({"cpu": "500m", "memory": "512Mi"}));
        pod["spec"]["schedulerName"] = "default-scheduler".into();
        pod["spec"]["nodeName"] = node_name(i % nodes).into();
        create(store, &PODS, "default", pod)?;
    }
    Ok(())
}

/// Makes pods that wait for more than any node has.
pub(super) fn add_pending_pods(store: &Store, count: usize) -> Result<()> {
    for i in 0..count {
        create(store, &PODS, "default", gpu_pod(&format!("waits-{i:05}"), None, WHOLE, 3))?;
    }
    Ok(())
}

/// Writes a GpuNode again, as its plugin does every few minutes.
pub(super) fn heartbeat(store: &Store, n: usize) -> Result<()> {
    let now = jiff::Timestamp::now().to_string();
    let change = |object: &mut Value| object["status"]["observedAt"] = now.into();
    store.modify(&GPU_NODES, "", &node_name(n), Part::Status, change)?;
    Ok(())
}

/// A pod of our scheduler that asks for GPUs.
pub(super) fn gpu_pod(name: &str, node: Option<&str>, resource: &str, count: usize) -> Value {
    let mut pod = pod(name, json!({"cpu": "4", "memory": "16Gi", resource: count.to_string()}));
    match node {
        Some(node) => pod["spec"]["nodeName"] = node.into(),
        None => pod["status"] = json!({"phase": "Pending"}),
    }
    pod
}

/// A pod as the API server tells it, with what nobody here reads.
fn pod(name: &str, resources: Value) -> Value {
    let field = |name: &str| json!({"name": name, "valueFrom": {"fieldRef": {"apiVersion": "v1", "fieldPath": "status.podIP"}}});
    json!({
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {
            "name": name, "generateName": "model-7f9c6b5d4-",
            "labels": {"app.kubernetes.io/name": "model", "pod-template-hash": "7f9c6b5d4"},
            "annotations": {"prometheus.io/scrape": "true"},
            "ownerReferences": [{
                "apiVersion": "apps/v1", "kind": "ReplicaSet", "name": "model-7f9c6b5d4", "controller": true,
                "uid": "0c7f3f2f-2f7b-4c0d-9a57-6a1f0f9e9a11", "blockOwnerDeletion": true,
            }],
            "managedFields": [
                {"manager": "kube-controller-manager", "operation": "Update", "apiVersion": "v1",
                 "time": "2026-11-24T09:00:00Z", "fieldsType": "FieldsV1", "fieldsV1": {
                    "f:metadata": {"f:generateName": {}, "f:labels": {".": {}, "f:app.kubernetes.io/name": {}}},
                    "f:spec": {"f:containers": {"k:{\"name\":\"main\"}": {".": {}, "f:image": {}, "f:resources": {
                        ".": {}, "f:limits": {".": {}, "f:cpu": {}, "f:memory": {}}}}}}}},
                {"manager": "kubelet", "operation": "Update", "apiVersion": "v1", "subresource": "status",
                 "time": "2026-11-24T09:00:01Z", "fieldsType": "FieldsV1", "fieldsV1": {
                    "f:status": {"f:conditions": {"k:{\"type\":\"Ready\"}": {".": {}, "f:status": {}}}}}},
            ],
        },
        "spec": {
            "schedulerName": "stowage-scheduler",
            "serviceAccountName": "default", "restartPolicy": "Always", "priority": 0,
            "tolerations": [{"key": "nvidia.com/gpu", "operator": "Exists", "effect": "NoSchedule"}],
            "volumes": [{"name": "kube-api-access", "projected": {"sources": [{"serviceAccountToken": {"path": "token"}}]}}],
            "containers": [{
                "name": "main", "image": "registry.example.com/models/server:1.4.2",
                "args": ["--model", "llama-3-8b", "--port", "8080"],
                "env": [{"name": "LOG_LEVEL", "value": "info"}, field("POD_IP"), field("HOST_IP")],
                "ports": [{"name": "http", "containerPort": 8080, "protocol": "TCP"}],
                "resources": {"limits": resources, "requests": resources},
                "volumeMounts": [{"name": "kube-api-access", "mountPath": "/var/run/secrets/kubernetes.io/serviceaccount"}],
            }],
        },
        "status": {
            "phase": "Running", "podIP": "10.1.2.3", "qosClass": "Guaranteed",
            "conditions": [{"type": "Ready", "status": "True", "lastTransitionTime": "2026-11-24T09:00:01Z"}],
        },
    })
}

fn node(name: &str) -> Value {
    let image = |i: usize| json!({"names": [format!("registry.example.com/image-{i}@sha256:0123456789abcdef")], "sizeBytes": 1_000_000});
    let condition = |kind: &str, status: &str| json!({"type": kind, "status": status, "reason": "Kubelet", "lastHeartbeatTime": "2026-11-24T09:00:00Z"});
    json!({
        "apiVersion": "v1",
        "kind": "Node",
        "metadata": {"name": name, "labels": {
            "kubernetes.io/hostname": name, "kubernetes.io/arch": "amd64", "topology.kubernetes.io/zone": "zone-1",
            "nvidia.com/gpu.product": "NVIDIA-A100-SXM4-40GB",
        }},
        "status": {
            "allocatable": {
                "cpu": "128", "memory": "1031461Mi", "pods": "110", "ephemeral-storage": "1Ti",
                SHARE: "16", SLICE: "14", WHOLE: "2",
            },
            "conditions": [
                condition("MemoryPressure", "False"), condition("DiskPressure", "False"), condition("Ready", "True"),
            ],
            "images": (0..20).map(image).collect::<Vec<_>>(),
        },
    })
}

fn gpu_status(n: usize, gpu: usize) -> Value {
    let uuid = gpu_uuid(n, gpu);
    let slice = |start: usize| json!({"resource": SLICE, "uuid": mig_uuid(n, gpu, start), "slice": {"profile": "1g.5gb", "start": start, "size": 1}});
    let offers: Vec<Value> = match gpu {
        0..4 => vec![json!({"resource": SHARE, "uuid": uuid, "replicas": 4})],
        4..6 => (0..7).map(slice).collect(),
        _ => vec![json!({"resource": WHOLE, "uuid": uuid})],
    };
    json!({
        "uuid": uuid, "index": gpu, "model": "NVIDIA A100-SXM4-40GB", "memoryMib": 40_960, "numaNode": gpu / 4,
        "near": vec![1_200; gpu], "offers": offers,
    })
}

struct Placed {
    resource: &'static str,
    gpu: usize,
    slice: Option<usize>,
    device: String,
}

/// What the p-th pod of the n-th node holds: two bits of the node's number say which kind, others where.
fn placed(n: usize, p: usize) -> Placed {
    let apart = n >> 8 & 1;
    match n >> (2 * p) & 3 {
        0 | 1 => {
            // Four pods on four GPUs, or two by two.
            let gpu = if apart == 1 { p } else { p / 2 };
            Placed { resource: SHARE, gpu, slice: None, device: format!("{}::{p}", gpu_uuid(n, gpu)) }
        }
        2 => {
            let gpu = 4 + p % 2;
            let start = if apart == 1 { 6 - p } else { p };
            Placed { resource: SLICE, gpu, slice: Some(start), device: mig_uuid(n, gpu, start) }
        }
        _ if p < 2 => Placed { resource: WHOLE, gpu: 6 + p, slice: None, device: gpu_uuid(n, 6 + p) },
        _ => Placed { resource: SHARE, gpu: 3, slice: None, device: format!("{}::{p}", gpu_uuid(n, 3)) },
    }
}

fn gpu_uuid(n: usize, gpu: usize) -> String {
    format!("GPU-{n:08x}-06c0-7d70-1a51-{gpu:012x}")
}

fn mig_uuid(n: usize, gpu: usize, start: usize) -> String {
    format!("MIG-{n:08x}-06c0-5d70-{gpu:04x}-{start:012x}")
}

/// Creates an object and then writes its status, as its owner would.
fn create(store: &Store, resource: &Gvr, namespace: &str, object: Value) -> Result<Arc<Object>> {
    let status = object["status"].clone();
    let created = store.create(resource, namespace, object)?;
    let change = |object: &mut Value| object["status"] = status;
    Ok(store.modify(resource, namespace, created.name(), Part::Status, change)?)
}
