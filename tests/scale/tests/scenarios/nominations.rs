//! Nominating ahead: what Stowage relies on in kube-scheduler and the API server, which differs from minor to minor.
//!
//! `status.nominatedNodeName` is kube-scheduler's own field. That a pod is tried on that node first and alone, whoever wrote
//! it, is what all of this rests on. Who takes a nomination back that is of no use, and whether the field outlives the
//! Binding, differs; so it is seen here on the minor that is under test, and said aloud.

use std::time::Instant;

use anyhow::{Context, Result, ensure};
use k8s_openapi::api::core::v1::{Node, Pod};
use kube::Api;
use serde_json::{Value, json};
use stowage_cluster_tests::{Election, Scenario, apply, scenarios};
use stowage_scale::inventory::WHOLE;
use stowage_scale::programs::{Pair, Setup};
use stowage_scale::{fill, shapes};

use super::{LIMIT, NODES, Stage};

/// Pods of a wave that is nominated before anybody schedules.
const WAVE: usize = 40;

/// For pods that may preempt nobody.
const PATIENT: &str = r"
apiVersion: scheduling.k8s.io/v1
kind: PriorityClass
metadata: {name: patient}
value: 0
preemptionPolicy: Never
";

pub(crate) fn all() -> Vec<Scenario<Stage>> {
    scenarios![
        nominated_pods_are_tried_on_one_node_alone_and_land_there,
        a_pod_whose_nominated_node_was_cordoned_lands_on_another,
        nominations_of_pods_that_fit_nowhere_end_and_the_pods_are_bound_once_they_fit,
        a_pod_that_was_refused_is_bound_once_a_node_takes_it,
    ]
}

async fn nominated_pods_are_tried_on_one_node_alone_and_land_there(stage: &mut Stage) -> Result<()> {
    stage.fresh().await?;
    let pair = planner(stage).await?;
    fill::pods(&stage.cluster.client(), (0..WAVE).map(|n| shapes::mixed_pod("ahead", n))).await?;
    stage
        .hollow
        .wait(LIMIT, "every pod to be nominated", |state| {
            let nominated = state.record.fates.values().filter(|fate| fate.nominated.is_some()).count();
            ensure!(nominated == WAVE, "{nominated} are");
            Ok(())
        })
        .await?;
    let before = calls(&pair).await?;
    schedule(stage, &pair).await?;
    stage.all_bound(WAVE).await?;
    let after = calls(&pair).await?;
    let (filters, prioritizes) = (after.0 - before.0, after.1 - before.1);
    ensure!(
        (filters, prioritizes) == (WAVE as u64, 0),
        "{filters} filter and {prioritizes} prioritize calls for {WAVE} pods"
    );
    {
        let state = stage.hollow.state();
        ensure!(state.record.on_nominated == WAVE, "{} are on their nodes", state.record.on_nominated);
        let (counts, surprises) = (state.counts, state.surprises.join("\n"));
        ensure!(counts.as_planned == WAVE, "not as planned: {counts:?}\n{surprises}");
    }
    let kept = pods(stage).list(&Default::default()).await?;
    let kept = kept.items.iter().filter(|pod| is_new(pod) && nomination(pod).is_some()).count();
    eprintln!("({kept} of {WAVE} bound pods keep their nomination)");
    // What bound pods keep holds no room: as many again find theirs.
    fill::pods(&stage.cluster.client(), (0..WAVE).map(|n| shapes::mixed_pod("again", n))).await?;
    stage.all_bound(2 * WAVE).await?;
    let counts = stage.hollow.state().counts;
    ensure!(counts.as_planned == 2 * WAVE, "not as planned: {counts:?}");
    stage.audit_is_clean().await
}

async fn a_pod_whose_nominated_node_was_cordoned_lands_on_another(stage: &mut Stage) -> Result<()> {
    stage.fresh().await?;
    let pair = planner(stage).await?;
    create(stage, "moves", json!({})).await?;
    let node = nominated(stage, "moves").await?;
    nodes(stage).cordon(&node).await?;
    schedule(stage, &pair).await?;
    stage.all_bound(1).await?;
    nodes(stage).uncordon(&node).await?;
    let landed = stage.hollow.state().record.fates.get("moves").and_then(|fate| fate.node.clone());
    ensure!(landed.as_ref().is_some_and(|landed| *landed != node), "nominated to {node}, is on {landed:?}");
    stage.audit_is_clean().await
}

