//! MIG slices that are built when a pod has got them: with the stock scheduler, and with Stowage's.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use futures::future::try_join_all;
use k8s_openapi::api::core::v1::Pod;
use stowage_cluster_tests::{Scenario, scenarios};

use super::Stage;
use super::stowage::on_demand::{NODE, OnDemand, with_gpus};
use super::stowage::pods::{self, By};
use super::stowage::{LIMIT, NodeFiles, look};

pub(crate) fn all() -> Vec<Scenario<Stage>> {
    scenarios![
        with_the_stock_scheduler_a_pod_waits_for_a_slice_and_gets_it,
        a_burst_fails_no_pod_that_stowage_places,
    ]
}

const SEVENTH: &str = "nvidia.com/mig-1g.5gb";
const HALF: &str = "nvidia.com/mig-3g.20gb";
/// One A100, cut on demand.
pub(crate) const ONE: NodeFiles = NodeFiles {
    node: NODE,
    gpus: "seed: 4\ngpus:\n  - {model: a100-40gb, migMode: enabled}\n",
    config: "version: v1\nflags: {migStrategy: on-demand, plugin: {deviceListStrategy: cdi-cri}}\n",
    offers: &[(SEVENTH, 7), (HALF, 2), ("nvidia.com/mig-7g.40gb", 1)],
};
/// How long a pod may wait after the end of what was in its way: the kubelet tells counts after 10 s at most, and
/// kube-scheduler may back off as long.
const AFTER_END: Duration = Duration::from_secs(20);
/// Until a burst has come to rest: the plugin lets a container wait 20 s for room.
const AT_REST: Duration = Duration::from_secs(45);

async fn with_the_stock_scheduler_a_pod_waits_for_a_slice_and_gets_it(stage: &mut Stage) -> Result<()> {
    let (cluster, stowage) = stage.fresh().await?;
    with_gpus(cluster, stowage, &ONE, async |node| {
        node.create("half", By::Stock, "mig-3g.20gb").await?;
        pods::all_running(cluster, 1, LIMIT).await?;
        node.until_allocatable(&[(SEVENTH, 4)]).await?;
        for number in 1..=4 {
            node.create(&format!("small-{number}"), By::Stock, "mig-1g.5gb").await?;
            let running = pods::all_running(cluster, 1 + number, LIMIT).await?;
            each_has_its_own_instance(node, &running).await?;
            // There is no room for another half.
            node.until_allocatable(&[(SEVENTH, 4), (HALF, 1)]).await?;
        }
        node.create("fifth", By::Stock, "mig-1g.5gb").await?;
        ensure!(!pods::is_scheduled(cluster, "fifth", LIMIT).await?, "the fifth has a node");
        pods::delete(cluster, "half").await?;
        let ended = Instant::now();
        let running = pods::all_running(cluster, 5, LIMIT).await?;
        let waited = ended.elapsed();
        each_has_its_own_instance(node, &running).await?;
        eprintln!("the fifth pod ran {:.1} s after the end of the one in its way", waited.as_secs_f64());
        ensure!(waited <= AFTER_END, "it ran after {waited:?}");
        look::audit_is_clean(cluster).await
    })
    .await
}

async fn a_burst_fails_no_pod_that_stowage_places(stage: &mut Stage) -> Result<()> {
    let (cluster, stowage) = stage.fresh().await?;
    with_gpus(cluster, stowage, &ONE, async |node| {
        for by in [By::Stock, By::Stowage] {
            node.until_allocatable(ONE.offers).await?;
            let burst = burst(node, by).await?;
            eprintln!("a 3g and five 1g pods at once by {by:?}: {burst:?}");
            let pods = pods::list(cluster).await?;
            let running: Vec<Pod> = pods.into_iter().filter(|pod| pods::phase(pod) == "Running").collect();
            if by == By::Stowage {
                // If a 1g comes first it may lie in the half that has four slices: then the 3g leaves room for three.
                let half_runs = running.iter().any(|pod| pods::name(pod) == "half");
                let fill = burst.run == 5 || (burst.run == 4 && half_runs);
                ensure!(fill && burst.failed == 0 && burst.stuck == 0, "{burst:?}; the 3g runs: {half_runs}");
            }
            ensure!(burst.run > 0, "none runs: {burst:?}");
            each_has_its_own_instance(node, &running).await?;
            pods::delete_all(cluster, LIMIT).await?;
        }
        Ok(())
    })
    .await
}

/// What became of the pods of a burst.
#[derive(Debug)]
struct Burst {
    run: usize,
    /// For good, at admission.
    failed: usize,
    /// For a node.
    wait: usize,
    /// On the node, with devices for which there is no slice.
    stuck: usize,
}

async fn burst(node: &OnDemand<'_>, by: By) -> Result<Burst> {
    let small = (1..=5).map(|number| (format!("small-{number}"), "mig-1g.5gb"));
    let all = [("half".to_owned(), "mig-3g.20gb")].into_iter().chain(small);
    try_join_all(all.map(async |(name, resource)| node.create(&name, by, resource).await)).await?;
    let come_to_rest = async || {
        let pods = pods::list(node.cluster).await?;
        let count = |is: &dyn Fn(&Pod) -> bool| pods.iter().filter(|pod| is(pod)).count();
        let burst = Burst {
            run: count(&|pod| pods::phase(pod) == "Running"),
            failed: count(&|pod| pods::phase(pod) == "Failed"),
            wait: count(&|pod| pods::fits_no_node(pod)),
            stuck: count(&|pod| pods::waits_for(pod) == Some("CreateContainerConfigError")),
        };
        ensure!(burst.run + burst.failed + burst.wait + burst.stuck == 6, "{burst:?}");
        for pod in pods.iter().filter(|pod| pods::phase(pod) == "Failed") {
            eprintln!("{}", pods::describe(pod));
        }
        Ok(burst)
    };
    node.cluster.wait_until(AT_REST, "the burst to come to rest", &[&node.plugin], come_to_rest).await
}

/// No two containers see the same instance, and all those instances exist.
async fn each_has_its_own_instance(node: &OnDemand<'_>, running: &[Pod]) -> Result<()> {
    let instances = node.instances()?;
    let mut seen = Vec::new();
    for pod in running {
        let part = node.seen_by(pod).await?;
        let instance = part.instance.context("a whole GPU")?;
        ensure!(instances.contains_key(&(part.gpu, instance)), "{part:?} is not there: {instances:?}");
        ensure!(!seen.contains(&part), "two containers see {part:?}");
        seen.push(part);
    }
    Ok(())
}
