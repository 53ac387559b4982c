//! The main job: pods run on the devices that were planned for them.

use std::collections::BTreeSet;

use anyhow::{Result, ensure};
use serde_json::Value;
use stowage_cluster_tests::{Cluster, Scenario, scenarios};
use stowage_shared::gpu_node::AllocationStatus;

use super::Stage;
use super::stowage::pods::{self, By};
use super::stowage::{LIMIT, look};

pub(crate) fn all() -> Vec<Scenario<Stage>> {
    scenarios![
        three_deployments_run_on_the_devices_that_were_planned,
        init_containers_and_sidecars_run_on_the_devices_that_were_planned,
        cpu_only_pods_stay_off_gpu_nodes_while_another_fits,
    ]
}

async fn three_deployments_run_on_the_devices_that_were_planned(stage: &mut Stage) -> Result<()> {
    let cluster = stage.fresh().await?.0;
    cluster.apply(pods::three_of_each().into()).await?;
    let running = pods::all_running(cluster, 9, LIMIT).await?;
    look::containers_see_their_plans(cluster, &running).await?;
    look::audit_is_clean(cluster).await?;
    pod_resources_and_gpu_nodes_agree(cluster).await?;
    pods::delete_all(cluster, LIMIT).await?;
    look::audit_is_clean(cluster).await
}

/// Asks each kubelet itself, as the plugin does, and compares with what the GpuNode tells the cluster.
async fn pod_resources_and_gpu_nodes_agree(cluster: &Cluster) -> Result<()> {
    for view in look::views(cluster).await? {
        let socket = cluster.node(&view.node)?.pod_resources_socket();
        let told = look::pod_resources(&socket).await?;
        let published: BTreeSet<(String, String, String)> = view
            .allocations
            .iter()
            .flat_map(|AllocationStatus { pod, container, device_ids, .. }| {
                device_ids.iter().map(move |id| (pod.clone(), container.clone(), id.clone()))
            })
            .collect();
        ensure!(told == published, "{}: the kubelet says {told:?}, the GpuNode {published:?}", view.node);
    }
    Ok(())
}

async fn init_containers_and_sidecars_run_on_the_devices_that_were_planned(stage: &mut Stage) -> Result<()> {
    let cluster = stage.fresh().await?.0;
    let mut spec = pods::spec(By::Stowage, "gpu.shared", 1);
    let container = spec["containers"][0].clone();
    let named = |name: &str, command: &[&str], policy: Option<&str>| {
        let mut container = container.clone();
        container["name"] = name.into();
        container["command"] = command.into();
        if let Some(policy) = policy {
            container["restartPolicy"] = policy.into();
        }
        container
    };
    let sleep = ["/bin/sleep", "100000"];
    spec["initContainers"] =
        Value::from(vec![named("prepare", &["/bin/true"], None), named("sidecar", &sleep, Some("Always"))]);
    for name in ["with-init-1", "with-init-2"] {
        pods::create(cluster, name, spec.clone()).await?;
    }
    pods::all_running(cluster, 2, LIMIT).await?;
    look::audit_is_clean(cluster).await?;
    // Each pod holds two shares: the sidecar's, which reused the init container's, and the container's own.
    let held: usize = look::views(cluster)
        .await?
        .iter()
        .flat_map(|view| &view.allocations)
        .map(|held| held.device_ids.len())
        .sum();
    ensure!(held == 4, "{held} devices are held");
    pods::delete_all(cluster, LIMIT).await
}

async fn cpu_only_pods_stay_off_gpu_nodes_while_another_fits(stage: &mut Stage) -> Result<()> {
    let cluster = stage.fresh().await?.0;
    cluster.apply(vec![pods::deployment("cpu-only", 12, pods::spec(By::Stowage, "", 0))]).await?;
    let running = pods::all_running(cluster, 12, LIMIT).await?;
    let astray: Vec<_> =
        running.iter().filter(|pod| pods::node(pod) != "cpu-node-1").map(pods::describe).collect();
    ensure!(astray.is_empty(), "{astray:?}");
    // Where no other node is possible, a GPU node is better than none.
    let mut pinned = pods::spec(By::Stowage, "", 0);
    pinned["nodeSelector"] = serde_json::json!({"kubernetes.io/hostname": "gpu-node-3"});
    pods::create(cluster, "pinned", pinned).await?;
    pods::all_running(cluster, 13, LIMIT).await?;
    pods::delete_all(cluster, LIMIT).await
}
