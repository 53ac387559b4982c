//! Kills in the middle of work: everything heals by itself, and running pods are untouched.

use std::cell::Cell;
use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Result, ensure};
use futures::future::try_join_all;
use k8s_openapi::api::core::v1::Pod;
use rustix::process::Signal;
use stowage_cluster_tests::{Cluster, Process, Scenario, scenarios};

use super::stowage::pods::{self, By};
use super::stowage::{LIMIT, Stowage, look};
use super::{Stage, is_long};

pub(crate) fn all() -> Vec<Scenario<Stage>> {
    scenarios![
        killed_programs_and_kubelets_heal_and_running_pods_are_untouched,
        a_plugin_that_is_asked_to_end_ends_cleanly_within_a_second,
    ]
}

/// Bare pods, all at once: resource, devices of each, pods. With the Deployments' nine and the steady ones they
/// fill the whole GPUs and most of the rest.
const BURST: [(&str, u32, u32); 6] = [
    ("gpu", 1, 2),
    ("gpu", 2, 1),
    ("mig-1g.5gb", 1, 8),
    ("mig-3g.20gb", 1, 2),
    ("mig-2g.10gb", 2, 2),
    ("gpu.shared", 1, 6),
];
const NODES: [&str; 3] = ["gpu-node-1", "gpu-node-2", "gpu-node-3"];
const DEPLOYMENTS: [(&str, &str); 3] =
    [("dedicated", "gpu"), ("medium", "mig-1g.5gb"), ("small", "gpu.shared")];
const REPLICAS: u32 = 3;
/// How long it may take until everything runs again.
const HEALED: Duration = Duration::from_secs(180);

/// Whom to kill.
#[derive(Debug, Clone, Copy)]
enum Victim {
    Plugins,
    Extender,
    Kubelets,
    Scheduler,
}

impl Victim {
    const ALL: [Self; 4] = [Self::Plugins, Self::Extender, Self::Kubelets, Self::Scheduler];

    /// Kills with SIGKILL and starts again, as a DaemonSet, a Deployment or systemd would.
    async fn kill(self, cluster: &Cluster, stowage: &Stowage) -> Result<()> {
        let again = |process: &Process| {
            process.kill()?;
            process.restart()
        };
        match self {
            Self::Plugins => NODES.into_iter().try_for_each(|node| again(stowage.plugin(node)?)),
            Self::Extender => again(&stowage.extender),
            Self::Scheduler => again(&stowage.scheduler),
            Self::Kubelets => {
                for node in NODES {
                    cluster.node(node)?.restart_kubelet(Signal::KILL).await?;
                }
                Ok(())
            }
        }
    }
}

async fn killed_programs_and_kubelets_heal_and_running_pods_are_untouched(stage: &mut Stage) -> Result<()> {
    let (cluster, stowage) = stage.fresh().await?;
    // Pods that must not notice anything.
    for (i, (_, resource)) in DEPLOYMENTS.iter().enumerate() {
        pods::create(cluster, &format!("steady-{i}"), pods::spec(By::Stowage, resource, 1)).await?;
    }
    let steady = pods::all_running(cluster, DEPLOYMENTS.len(), LIMIT).await?;
    let steady = containers(&steady);
    let rounds = if is_long() { 10 } else { 2 };
    for round in 0..rounds {
        for victim in Victim::ALL {
            let wanted = start_work(cluster).await?;
            victim.kill(cluster, stowage).await?;
            let failed = wait_healed(cluster, stowage, wanted + steady.len()).await?;
            // Only a kubelet without its plugin fails pods.
            let may_fail = matches!(victim, Victim::Plugins | Victim::Kubelets);
            ensure!(may_fail || failed == 0, "{failed} pods failed with {victim:?} killed");
            let running = pods::list(cluster).await?;
            // Plans of pods that failed went with them, and others may have had their devices.
            let notices = look::audit_finds_only_notices(cluster).await?;
            look::containers_see_what_they_hold(cluster, &running).await?;
            ensure!(failed > 0 || notices.is_empty(), "nobody failed, and yet: {notices:?}");
            let now = containers(&running);
            for (name, container) in &steady {
                ensure!(now.get(name) == Some(container), "{name} was restarted with {victim:?} killed");
            }
            eprintln!(
                "round {round}, {victim:?} killed: {wanted} pods run; {failed} failed inside the kill \
                 window, {} hold what a failed one was promised",
                notices.len()
            );
            pods::delete_all_but(cluster, |name| steady.contains_key(name), LIMIT).await?;
        }
    }
    pods::delete_all(cluster, LIMIT).await?;
    look::audit_is_clean(cluster).await
}

