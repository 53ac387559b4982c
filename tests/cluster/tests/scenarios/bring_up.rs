//! The cluster itself: what every other scenario takes for granted.

use std::collections::BTreeSet;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::{ConfigMap, Pod};
use kube::Api;
use kube::api::{DeleteParams, ListParams};
use rustix::process::Signal;
use serde_json::{Value, json};
use stowage_cluster_tests::{Scenario, TokenBoundTo, apply, images, scenarios};

use super::Stage;

/// Four pods on a busy machine with two cores.
const LIMIT: Duration = Duration::from_secs(60);
const APP: &str = "one-on-each";

pub(crate) fn all() -> Vec<Scenario<Stage>> {
    scenarios![
        four_real_nodes_run_a_pod_each,
        killing_a_kubelet_leaves_running_pods_alone,
        a_service_account_may_do_what_its_role_says_and_no_more,
        a_deleted_deployment_takes_its_pods_along,
    ]
}

async fn four_real_nodes_run_a_pod_each(stage: &mut Stage) -> Result<()> {
    let cluster = &stage.cluster;
    let pods = four_pods(stage).await?;
    let mut used = BTreeSet::new();
    for pod in &pods {
        let name = pod.metadata.name.as_deref().context("a pod without a name")?;
        let node = pod.spec.as_ref().and_then(|spec| spec.node_name.as_deref()).context("no node")?;
        let environment = cluster.container_env("default", name, "main").await?;
        ensure!(environment.get("NODE").map(String::as_str) == Some(node), "{name}: {environment:?}");
        // The same by way of the API server and the kubelet: what the container itself printed.
        let line = format!("NODE={node}");
        cluster
            .wait_until(LIMIT, "the container's log", &[cluster.node(node)?.kubelet()], async || {
                let log = cluster.container_log("default", name, "main").await?;
                ensure!(log.lines().any(|printed| printed == line), "{log}");
                Ok(())
            })
            .await?;
        used.insert(node.to_owned());
    }
    ensure!(used.len() == 4, "the pods are on {used:?}");
    Ok(())
}

async fn killing_a_kubelet_leaves_running_pods_alone(stage: &mut Stage) -> Result<()> {
    let before = four_pods(stage).await?;
    let node = stage.cluster.node("gpu-node-2")?;
    let old = node.kubelet().pid();
    for signal in [Signal::KILL, Signal::TERM] {
        node.restart_kubelet(signal).await?;
    }
    ensure!(node.kubelet().pid() != old, "the kubelet is still the old one");
    node.wait_ready().await?;
    let after = four_pods(stage).await?;
    ensure!(containers(&before) == containers(&after), "containers changed: {before:?} to {after:?}");
    Ok(())
}

async fn a_service_account_may_do_what_its_role_says_and_no_more(stage: &mut Stage) -> Result<()> {
    let cluster = &stage.cluster;
    let manifests = r"
apiVersion: v1
kind: ServiceAccount
metadata: {name: reader, namespace: reading}
---
apiVersion: v1
kind: Namespace
metadata: {name: reading}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: Role
metadata: {name: reader, namespace: reading}
rules: [{apiGroups: [''], resources: [configmaps], verbs: [list]}]
---
apiVersion: rbac.authorization.k8s.io/v1
kind: RoleBinding
metadata: {name: reader, namespace: reading}
roleRef: {apiGroup: rbac.authorization.k8s.io, kind: Role, name: reader}
subjects: [{kind: ServiceAccount, name: reader, namespace: reading}]
";
    cluster.apply(apply::parse(manifests)?).await?;
    let nodes: Api<k8s_openapi::api::core::v1::Node> = Api::all(cluster.client());
    let uid = nodes.get("gpu-node-1").await?.metadata.uid.context("a Node without a UID")?;
    let bound_to = TokenBoundTo::Node { name: "gpu-node-1".to_owned(), uid };
    let ttl = Duration::from_secs(600);
    let kubeconfig = cluster.service_account_kubeconfig("reading", "reader", ttl, bound_to).await?;
    let reader = cluster.client_of(&kubeconfig).await?;
    let maps: Api<ConfigMap> = Api::namespaced(reader.clone(), "reading");
    // The authorizer's cache learns of a new role a moment later.
    cluster
        .wait_until(LIMIT, "the reader's right to list", &[], async || {
            Ok(maps.list(&ListParams::default()).await.map(drop)?)
        })
        .await?;
    let elsewhere: Api<Pod> = Api::namespaced(reader, "default");
    let refused = elsewhere.list(&ListParams::default()).await;
    ensure!(
        matches!(&refused, Err(kube::Error::Api(status)) if status.code == 403),
        "the reader lists pods of another namespace: {refused:?}"
    );
    Ok(())
}

async fn a_deleted_deployment_takes_its_pods_along(stage: &mut Stage) -> Result<()> {
    four_pods(stage).await?;
    let deployments: Api<Deployment> = Api::namespaced(stage.cluster.client(), "default");
    deployments.delete(APP, &DeleteParams::default()).await?;
    let kubelets: Vec<_> = stage.cluster.nodes().iter().map(|node| node.kubelet()).collect();
    let pods = pods(stage);
    let selector = ListParams::default().labels(&format!("app={APP}"));
    stage
        .cluster
        .wait_until(LIMIT, "no pods", &kubelets, async || {
            let left = pods.list(&selector).await?.items.len();
            ensure!(left == 0, "{left} pods are left");
            Ok(())
        })
        .await
}

fn pods(stage: &Stage) -> Api<Pod> {
    Api::namespaced(stage.cluster.client(), "default")
}

/// Makes sure that a Deployment runs one pod on each node, and returns the pods.
async fn four_pods(stage: &Stage) -> Result<Vec<Pod>> {
    stage.cluster.apply(vec![one_on_each()]).await?;
    let pods = pods(stage);
    let selector = ListParams::default().labels(&format!("app={APP}"));
    let kubelets: Vec<_> = stage.cluster.nodes().iter().map(|node| node.kubelet()).collect();
    stage
        .cluster
        .wait_until(LIMIT, "four running pods", &kubelets, async || {
            let pods = pods.list(&selector).await?.items;
            let running = containers(&pods).len();
            ensure!(running == 4, "{running} of {} pods run", pods.len());
            Ok(pods)
        })
        .await
}

fn one_on_each() -> Value {
    let labels = json!({ "app": APP });
    let node_name = json!({ "fieldRef": { "fieldPath": "spec.nodeName" } });
    json!({
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": { "name": APP },
        "spec": {
            "replicas": 4,
            "selector": { "matchLabels": labels },
            "template": {
                "metadata": { "labels": labels },
                "spec": {
                    "affinity": { "podAntiAffinity": {
                        "requiredDuringSchedulingIgnoredDuringExecution": [{
                            "labelSelector": { "matchLabels": labels },
                            "topologyKey": "kubernetes.io/hostname",
                        }],
                    } },
                    "containers": [{
                        "name": "main",
                        "image": images::BUSYBOX,
                        "imagePullPolicy": "Never",
                        "env": [{ "name": "NODE", "valueFrom": node_name }],
                    }],
                },
            },
        },
    })
}

/// The ids and restart counts of the running containers.
fn containers(pods: &[Pod]) -> BTreeSet<(String, i32)> {
    let statuses = pods.iter().filter_map(|pod| pod.status.as_ref()?.container_statuses.as_ref()).flatten();
    statuses
        .filter(|status| status.state.as_ref().is_some_and(|state| state.running.is_some()))
        .filter_map(|status| Some((status.container_id.clone()?, status.restart_count)))
        .collect()
}
