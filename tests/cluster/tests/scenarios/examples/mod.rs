//! Each file of `deploy/examples` on the real cluster, with a stub in the place of each model server.

mod stub;

use anyhow::{Context, Result, ensure};
use k8s_openapi::api::core::v1::Pod;
use kube::Api;
use kube::api::{DeleteParams, DynamicObject, ListParams};
use kube::core::GroupVersionKind;
use kube::discovery;
use serde_json::{Value, json};
use stowage_cluster_tests::{Cluster, Scenario, scenarios};
use stowage_shared::contract::PLAN_ANNOTATION;

use super::Stage;
use super::stowage::{LIMIT, look, pods};
use stub::LABEL;

pub(crate) fn all() -> Vec<Scenario<Stage>> {
    scenarios![every_example_runs_and_its_pods_with_gpus_have_plans]
}

async fn every_example_runs_and_its_pods_with_gpus_have_plans(stage: &mut Stage) -> Result<()> {
    let (cluster, _) = stage.fresh().await?;
    let secret = json!({
        "apiVersion": "v1", "kind": "Secret", "metadata": {"name": "elastic"},
        "stringData": {"user": "u", "password": "p", "ca.crt": "c"},
    });
    cluster.apply(vec![secret]).await?;
    let mut with_gpus = 0;
    for (name, objects) in stub::examples()? {
        let run = run(cluster, &name, &objects).await.with_context(|| format!("in {name}.yaml"))?;
        eprintln!("{name}: {} objects, {run} pods with GPUs", objects.len());
        with_gpus += run;
    }
    ensure!(with_gpus > 20, "only {with_gpus} pods of all examples had GPUs");
    let all: Api<Pod> = Api::namespaced(cluster.client(), "default");
    cluster
        .wait_until(LIMIT, "the examples' pods to be gone", &[], async || {
            let left = all.list(&ListParams::default().labels(LABEL)).await?.items.len();
            ensure!(left == 0, "{left} are left");
            Ok(())
        })
        .await?;
    look::audit_is_clean(cluster).await
}

/// Applies the objects of one example, waits until they run, and begins to take them away: how many of its pods had GPUs.
async fn run(cluster: &Cluster, example: &str, objects: &[Value]) -> Result<usize> {
    cluster.apply(objects.to_vec()).await?;
    for object in objects {
        cluster.wait_until(LIMIT, &label(object), &[], async || is_running(cluster, object).await).await?;
    }
    let with_gpus = pods_with_gpus(cluster, example).await?;
    for pod in &with_gpus {
        let annotations = pod.metadata.annotations.as_ref();
        ensure!(
            annotations.is_some_and(|all| all.contains_key(PLAN_ANNOTATION)),
            "{} has no plan",
            pods::name(pod)
        );
    }
    look::audit_is_clean(cluster).await?;
    for object in objects {
        let api = api_of(cluster, object).await?;
        let name = object["metadata"]["name"].as_str().context("an object without a name")?;
        api.delete(name, &DeleteParams::background()).await?;
    }
    Ok(with_gpus.len())
}

fn label(object: &Value) -> String {
    format!("{} {} to run", object["kind"], object["metadata"]["name"])
}

/// Whether all pods of a workload are ready, or a Job has done its work.
async fn is_running(cluster: &Cluster, object: &Value) -> Result<()> {
    let counts: [(&str, &str); 2] = match object["kind"].as_str() {
        Some("Deployment") => [("/spec/replicas", "/status/availableReplicas"), ("", "")],
        Some("StatefulSet") => [("/spec/replicas", "/status/readyReplicas"), ("", "")],
        Some("DaemonSet") => {
            [("/status/desiredNumberScheduled", "/status/numberReady"), ("", "/status/numberReady")]
        }
        Some("Job") => [("/spec/completions", "/status/succeeded"), ("", "")],
        _ => return Ok(()),
    };
    let name = object["metadata"]["name"].as_str().unwrap_or_default();
    let now = serde_json::to_value(api_of(cluster, object).await?.get(name).await?)?;
    let count = |pointer: &str| now.pointer(pointer).and_then(Value::as_u64);
    for (want, got) in counts.into_iter().filter(|(_, got)| !got.is_empty()) {
        let (want, got) = (count(want).unwrap_or(1), count(got).unwrap_or(0));
        ensure!(got >= want.max(1), "{got} of {want}; {}", waiting(cluster).await?);
    }
    Ok(())
}

/// What the first pod that does not run waits for.
async fn waiting(cluster: &Cluster) -> Result<String> {
    let all: Api<Pod> = Api::namespaced(cluster.client(), "default");
    let pods = all.list(&ListParams::default().labels(LABEL)).await?.items;
    let waiting = pods.iter().find(|pod| pods::phase(pod) != "Running");
    Ok(waiting.map_or_else(String::new, |pod| {
        format!("{}; {}", pods::describe(pod), pods::waits_for(pod).unwrap_or_default())
    }))
}

async fn pods_with_gpus(cluster: &Cluster, example: &str) -> Result<Vec<Pod>> {
    let all: Api<Pod> = Api::namespaced(cluster.client(), "default");
    let mut pods = all.list(&ListParams::default().labels(&format!("{LABEL}={example}"))).await?.items;
    pods.retain(|pod| {
        let containers = pod.spec.iter().flat_map(|spec| &spec.containers);
        let mut limits = containers.filter_map(|container| container.resources.as_ref()?.limits.as_ref());
        limits.any(|limits| limits.keys().any(|name| name.starts_with("nvidia.com/")))
    });
    Ok(pods)
}

async fn api_of(cluster: &Cluster, object: &Value) -> Result<Api<DynamicObject>> {
    let object: DynamicObject = serde_json::from_value(object.clone())?;
    let types = object.types.context("an object without apiVersion and kind")?;
    let kind = GroupVersionKind::try_from(&types)?;
    let (resource, capabilities) = discovery::pinned_kind(&cluster.client(), &kind).await?;
    Ok(match capabilities.scope {
        discovery::Scope::Cluster => Api::all_with(cluster.client(), &resource),
        discovery::Scope::Namespaced => Api::namespaced_with(cluster.client(), "default", &resource),
    })
}
