//! The audit of a whole hollow cluster, from what the API server has.

use std::collections::HashMap;

use anyhow::{Context, Result};
use k8s_openapi::api::core::v1::Pod;
use kube::api::{ApiResource, GroupVersionKind, ListParams};
use kube::core::Object;
use kube::{Api, Client};
use stowage_shared::audit::{Finding, NodeView, PodView, audit};
use stowage_shared::contract::{API_GROUP, API_VERSION};
use stowage_shared::gpu_node::{GpuNodeSpec, GpuNodeStatus, KIND, PLURAL};
use stowage_shared::pod::{PodSpec, PodStatus};

type SlimPod = Object<PodSpec, PodStatus>;
type GpuNode = Object<GpuNodeSpec, GpuNodeStatus>;

/// Lists every broken invariant of every node.
///
/// # Errors
/// When the API server does not answer, or a GpuNode cannot be believed.
pub async fn findings(client: &Client) -> Result<Vec<Finding>> {
    Ok(views(client).await?.iter().flat_map(audit).collect())
}

/// Each node as the audit wants it.
async fn views(client: &Client) -> Result<Vec<NodeView>> {
    let pods: Api<SlimPod> = Api::all_with(client.clone(), &ApiResource::erase::<Pod>(&()));
    let mut by_node: HashMap<String, Vec<PodView>> = HashMap::new();
    for pod in pods.list(&ListParams::default()).await? {
        let meta = &pod.metadata;
        let (Some(namespace), Some(name), Some(uid)) = (&meta.namespace, &meta.name, &meta.uid) else {
            continue;
        };
        let annotation = |key: &str| meta.annotations.as_ref()?.get(key).map(String::as_str);
        let status = pod.status.clone().unwrap_or_default();
        let node = pod.spec.node_name.clone();
        if let Some(view) = PodView::of((namespace, name, uid), annotation, &pod.spec, &status, &node) {
            by_node.entry(node).or_default().push(view);
        }
    }
    let gvk = GroupVersionKind::gvk(API_GROUP, API_VERSION, KIND);
    let gpu_nodes: Api<GpuNode> =
        Api::all_with(client.clone(), &ApiResource::from_gvk_with_plural(&gvk, PLURAL));
    let mut views = Vec::new();
    for gpu_node in gpu_nodes.list(&ListParams::default()).await? {
        let node = gpu_node.metadata.name.unwrap_or_default();
        let status = gpu_node.status.with_context(|| format!("GpuNode {node} has no status"))?;
        let pods = by_node.remove(&node).unwrap_or_default();
        views.push(NodeView { gpus: status.inventory()?, allocations: status.allocations, pods, node });
    }
    Ok(views)
}
