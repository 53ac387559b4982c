//! Pods for the scenarios: made, waited for, deleted.

use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use k8s_openapi::api::core::v1::Pod;
use kube::Api;
use kube::api::{DeleteParams, ListParams, PostParams};
use serde_json::{Value, json};
use stowage_cluster_tests::{Cluster, images};

/// Every pod of a scenario carries its label, so that the next one starts from nothing.
const LABEL: &str = "stowage-test";

/// The scheduler that places a pod.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum By {
    Stowage,
    Stock,
}

impl By {
    fn name(self) -> &'static str {
        match self {
            Self::Stowage => "stowage-scheduler",
            Self::Stock => "default-scheduler",
        }
    }
}

/// A pod's spec: sleeps, and asks for `count` of `nvidia.com/<resource>` (for none where it is empty).
pub(crate) fn spec(by: By, resource: &str, count: u32) -> Value {
    let limits =
        if resource.is_empty() { json!({}) } else { json!({ format!("nvidia.com/{resource}"): count }) };
    json!({
        "schedulerName": by.name(),
        "terminationGracePeriodSeconds": 0,
        "containers": [{
            "name": "main",
            "image": images::BUSYBOX,
            "imagePullPolicy": "Never",
            "command": ["/bin/sleep", "100000"],
            "resources": {"limits": limits},
        }],
    })
}

/// A Deployment of such pods.
pub(crate) fn deployment(name: &str, replicas: u32, spec: Value) -> Value {
    let labels = json!({LABEL: "yes", "app": name});
    json!({
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": name},
        "spec": {
            "replicas": replicas,
            "selector": {"matchLabels": {"app": name}},
            "template": {"metadata": {"labels": labels}, "spec": spec},
        },
    })
}

/// Three pods that want a whole GPU, three a slice, three a share.
pub(crate) fn three_of_each() -> [Value; 3] {
    [("dedicated", "gpu"), ("medium", "mig-1g.5gb"), ("small", "gpu.shared")]
        .map(|(name, resource)| deployment(name, 3, spec(By::Stowage, resource, 1)))
}

fn api(cluster: &Cluster) -> Api<Pod> {
    Api::namespaced(cluster.client(), "default")
}

/// Creates a bare pod.
pub(crate) async fn create(cluster: &Cluster, name: &str, spec: Value) -> Result<()> {
    let pod = json!({"metadata": {"name": name, "labels": {LABEL: "yes"}}, "spec": spec});
    let pod: Pod = serde_json::from_value(pod)?;
    api(cluster)
        .create(&PostParams::default(), &pod)
        .await
        .with_context(|| format!("cannot create pod {name}"))?;
    Ok(())
}

/// The pods of scenarios.
pub(crate) async fn list(cluster: &Cluster) -> Result<Vec<Pod>> {
    Ok(api(cluster).list(&ListParams::default().labels(&format!("{LABEL}=yes"))).await?.items)
}

/// Waits until there are `count` pods and all run; a failed pod ends the wait at once.
pub(crate) async fn all_running(cluster: &Cluster, count: usize, limit: Duration) -> Result<Vec<Pod>> {
    let mut failed = None;
    let pods = cluster
        .wait_until(limit, &format!("{count} running pods"), &[], async || {
            let pods = list(cluster).await?;
            if let Some(pod) = pods.iter().find(|pod| phase(pod) == "Failed") {
                failed = Some(describe(pod));
                return Ok(pods);
            }
            let running = pods.iter().filter(|pod| phase(pod) == "Running").count();
            let waiting: Vec<String> =
                pods.iter().filter(|pod| phase(pod) != "Running").take(3).map(describe).collect();
            ensure!(
                running == count && pods.len() == count,
                "{running} of {} run; {}",
                pods.len(),
                waiting.join("; ")
            );
            Ok(pods)
        })
        .await?;
    match failed {
        Some(text) => bail!("a pod failed: {text}"),
        None => Ok(pods),
    }
}

/// Waits until the scheduler has decided about a pod: whether it has a node now, or fits none.
pub(crate) async fn is_scheduled(cluster: &Cluster, name: &str, limit: Duration) -> Result<bool> {
    cluster
        .wait_until(limit, &format!("a decision about {name}"), &[], async || {
            let status = api(cluster).get(name).await?.status.unwrap_or_default();
            let scheduled = status.conditions.iter().flatten().find(|said| said.type_ == "PodScheduled");
            Ok(scheduled.context("nothing is decided yet")?.status == "True")
        })
        .await
}

