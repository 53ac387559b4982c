//! Small pods lie where a large one would fit: a person moves one of them, or the extender does. And what the commands of
//! `kubectl stowage` say of a live cluster.

use std::fs;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use k8s_openapi::api::events::v1::Event;
use kube::Api;
use kube::api::ListParams;
use serde_json::json;
use stowage_cluster_tests::{Cluster, Program, Scenario, apply, scenarios};

use super::Stage;
use super::stowage::on_demand::{NODE, OnDemand, spec, with_gpus};
use super::stowage::pods::{self, By};
use super::stowage::{EXTENDER_HTTP, LIMIT, NodeFiles, built, deploy, extender, look};

pub(crate) fn all() -> Vec<Scenario<Stage>> {
    scenarios![a_defrag_makes_room_for_a_pod_that_waits, the_extender_moves_a_pod_so_that_one_that_waits_fits]
}

const SMALL: &str = "mig-1g.5gb";
const WHOLE: &str = "mig-7g.40gb";
/// Two A100s, cut on demand.
const TWO: NodeFiles = NodeFiles {
    node: NODE,
    gpus: "seed: 5\ngpus:\n  - {model: a100-40gb, migMode: enabled, count: 2}\n",
    config: "version: v1\nflags: {migStrategy: on-demand, plugin: {deviceListStrategy: cdi-cri}}\n",
    offers: &[("nvidia.com/mig-1g.5gb", 14), ("nvidia.com/mig-7g.40gb", 2)],
};
/// A person's command may wait for pods to end and to start.
const COMMAND: Duration = Duration::from_secs(180);

/// Sets up that one GPU holds one small pod of a Deployment and the other holds two, and that a pod waits which wants a GPU
/// as a whole. `agreed` is what the Deployment's author says about moving them.
async fn fragment(node: &OnDemand<'_>, agreed: bool) -> Result<()> {
    let cluster = node.cluster;
    let small = |replicas| {
        let mut small = pods::deployment("small", replicas, spec(By::Stowage, SMALL));
        small["metadata"]["namespace"] = "default".into();
        if agreed {
            small["spec"]["template"]["metadata"]["annotations"] =
                json!({ "stowage.dev/disruptable": "true" });
        }
        vec![small]
    };
    node.create("first", By::Stowage, WHOLE).await?;
    pods::all_running(cluster, 1, LIMIT).await?;
    cluster.apply(small(2)).await?;
    pods::all_running(cluster, 3, LIMIT).await?;
    for number in 1..=5 {
        node.create(&format!("filler-{number}"), By::Stowage, SMALL).await?;
    }
    pods::all_running(cluster, 8, LIMIT).await?;
    pods::delete(cluster, "first").await?;
    cluster.apply(small(3)).await?;
    pods::all_running(cluster, 8, LIMIT).await?;
    for number in 1..=5 {
        pods::delete(cluster, &format!("filler-{number}")).await?;
    }
    pods::all_running(cluster, 3, LIMIT).await?;
    // Nobody could have either GPU.
    node.until_allocatable(&[("nvidia.com/mig-7g.40gb", 0), ("nvidia.com/mig-1g.5gb", 14)]).await?;
    look::audit_is_clean(cluster).await?;
    node.create("large", By::Stowage, WHOLE).await?;
    ensure!(!pods::is_scheduled(cluster, "large", LIMIT).await?, "the large pod has room");
    Ok(())
}

/// Runs `kubectl-stowage` as a person does, and prints what it says. Answers with that.
async fn run(cluster: &Cluster, name: &str, arguments: &str) -> Result<String> {
    let program = Program::new(format!("kubectl-stowage-{name}"), built("kubectl-stowage")?)
        .args(arguments.split(' '))
        .env("KUBECONFIG", cluster.admin_kubeconfig());
    let process = cluster.start_program(program)?;
    let status = process.wait_exit(COMMAND).await?;
    let said = fs::read_to_string(process.log()).context("what it said is not there")?;
    eprintln!("$ kubectl stowage {arguments}\n{said}");
    ensure!(status.success(), "kubectl stowage {arguments} ended with {status}");
    Ok(said)
}

fn says(said: &str, text: &str) -> Result<()> {
    ensure!(said.contains(text), "it does not say {text:?}");
    Ok(())
}

async fn a_defrag_makes_room_for_a_pod_that_waits(stage: &mut Stage) -> Result<()> {
    let (cluster, stowage) = stage.fresh().await?;
    with_gpus(cluster, stowage, &TWO, async |node| {
        fragment(node, false).await?;
        let explained = run(cluster, "explain", "explain large -n default").await?;
        says(&explained, "Insufficient nvidia.com/mig-7g.40gb")?;
        let file = cluster.folder().join("what-if.yaml");
        let more = json!({
            "apiVersion": "v1", "kind": "Pod", "metadata": { "name": "more", "namespace": "default" },
            "spec": spec(By::Stowage, SMALL),
        });
        fs::write(&file, more.to_string())?;
        let said = run(cluster, "what-if", &format!("what-if -f {}", file.display())).await?;
        says(&said, "default/more")?;
        let proposed = run(cluster, "defrag", "defrag --for large -n default").await?;
        says(&proposed, "lets in default/large on gpu-node-3")?;
        let done = run(cluster, "defrag-apply", "defrag --for large --apply -n default").await?;
        says(&done, "1 pod moved")?;
        pods::all_running(cluster, 4, LIMIT).await?;
        run(cluster, "explain-after", "explain large -n default").await?;
        look::audit_is_clean(cluster).await
    })
    .await
}

async fn the_extender_moves_a_pod_so_that_one_that_waits_fits(stage: &mut Stage) -> Result<()> {
    let (cluster, stowage) = stage.fresh().await?;
    for name in ["lease.yaml", "defrag.yaml"] {
        let documents = apply::read_manifests(&deploy().join("options").join(name))?;
        cluster.apply(documents).await.with_context(|| format!("cannot apply {name}"))?;
    }
    stowage.extender.terminate(LIMIT).await?;
    let mover = cluster.start_program(extender(cluster).await?.named("extender-defrag").arg("--defrag"))?;
    let ready = async || look::http_ok(EXTENDER_HTTP, "/readyz").await;
    cluster.wait_until(LIMIT, "the extender to be ready", &[&mover], ready).await?;
    let result = with_gpus(cluster, stowage, &TWO, async |node| {
        fragment(node, true).await?;
        pods::all_running(cluster, 4, LIMIT).await?;
        let events: Api<Event> = Api::namespaced(cluster.client(), "default");
        let told = events.list(&ListParams::default()).await?;
        for reason in ["Moved", "RoomMade"] {
            let event = told.iter().find(|event| event.reason.as_deref() == Some(reason));
            let event = event.with_context(|| format!("no Event {reason}"))?;
            eprintln!("{reason}: {}", event.note.as_deref().unwrap_or_default());
        }
        let counted = async || {
            let metrics = look::http_text(EXTENDER_HTTP, "/metrics").await?;
            for outcome in ["proposed", "evicted", "helped"] {
                let line = format!(r#"stowage_scheduler_extender_moves_total{{outcome="{outcome}"}} 1"#);
                ensure!(metrics.contains(&line), "no {line}");
            }
            Ok(())
        };
        cluster.wait_until(LIMIT, "the metric", &[&mover], counted).await?;
        look::audit_is_clean(cluster).await
    })
    .await;
    mover.terminate(LIMIT).await?;
    stowage.extender.restart()?;
    stowage.wait_healthy(cluster).await?;
    result
}
