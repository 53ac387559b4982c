//! Tenants may write annotations; they may not write plans. Plugins may write GpuNodes and the labels of Nodes; only
//! their own.

use anyhow::{Result, ensure};
use k8s_openapi::api::core::v1::{Node, Pod};
use kube::api::{Patch, PatchParams};
use kube::{Api, Client};
use serde_json::{Value, json};
use stowage_cluster_tests::{Cluster, Scenario, TokenBoundTo, apply, scenarios};
use stowage_shared::contract::PLAN_ANNOTATION;

use super::Stage;
use super::stowage::pods::{self, By};
use super::stowage::{LIMIT, TOKEN_TTL, look};

pub(crate) fn all() -> Vec<Scenario<Stage>> {
    scenarios![
        a_tenant_can_neither_forge_nor_change_a_plan,
        a_plugin_writes_only_its_own_gpu_node,
        a_plugin_labels_only_its_own_node_and_only_about_gpus
    ]
}

const TENANT: &str = r"
apiVersion: v1
kind: ServiceAccount
metadata: {name: tenant, namespace: default}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: RoleBinding
metadata: {name: tenant, namespace: default}
roleRef: {apiGroup: rbac.authorization.k8s.io, kind: ClusterRole, name: edit}
subjects: [{kind: ServiceAccount, name: tenant, namespace: default}]
";

async fn a_tenant_can_neither_forge_nor_change_a_plan(stage: &mut Stage) -> Result<()> {
    let cluster = stage.fresh().await?.0;
    cluster.apply(apply::parse(TENANT)?).await?;
    let kubeconfig =
        cluster.service_account_kubeconfig("default", "tenant", TOKEN_TTL, TokenBoundTo::Nothing).await?;
    let tenant: Api<Pod> = Api::namespaced(cluster.client_of(&kubeconfig).await?, "default");

    pods::create(cluster, "honest", pods::spec(By::Stowage, "gpu.shared", 1)).await?;
    let honest = pods::all_running(cluster, 1, LIMIT).await?;
    let plan = honest[0].metadata.annotations.clone().unwrap_or_default().remove(PLAN_ANNOTATION);
    let plan = plan.unwrap_or_default();
    let patch = |text: &str| Patch::Merge(json!({"metadata": {"annotations": {PLAN_ANNOTATION: text}}}));
    let changed = tenant.patch("honest", &PatchParams::default(), &patch("{}")).await;
    ensure!(is_refused(&changed), "a tenant changed a plan: {changed:?}");

    // A copied plan is let in with a new pod and is no plan for it: the pod still gets one of its own.
    let mut spec = pods::spec(By::Stowage, "gpu.shared", 1);
    spec["containers"][0]["name"] = "main".into();
    let forged = json!({
        "metadata": {"name": "forged", "labels": {"stowage-test": "yes"}, "annotations": {PLAN_ANNOTATION: plan}},
        "spec": spec,
    });
    tenant.create(&kube::api::PostParams::default(), &serde_json::from_value(forged)?).await?;
    let running = pods::all_running(cluster, 2, LIMIT).await?;
    look::containers_see_their_plans(cluster, &running).await?;
    look::audit_is_clean(cluster).await?;
    pods::delete_all(cluster, LIMIT).await
}

async fn a_plugin_writes_only_its_own_gpu_node(stage: &mut Stage) -> Result<()> {
    let plugin = look::gpu_nodes(plugin_of_gpu_node_1(stage.fresh().await?.0).await?);
    let lie = Patch::Merge(json!({"status": {"pluginVersion": "a lie"}}));
    let other = plugin.patch_status("gpu-node-2", &PatchParams::default(), &lie).await;
    ensure!(is_refused(&other), "the plugin of gpu-node-1 wrote for gpu-node-2: {other:?}");
    plugin.patch_status("gpu-node-1", &PatchParams::default(), &Patch::Merge(json!({"status": {}}))).await?;
    Ok(())
}

async fn a_plugin_labels_only_its_own_node_and_only_about_gpus(stage: &mut Stage) -> Result<()> {
    let nodes: Api<Node> = Api::all(plugin_of_gpu_node_1(stage.fresh().await?.0).await?);
    let apply = async |node: &str, mut change: Value| {
        change["name"] = node.into();
        let params = PatchParams::apply("stowage-device-plugin").force();
        let object = json!({"apiVersion": "v1", "kind": "Node", "metadata": change});
        nodes.patch_metadata(node, &params, &Patch::Apply(object)).await
    };
    let label = |key: &str| json!({"labels": {key: "x"}});
    apply("gpu-node-1", label("nvidia.com/gpu.trusted")).await?;
    for (what, node, change) in [
        ("labelled another node", "gpu-node-2", label("nvidia.com/gpu.trusted")),
        ("made a Node", "gpu-node-9", label("nvidia.com/gpu.trusted")),
        ("wrote a label of somebody else's", "gpu-node-1", label("kubernetes.io/arch")),
        ("chose its own configuration", "gpu-node-1", label("nvidia.com/device-plugin.config")),
        ("annotated", "gpu-node-1", json!({"annotations": {"nvidia.com/x": "x"}})),
    ] {
        let done = apply(node, change).await;
        ensure!(is_refused(&done), "the plugin of gpu-node-1 {what}: {done:?}");
    }
    let taint = Patch::Merge(json!({"spec": {"taints": [{"key": "x", "effect": "NoExecute"}]}}));
    let tainted = nodes.patch("gpu-node-1", &PatchParams::default(), &taint).await;
    ensure!(is_refused(&tainted), "the plugin of gpu-node-1 tainted its node: {tainted:?}");
    // What it no longer names goes.
    let left = apply("gpu-node-1", json!({"labels": {"nvidia.com/gpu.other": "x"}})).await?;
    let labels = left.metadata.labels.unwrap_or_default();
    ensure!(!labels.contains_key("nvidia.com/gpu.trusted"), "an old label stayed: {labels:?}");
    apply("gpu-node-1", json!({})).await?;
    Ok(())
}

/// What the plugin of that node is to the API server.
async fn plugin_of_gpu_node_1(cluster: &Cluster) -> Result<Client> {
    let nodes: Api<Node> = Api::all(cluster.client());
    let uid = nodes.get("gpu-node-1").await?.metadata.uid.unwrap_or_default();
    let bound_to = TokenBoundTo::Node { name: "gpu-node-1".into(), uid };
    let account = "stowage-device-plugin";
    let kubeconfig = cluster.service_account_kubeconfig(account, account, TOKEN_TTL, bound_to).await?;
    cluster.client_of(&kubeconfig).await
}

/// Refused by a policy (422) or by rights (403).
fn is_refused<T>(result: &Result<T, kube::Error>) -> bool {
    matches!(result, Err(kube::Error::Api(status)) if status.code == 403 || status.code == 422)
}
