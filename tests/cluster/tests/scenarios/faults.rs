//! Kills in the middle of work: everything heals by itself, and running pods are untouched.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Result, ensure};
use k8s_openapi::api::core::v1::Pod;
use rustix::process::Signal;
use stowage_cluster_tests::{Cluster, Scenario, scenarios};

use super::Stage;
use super::stowage::pods::{self, By};
use super::stowage::{LIMIT, Stowage, look};

pub(crate) fn all() -> Vec<Scenario<Stage>> {
    scenarios![
        killed_programs_and_kubelets_heal_and_running_pods_are_untouched,
        a_plugin_that_is_asked_to_end_ends_cleanly_within_a_second,
    ]
}

const BURST: [(&str, u32); 4] = [("gpu", 2), ("mig-1g.5gb", 3), ("gpu.shared", 6), ("mig-3g.20gb", 1)];
const NODES: [&str; 3] = ["gpu-node-1", "gpu-node-2", "gpu-node-3"];

async fn killed_programs_and_kubelets_heal_and_running_pods_are_untouched(stage: &mut Stage) -> Result<()> {
    let (cluster, stowage) = stage.fresh().await?;
    // Pods that must not notice anything.
    for (i, resource) in ["gpu", "mig-1g.5gb", "gpu.shared"].iter().enumerate() {
        pods::create(cluster, &format!("steady-{i}"), pods::spec(By::Stowage, resource, 1)).await?;
    }
    let steady = containers(&pods::all_running(cluster, 3, LIMIT).await?);

    let mut failed = 0;
    for (round, what) in ["plugin", "extender", "kubelet", "scheduler"].iter().enumerate() {
        let names = start_burst(cluster, round).await?;
        match *what {
            "plugin" => {
                for node in NODES {
                    let plugin = stowage.plugin(node)?;
                    plugin.kill()?;
                    plugin.restart()?;
                }
            }
            "extender" => {
                stowage.extender.kill()?;
                stowage.extender.restart()?;
            }
            "scheduler" => {
                stowage.scheduler.kill()?;
                stowage.scheduler.restart()?;
            }
            _ => {
                for node in NODES {
                    cluster.node(node)?.restart_kubelet(Signal::KILL).await?;
                }
            }
        }
        failed += end_burst(cluster, stowage, &names).await?;
        look::audit_is_clean(cluster).await?;
        let now = containers(&pods::list(cluster).await?);
        for (name, id) in &steady {
            ensure!(now.get(name) == Some(id), "{name} was restarted while the {what} was killed");
        }
        eprintln!(
            "killed in the middle of a burst: {what}; pods failed so far inside kill windows: {failed}"
        );
        for name in &names {
            pods::delete(cluster, name).await?;
        }
        pods::all_running(cluster, 3, LIMIT).await?;
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
        .filter(|name| name.contains("stowage"))
        .collect();
    ensure!(left.is_empty(), "it left {left:?} behind");
    plugin.restart()?;
    stowage.wait_ready(cluster).await
}

async fn start_burst(cluster: &Cluster, round: usize) -> Result<Vec<String>> {
    let mut names = Vec::new();
    for (resource, copies) in BURST {
        for copy in 0..copies {
            let name = format!("burst-{round}-{}-{copy}", resource.replace('.', "-"));
            pods::create(cluster, &name, pods::spec(By::Stowage, resource, 1)).await?;
            names.push(name);
        }
    }
    Ok(names)
}

/// Waits until every pod of a burst runs. One that failed was admitted by a kubelet while no plugin was there
/// (it is never retried): it is counted, and a controller's next pod, made here by hand, must run.
async fn end_burst(cluster: &Cluster, stowage: &Stowage, names: &[String]) -> Result<usize> {
    stowage.wait_healthy(cluster).await?;
    let mut failed = 0;
    let (shown, failures) = (stowage.processes(), &mut failed);
    cluster
        .wait_until(2 * LIMIT, "the burst to run", &shown, async || {
            let all = pods::list(cluster).await?;
            for pod in all.iter().filter(|pod| pods::phase(pod) == "Failed") {
                eprintln!("failed inside a kill window: {}", pods::describe(pod));
                *failures += 1;
                pods::again(cluster, pod).await?;
            }
            let running = all
                .iter()
                .filter(|p| names.iter().any(|n| n == pods::name(p)) && pods::phase(p) == "Running");
            let running = running.count();
            let waiting: Vec<_> =
                all.iter().filter(|pod| pods::phase(pod) != "Running").take(3).map(pods::describe).collect();
            ensure!(running == names.len(), "{running} of {} run; {}", names.len(), waiting.join("; "));
            Ok(())
        })
        .await?;
    Ok(failed)
}

/// Container ids and restart counts by pod.
fn containers(pods: &[Pod]) -> BTreeMap<String, (String, i32)> {
    let of = |pod: &Pod| {
        let status = pod.status.as_ref()?.container_statuses.as_ref()?.first()?.clone();
        Some((pods::name(pod).to_owned(), (status.container_id?, status.restart_count)))
    };
    pods.iter().filter_map(of).collect()
}
