//! Nominating ahead, with the real kube-scheduler: it asks about the nominated node alone, and the pod runs there. What
//! differs from minor to minor is seen in `tests/scale`.

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::{Context, Result, ensure};
use stowage_cluster_tests::{Cluster, Scenario, apply, scenarios};

use super::Stage;
use super::stowage::pods::{self, By};
use super::stowage::{EXTENDER_HTTP, LIMIT, extender, look};

pub(crate) fn all() -> Vec<Scenario<Stage>> {
    scenarios![a_nominated_pod_is_asked_about_on_one_node_and_lands_there]
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