async fn a_plugin_that_is_asked_to_end_ends_cleanly_within_a_second(stage: &mut Stage) -> Result<()> {
    let (cluster, stowage) = stage.fresh().await?;
    let plugin = stowage.plugin("gpu-node-2")?;
    let status = plugin.terminate(Duration::from_secs(1)).await?;
    ensure!(status.code() == Some(0), "it ended with {status}: {}", plugin.log_tail(5));
    let folder = cluster.node("gpu-node-2")?.device_plugins_folder();
    let left: Vec<_> = std::fs::read_dir(&folder)?
        .filter_map(|entry| entry.ok()?.file_name().into_string().ok())
        .filter(|name| name.starts_with("stowage") && name.ends_with(".sock"))
        .collect();
    ensure!(left.is_empty(), "it left {left:?} behind");
    plugin.restart()?;
    stowage.wait_ready(cluster).await
}

/// Applies the Deployments and creates the burst; answers how many pods that makes.
async fn start_work(cluster: &Cluster) -> Result<usize> {
    let deployments = DEPLOYMENTS
        .map(|(name, resource)| pods::deployment(name, REPLICAS, pods::spec(By::Stowage, resource, 1)));
    cluster.apply(deployments.into()).await?;
    let burst = BURST.into_iter().flat_map(|(resource, count, copies)| {
        (0..copies).map(move |copy| {
            (resource, count, format!("burst-{}-{count}-{copy}", resource.replace('.', "-")))
        })
    });
    let creations: Vec<_> = burst
        .map(async |(resource, count, name)| {
            pods::create(cluster, &name, pods::spec(By::Stowage, resource, count)).await
        })
        .collect();
    let pods = creations.len() + DEPLOYMENTS.len() * REPLICAS as usize;
    try_join_all(creations).await?;
    Ok(pods)
}

/// Waits until `wanted` pods run and the programs are well. A kubelet that admits a pod while no plugin is there
/// fails it for good: those are counted; a controller's are replaced by it, a bare pod is made again here.
async fn wait_healed(cluster: &Cluster, stowage: &Stowage, wanted: usize) -> Result<usize> {
    stowage.wait_healthy(cluster).await?;
    let (shown, failed) = (stowage.processes(), Cell::new(0));
    cluster
        .wait_until(HEALED, "everything to run again", &shown, async || {
            let all = pods::list(cluster).await?;
            for pod in all
                .iter()
                .filter(|pod| pods::phase(pod) == "Failed" && pod.metadata.deletion_timestamp.is_none())
            {
                eprintln!("failed inside the kill window: {}", pods::describe(pod));
                failed.set(failed.get() + 1);
                match pods::has_controller(pod) {
                    true => pods::delete(cluster, pods::name(pod)).await?,
                    false => pods::again(cluster, pod).await?,
                }
            }
            let (running, waiting): (Vec<_>, Vec<_>) =
                all.iter().partition(|pod| pods::phase(pod) == "Running");
            let waiting: Vec<_> = waiting.into_iter().take(3).map(pods::describe).collect();
            ensure!(
                running.len() == wanted && waiting.is_empty(),
                "{} of {wanted} run; {}",
                running.len(),
                waiting.join("; ")
            );
            Ok(())
        })
        .await?;
    Ok(failed.get())
}

/// Container ids and restart counts by pod.
fn containers(pods: &[Pod]) -> BTreeMap<String, (String, i32)> {
    let of = |pod: &Pod| {
        let status = pod.status.as_ref()?.container_statuses.as_ref()?.first()?.clone();
        Some((pods::name(pod).to_owned(), (status.container_id?, status.restart_count)))
    };
    pods.iter().filter_map(of).collect()
}
