//! The admission policies, in the CEL of the API server that is under test: the extender's account may nominate pods and
//! write deletion costs, a plugin its own GpuNode and its own Node's labels, and nothing else.

use std::time::Duration;

use anyhow::{Result, ensure};
use k8s_openapi::api::core::v1::{Node, Pod};
use kube::api::{DynamicObject, Patch, PatchParams};
use kube::core::{ApiResource, GroupVersionKind};
use kube::{Api, Client};
use serde_json::{Value, json};
use stowage_cluster_tests::{Scenario, TokenBoundTo, apply, scenarios};
use stowage_scale::{cluster, fill, shapes};
use stowage_shared::contract::{API_GROUP, API_VERSION};
use stowage_shared::gpu_node::{KIND, PLURAL};

use super::{NODES, Stage};

const TOKEN_TTL: Duration = Duration::from_secs(3600);
const OWN: &str = "gpu-node-00001";
const OTHER: &str = "gpu-node-00002";

pub(crate) fn all() -> Vec<Scenario<Stage>> {
    scenarios![
        the_extender_writes_only_what_it_plans_ahead,
        a_plugin_writes_only_its_own_gpu_node,
        a_plugin_labels_only_its_own_node_and_only_about_gpus,
    ]
}

async fn the_extender_writes_only_what_it_plans_ahead(stage: &mut Stage) -> Result<()> {
    stage.fresh().await?;
    for name in ["lease.yaml", "nominate.yaml", "preemption.yaml", "drain-scale-downs.yaml"] {
        let path = cluster::deploy().join("options").join(name);
        stage.cluster.apply(apply::read_manifests(&path)?).await?;
    }
    let extender = account(stage, "stowage-system", "stowage-scheduler-extender", TokenBoundTo::Nothing);
    let ours: Api<Pod> = Api::namespaced(extender.await?, "default");
    let mut pod = shapes::mixed_pod("waits", 0);
    // Of a scheduler that nobody runs.
    pod["spec"]["schedulerName"] = "nobody".into();
    pod["spec"]["containers"][0]["resources"]["limits"]["example.com/nic"] = "1".into();
    fill::pods(&stage.cluster.client(), [pod]).await?;
    let (name, params) = ("waits-00000", PatchParams::default());
    let status = async |change: Value| {
        ours.patch_status(name, &params, &Patch::Merge(json!({ "status": change }))).await
    };
    let object = async |change: Value| ours.patch(name, &params, &Patch::Merge(change)).await;
    status(json!({ "nominatedNodeName": OWN })).await?;
    // What a kube-scheduler beside it writes of a resource that a DRA driver gives; before 1.36 it is dropped.
    let claimed = json!([{ "containerName": "main", "resourceName": "example.com/nic", "requestName": "r" }]);
    let claim = json!({ "resourceClaimName": "c", "requestMappings": claimed });
    status(json!({ "extendedResourceClaimStatus": claim })).await?;
    let cost = |text: &str| {
        json!({ "metadata": { "annotations": {
            "controller.kubernetes.io/pod-deletion-cost": text, "stowage.dev/pod-deletion-cost": text } } })
    };
    object(cost("-8")).await?;
    object(cost("-4")).await?;
    status(json!({ "nominatedNodeName": null })).await?;
    for (what, done) in [
        ("its phase", status(json!({ "phase": "Running" })).await),
        ("a condition", status(json!({ "conditions": [{ "type": "Ready", "status": "True" }] })).await),
        ("its message", status(json!({ "message": "x" })).await),
        ("a label", object(json!({ "metadata": { "labels": { "x": "y" } } })).await),
        ("another annotation", object(json!({ "metadata": { "annotations": { "x": "y" } } })).await),
        (
            "its image",
            object(json!({ "spec": { "containers": [{ "name": "main", "image": "other" }] } })).await,
        ),
    ] {
        ensure!(is_refused(&done), "the extender wrote {what}: {done:?}");
    }
    // What a person wrote stays.
    let theirs: Api<Pod> = Api::namespaced(stage.cluster.client(), "default");
    let own = json!({ "metadata": { "annotations": { "controller.kubernetes.io/pod-deletion-cost": "7" } } });
    theirs.patch(name, &params, &Patch::Merge(own)).await?;
    let written = object(cost("-2")).await;
    ensure!(is_refused(&written), "the extender wrote over what a person wrote: {written:?}");
    Ok(())
}

