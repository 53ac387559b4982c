//! The API objects that the demo writes.

use serde_json::{Value, json};
use stowage_shared::contract::SCHEDULER_NAME;

use super::super::play::Way;
use super::super::replicas::Replica;
use super::super::stock::PODS_PER_NODE;

/// The namespace of all pods.
pub const NAMESPACE: &str = "default";
/// The only container of each pod.
pub const CONTAINER: &str = "model";

/// A Node that is Ready, with room for so much.
pub fn node(name: &str, (cores, gib): (i64, i64)) -> Value {
    let amounts = json!({
        "cpu": cores.to_string(),
        "memory": format!("{gib}Gi"),
        "pods": PODS_PER_NODE.to_string(),
    });
    json!({
        "metadata": { "name": name, "labels": { "kubernetes.io/hostname": name } },
        "status": {
            "allocatable": amounts,
            "capacity": amounts,
            "conditions": [{ "type": "Ready", "status": "True", "reason": "KubeletReady" }],
        },
    })
}

/// A pod of a service.
pub fn pod(replica: &Replica, way: Way) -> Value {
    let (milli_cpu, memory_gib) = replica.piece.cpu_and_memory();
    let mut requests = json!({ "cpu": format!("{milli_cpu}m"), "memory": format!("{memory_gib}Gi") });
    let mut limits = json!({});
    if let Some(resource) = way.granted(replica.piece).resource() {
        requests[resource] = "1".into();
        limits[resource] = "1".into();
    }
    let scheduler = match way {
        Way::Whole | Way::Stock => "default-scheduler",
        Way::Stowage => SCHEDULER_NAME,
    };
    json!({
        "metadata": { "name": replica.name, "namespace": NAMESPACE },
        "spec": {
            "schedulerName": scheduler,
            "containers": [{
                "name": CONTAINER,
                "image": "registry.example/model:1",
                "resources": { "requests": requests, "limits": limits },
            }],
        },
    })
}
