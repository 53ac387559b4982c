//! Nominating ahead, with the real kube-scheduler: it asks about the nominated node alone, and the pod lands there. And the
//! extender's account may write nothing else of a pod.

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::{Context, Result, ensure};
use k8s_openapi::api::core::v1::Pod;
use kube::Api;
use kube::api::{Patch, PatchParams};
use serde_json::{Value, json};
use stowage_cluster_tests::{Cluster, Scenario, TokenBoundTo, apply, scenarios};

use super::Stage;
use super::stowage::pods::{self, By};
use super::stowage::{EXTENDER_HTTP, LIMIT, TOKEN_TTL, extender, look};

pub(crate) fn all() -> Vec<Scenario<Stage>> {
    scenarios![
        a_nominated_pod_is_asked_about_on_one_node_and_lands_there,
        the_extender_writes_only_what_it_plans_ahead
    ]
}

/// What the pods ask for.
const WANTED: [(&str, u32); 6] =
    [("gpu", 1), ("gpu", 2), ("gpu.shared", 1), ("gpu.shared", 1), ("mig-1g.5gb", 1), ("mig-3g.20gb", 1)];

async fn a_nominated_pod_is_asked_about_on_one_node_and_lands_there(stage: &mut Stage) -> Result<()> {
    let (cluster, stowage) = stage.fresh().await?;
    grant(cluster).await?;
    stowage.extender.terminate(LIMIT).await?;
    let program = extender(cluster).await?.arg("--nominate");
    let planner = cluster.start_program(program)?;
    cluster
        .wait_until(LIMIT, "the planner to be ready", &[&planner], async || {
            look::http_ok(EXTENDER_HTTP, "/readyz").await
        })
        .await?;
    // While nobody schedules, the planner is certainly first.
    stowage.scheduler.kill()?;
    for (i, (resource, count)) in WANTED.into_iter().enumerate() {
        pods::create(cluster, &format!("ahead-{i}"), pods::spec(By::Stowage, resource, count)).await?;
    }
    let nominated = cluster
        .wait_until(LIMIT, "every pod to be nominated", &[&planner], async || {
            let nominated: BTreeMap<String, String> = pods::list(cluster)
                .await?
                .iter()
                .filter_map(|pod| {
                    Some((pods::name(pod).to_owned(), pod.status.as_ref()?.nominated_node_name.clone()?))
                })
                .collect();
            ensure!(nominated.len() == WANTED.len(), "{nominated:?}");
            Ok(nominated)
        })
        .await?;
    let before = (asked("filter").await?, asked("prioritize").await?);
    stowage.scheduler.restart()?;
    let running = pods::all_running(cluster, WANTED.len(), LIMIT).await?;
    for pod in &running {
        let want = &nominated[pods::name(pod)];
        ensure!(
            pods::node(pod) == want,
            "{} was nominated to {want}: {}",
            pods::name(pod),
            pods::describe(pod)
        );
    }
    let after = (asked("filter").await?, asked("prioritize").await?);
    let (filters, prioritizes) = (after.0 - before.0, after.1 - before.1);
    ensure!((filters, prioritizes) == (WANTED.len(), 0), "{filters} filters, {prioritizes} prioritizes");
    cluster
        .wait_until(LIMIT, "the metric", &[&planner], async || {
            let metrics = look::http_text(EXTENDER_HTTP, "/metrics").await?;
            let line = format!(
                r#"stowage_scheduler_extender_nominations_total{{outcome="on_node"}} {}"#,
                WANTED.len()
            );
            ensure!(metrics.contains(&line), "no {line}");
            Ok(())
        })
        .await?;
    look::containers_see_their_plans(cluster, &running).await?;
    look::audit_is_clean(cluster).await?;
    pods::delete_all(cluster, LIMIT).await?;
    planner.terminate(LIMIT).await?;
    stowage.extender.restart()?;
    stowage.wait_healthy(cluster).await
}

/// How often kube-scheduler has called a verb.
async fn asked(verb: &str) -> Result<usize> {
    let metrics = look::http_text(EXTENDER_HTTP, "/metrics").await?;
    let start = format!(r#"stowage_scheduler_extender_requests_total{{verb="{verb}",result="ok"}} "#);
    let count = metrics.lines().find_map(|line| line.strip_prefix(&start));
    Ok(count.map_or(Ok(0), str::parse)?)
}

/// Applies what the flags need.
pub(crate) async fn grant(cluster: &Cluster) -> Result<()> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../deploy/options");
    for name in ["lease.yaml", "nominate.yaml", "preemption.yaml", "drain-scale-downs.yaml"] {
        let documents = apply::read_manifests(&folder.join(name))?;
        cluster.apply(documents).await.with_context(|| format!("cannot apply {name}"))?;
    }
    Ok(())
}

async fn the_extender_writes_only_what_it_plans_ahead(stage: &mut Stage) -> Result<()> {
    let (cluster, _) = stage.fresh().await?;
    grant(cluster).await?;
    let account = ("stowage-system", "stowage-scheduler-extender");
    let kubeconfig =
        cluster.service_account_kubeconfig(account.0, account.1, TOKEN_TTL, TokenBoundTo::Nothing).await?;
    let ours: Api<Pod> = Api::namespaced(cluster.client_of(&kubeconfig).await?, "default");
    // Of a scheduler that nobody runs.
    let mut spec = pods::spec(By::Stowage, "gpu.shared", 1);
    spec["schedulerName"] = "nobody".into();
    pods::create(cluster, "waits", spec).await?;
    let params = PatchParams::default();
    let status = async |change: Value| {
        ours.patch_status("waits", &params, &Patch::Merge(json!({ "status": change }))).await
    };
    let object = async |change: Value| ours.patch("waits", &params, &Patch::Merge(change)).await;
    status(json!({ "nominatedNodeName": "gpu-node-1" })).await?;
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
        let refused =
            matches!(&done, Err(kube::Error::Api(status)) if status.code == 403 || status.code == 422);
        ensure!(refused, "the extender wrote {what}: {done:?}");
    }
    // What a person wrote stays.
    let theirs: Api<Pod> = Api::namespaced(cluster.client(), "default");
    let own = json!({ "metadata": { "annotations": { "controller.kubernetes.io/pod-deletion-cost": "7" } } });
    theirs.patch("waits", &params, &Patch::Merge(own)).await?;
    ensure!(object(cost("-2")).await.is_err(), "the extender wrote over what a person wrote");
    pods::delete_all(cluster, LIMIT).await
}