async fn a_plugin_writes_only_its_own_gpu_node(stage: &mut Stage) -> Result<()> {
    let kind =
        ApiResource::from_gvk_with_plural(&GroupVersionKind::gvk(API_GROUP, API_VERSION, KIND), PLURAL);
    let gpu_nodes: Api<DynamicObject> = Api::all_with(plugin(stage).await?, &kind);
    let lie = Patch::Merge(json!({"status": {"pluginVersion": "a lie"}}));
    let other = gpu_nodes.patch_status(OTHER, &PatchParams::default(), &lie).await;
    ensure!(is_refused(&other), "the plugin of {OWN} wrote for {OTHER}: {other:?}");
    gpu_nodes.patch_status(OWN, &PatchParams::default(), &Patch::Merge(json!({"status": {}}))).await?;
    Ok(())
}

async fn a_plugin_labels_only_its_own_node_and_only_about_gpus(stage: &mut Stage) -> Result<()> {
    let nodes: Api<Node> = Api::all(plugin(stage).await?);
    let apply = async |node: &str, mut change: Value| {
        change["name"] = node.into();
        let params = PatchParams::apply("stowage-device-plugin").force();
        let object = json!({"apiVersion": "v1", "kind": "Node", "metadata": change});
        nodes.patch_metadata(node, &params, &Patch::Apply(object)).await
    };
    let label = |key: &str| json!({"labels": {key: "x"}});
    apply(OWN, label("nvidia.com/gpu.trusted")).await?;
    for (what, node, change) in [
        ("labelled another node", OTHER, label("nvidia.com/gpu.trusted")),
        ("made a Node", "gpu-node-9", label("nvidia.com/gpu.trusted")),
        ("wrote a label of somebody else's", OWN, label("kubernetes.io/arch")),
        ("chose its own configuration", OWN, label("nvidia.com/device-plugin.config")),
        ("annotated", OWN, json!({"annotations": {"nvidia.com/x": "x"}})),
    ] {
        let done = apply(node, change).await;
        ensure!(is_refused(&done), "the plugin of {OWN} {what}: {done:?}");
    }
    let taint = Patch::Merge(json!({"spec": {"taints": [{"key": "x", "effect": "NoExecute"}]}}));
    let tainted = nodes.patch(OWN, &PatchParams::default(), &taint).await;
    ensure!(is_refused(&tainted), "the plugin of {OWN} tainted its node: {tainted:?}");
    // What it no longer names goes.
    let left = apply(OWN, json!({"labels": {"nvidia.com/gpu.other": "x"}})).await?;
    let labels = left.metadata.labels.unwrap_or_default();
    ensure!(!labels.contains_key("nvidia.com/gpu.trusted"), "an old label stayed: {labels:?}");
    apply(OWN, json!({})).await?;
    Ok(())
}

/// What the plugin of [`OWN`] is to the API server.
async fn plugin(stage: &Stage) -> Result<Client> {
    let nodes: Api<Node> = Api::all(stage.cluster.client());
    let uid = nodes.get(OWN).await?.metadata.uid.unwrap_or_default();
    let name = "stowage-device-plugin";
    account(stage, name, name, TokenBoundTo::Node { name: OWN.to_owned(), uid }).await
}

async fn account(stage: &Stage, namespace: &str, name: &str, bound_to: TokenBoundTo) -> Result<Client> {
    let kubeconfig = stage.cluster.service_account_kubeconfig(namespace, name, TOKEN_TTL, bound_to).await?;
    stage.cluster.client_of(&kubeconfig).await
}

/// Refused by a policy (422) or by rights (403).
fn is_refused<T>(result: &Result<T, kube::Error>) -> bool {
    matches!(result, Err(kube::Error::Api(status)) if status.code == 403 || status.code == 422)
}

const _: () = assert!(NODES > 2, "there are the nodes that are named here");