/// Deletes the pods and Deployments of a scenario and waits until they are gone.
pub(crate) async fn delete_all(cluster: &Cluster, limit: Duration) -> Result<()> {
    delete_all_but(cluster, |_| false, limit).await
}

/// The same, but for the pods of some names.
pub(crate) async fn delete_all_but(
    cluster: &Cluster,
    is_kept: impl Fn(&str) -> bool,
    limit: Duration,
) -> Result<()> {
    let deployments: Api<k8s_openapi::api::apps::v1::Deployment> =
        Api::namespaced(cluster.client(), "default");
    deployments.delete_collection(&DeleteParams::background(), &ListParams::default()).await?;
    cluster
        .wait_until(limit, "the pods to be gone", &[], async || {
            // Again and again: a Deployment's controller may have made one more meanwhile.
            let pods = list(cluster).await?;
            let left: Vec<&str> = pods.iter().map(name).filter(|name| !is_kept(name)).collect();
            for name in &left {
                match api(cluster).delete(name, &DeleteParams::default()).await {
                    Err(kube::Error::Api(status)) if status.code == 404 => {}
                    other => drop(other?),
                }
            }
            ensure!(left.is_empty(), "{} pods are left", left.len());
            Ok(())
        })
        .await
}

/// Deletes one pod.
pub(crate) async fn delete(cluster: &Cluster, name: &str) -> Result<()> {
    api(cluster)
        .delete(name, &DeleteParams::default())
        .await
        .with_context(|| format!("cannot delete pod {name}"))?;
    Ok(())
}

/// Whether a controller made the pod, and so makes another one in its place.
pub(crate) fn has_controller(pod: &Pod) -> bool {
    pod.metadata.owner_references.as_ref().is_some_and(|owners| !owners.is_empty())
}

/// Replaces a failed pod by a new one of the same name and spec, as a controller would.
pub(crate) async fn again(cluster: &Cluster, failed: &Pod) -> Result<()> {
    let name = name(failed);
    let containers = failed.spec.as_ref().map(|spec| &spec.containers).into_iter().flatten();
    let limits = containers.filter_map(|c| c.resources.as_ref()?.limits.clone()).flatten().next();
    let (resource, quantity) = limits.with_context(|| format!("{name} asks for nothing"))?;
    let resource = resource.strip_prefix("nvidia.com/").unwrap_or(&resource);
    api(cluster).delete(name, &DeleteParams::default().grace_period(0)).await?;
    create(cluster, name, spec(By::Stowage, resource, quantity.0.parse()?)).await
}

/// The pod's phase.
pub(crate) fn phase(pod: &Pod) -> &str {
    pod.status.as_ref().and_then(|status| status.phase.as_deref()).unwrap_or("")
}

/// The pod's name.
pub(crate) fn name(pod: &Pod) -> &str {
    pod.metadata.name.as_deref().unwrap_or("")
}

/// The pod's node; empty while it has none.
pub(crate) fn node(pod: &Pod) -> &str {
    pod.spec.as_ref().and_then(|spec| spec.node_name.as_deref()).unwrap_or("")
}

/// Whether the scheduler has found no node for the pod.
pub(crate) fn fits_no_node(pod: &Pod) -> bool {
    let said = pod.status.as_ref().and_then(|status| status.conditions.as_ref()).into_iter().flatten();
    phase(pod) == "Pending" && said.into_iter().any(|c| c.type_ == "PodScheduled" && c.status == "False")
}

/// Why the pod's container does not run yet, in one word of the kubelet's.
pub(crate) fn waits_for(pod: &Pod) -> Option<&str> {
    let container = pod.status.as_ref()?.container_statuses.as_ref()?.first()?;
    container.state.as_ref()?.waiting.as_ref()?.reason.as_deref()
}

/// Name, phase and reason, for a complaint.
pub(crate) fn describe(pod: &Pod) -> String {
    let status = pod.status.clone().unwrap_or_default();
    let conditions = status.conditions.unwrap_or_default();
    let why = conditions.iter().filter(|c| c.status == "False").filter_map(|c| c.message.clone()).next();
    let why = status.message.or(why).unwrap_or_default();
    format!("{} on {:?} is {} {} {why}", name(pod), node(pod), phase(pod), status.reason.unwrap_or_default())
}