/// kube-scheduler takes a nomination back where it has looked for victims in vain. A pod that may have none keeps it, and
/// Stowage takes it back.
async fn nominations_of_pods_that_fit_nowhere_end_and_the_pods_are_bound_once_they_fit(
    stage: &mut Stage,
) -> Result<()> {
    const ONLY: [(&str, &str); 2] = [("waits", "gpu-node-00007"), ("waits-patiently", "gpu-node-00008")];
    stage.fresh().await?;
    stage.cluster.apply(apply::parse(PATIENT)?).await?;
    let pair = planner(stage).await?;
    for (name, only) in ONLY {
        let class = if name == "waits" { Value::Null } else { "patient".into() };
        let selector = json!({"kubernetes.io/hostname": only});
        create(stage, name, json!({"nodeSelector": selector, "priorityClassName": class})).await?;
        let node = nominated(stage, name).await?;
        ensure!(node == only, "{name} is nominated to {node}, which it does not select");
        nodes(stage).cordon(only).await?;
    }
    schedule(stage, &pair).await?;
    let scheduling = Instant::now();
    for (name, _) in ONLY {
        stage
            .cluster
            .wait_until(LIMIT, "the nomination to end", &[&pair.scheduler.process], async || {
                let node = nomination(&pods(stage).get(name).await?);
                ensure!(node.is_none(), "{name} is nominated to {node:?}");
                Ok(())
            })
            .await?;
        let ours = pair.extender_metrics().await?;
        let ours = ours.sum("stowage_scheduler_extender_nominations_total", &["outcome=\"expired\""]);
        let took = scheduling.elapsed().as_secs_f64();
        eprintln!("({name}: no longer nominated after {took:.1} s; {ours} taken back by Stowage so far)");
    }
    for (_, only) in ONLY {
        nodes(stage).uncordon(only).await?;
    }
    stage.all_bound(ONLY.len()).await?;
    stage.audit_is_clean().await
}

async fn a_pod_that_was_refused_is_bound_once_a_node_takes_it(stage: &mut Stage) -> Result<()> {
    const ONLY: &str = "gpu-node-00008";
    stage.fresh().await?;
    let pair = Pair::start(&stage.cluster, &stage.built, Setup::Nominate, 0, Election::None).await?;
    nodes(stage).cordon(ONLY).await?;
    create(stage, "refused", json!({"nodeSelector": {"kubernetes.io/hostname": ONLY}})).await?;
    stage
        .hollow
        .wait(LIMIT, "the pod to be refused", |state| {
            ensure!(state.record.refused() == 1, "it is not");
            Ok(())
        })
        .await?;
    // Now the planner nominates it while kube-scheduler has it set aside, and both look at once.
    nodes(stage).uncordon(ONLY).await?;
    stage.all_bound(1).await?;
    drop(pair);
    stage.audit_is_clean().await
}

/// A pair whose planner works while its kube-scheduler does not: so the planner is certainly first.
async fn planner(stage: &Stage) -> Result<Pair> {
    let pair = Pair::start(&stage.cluster, &stage.built, Setup::Nominate, 0, Election::None).await?;
    pair.scheduler.process.kill()?;
    Ok(pair)
}

async fn schedule(stage: &Stage, pair: &Pair) -> Result<()> {
    pair.scheduler.process.restart()?;
    let running = [&pair.scheduler.process];
    let ready = async || pair.scheduler_metrics().await.map(drop);
    stage.cluster.wait_until(LIMIT, "kube-scheduler to be back", &running, ready).await
}

/// Creates a pod that asks for one GPU, with what else its spec is to say.
async fn create(stage: &Stage, name: &str, spec: Value) -> Result<()> {
    let mut pod = shapes::pod(name, &json!({WHOLE: "1", "cpu": "500m", "memory": "1Gi"}));
    pod["metadata"]["labels"] = json!({shapes::LABEL: name});
    for (key, value) in spec.as_object().into_iter().flatten() {
        pod["spec"][key] = value.clone();
    }
    fill::pods(&stage.cluster.client(), [pod]).await
}

/// Waits until a pod is nominated and answers with the node.
async fn nominated(stage: &Stage, name: &str) -> Result<String> {
    stage
        .hollow
        .wait(LIMIT, "the pod to be nominated", |state| {
            state.record.fates.get(name).and_then(|fate| fate.nominated.clone()).context("it is not")
        })
        .await
}

/// What kube-scheduler has asked: filter and prioritize.
async fn calls(pair: &Pair) -> Result<(u64, u64)> {
    let metrics = pair.extender_metrics().await?;
    // Counters of requests are whole and small.
    let of = |verb| metrics.sum("stowage_scheduler_extender_requests_total", &[verb]) as u64;
    Ok((of("verb=\"filter\""), of("verb=\"prioritize\"")))
}

fn nomination(pod: &Pod) -> Option<String> {
    pod.status.as_ref()?.nominated_node_name.clone().filter(|node| !node.is_empty())
}

/// Whether a pod is none of those that were there from the start.
fn is_new(pod: &Pod) -> bool {
    pod.metadata.labels.as_ref().is_some_and(|labels| labels.contains_key(shapes::LABEL))
}

fn pods(stage: &Stage) -> Api<Pod> {
    Api::default_namespaced(stage.cluster.client())
}

fn nodes(stage: &Stage) -> Api<Node> {
    Api::all(stage.cluster.client())
}

const _: () = assert!(NODES > 8, "there are the nodes that are named here");
