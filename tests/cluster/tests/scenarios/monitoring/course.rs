//! What happens while Prometheus looks: pods of every kind, and everything once that a panel or an alert is for.

use std::time::SystemTime;

use anyhow::{Context, Result, ensure};
use k8s_openapi::api::core::v1::Pod;
use nvml_simulator::state::{Process, Utilization};
use nvml_simulator::store::Store;
use serde_json::{Value, json};
use stowage_cluster_tests::{Cluster, wait_until};
use stowage_shared::gpu::locate;

use super::super::on_demand::ONE;
use super::super::stowage::mps::{self, Mps, with_mps};
use super::super::stowage::on_demand::{self, with_gpus};
use super::super::stowage::pods::{self, By};
use super::super::stowage::{LIMIT, NodeFiles, Stowage, look};
use super::prometheus::Prometheus;

/// The node of shares that nothing but the plugin looks after.
const SHARED: &str = "gpu-node-2";
/// What a pod says it needs of a GPU, and what it takes.
const SAYS: &str = "2Gi";
const TAKES_MIB: u64 = 4096;
/// What an operator would be told of by then.
const ALERTS: [&str; 6] = [
    "StowageAllocationsRefused",
    "StowageConfigRefused",
    "StowageGpuUnhealthy",
    "StowagePodsFitNoNode",
    "StowageShareExceeded",
    "StowageXidNeedsReset",
];

/// Lets everything happen.
pub(super) async fn run(cluster: &Cluster, stowage: &Stowage, prometheus: &Prometheus) -> Result<()> {
    let begun = SystemTime::now();
    busy(cluster)?;
    with_mps(cluster, stowage, async |node| {
        pods_of_every_kind(cluster).await?;
        node.kill_daemon()?;
        faults(node).await?;
        pods_that_fail_or_wait(cluster).await?;
        control_plane_restarts(cluster).await?;
        are_told(cluster, prometheus, begun).await
    })
    .await
    .context("with shares under MPS")?;
    with_gpus(cluster, stowage, &ONE, async |_| room_is_made(cluster, prometheus, begun).await)
        .await
        .context("with MIG on demand")
}

/// GPUs have something to do.
fn busy(cluster: &Cluster) -> Result<()> {
    for files in NodeFiles::all() {
        let mut store = Store::open(&simulator(cluster, files.node)?)?;
        let gpus = u32::try_from(store.state()?.gpus.len())?;
        for gpu in 0..gpus {
            let load = Utilization { gpu_percent: 60, memory_percent: 30 };
            store.update(|node| node.set_utilization(gpu, load))?;
        }
    }
    Ok(())
}

fn simulator(cluster: &Cluster, node: &str) -> Result<std::path::PathBuf> {
    Ok(cluster.node(node)?.folder().join("stowage/gpus.yaml"))
}

fn on(node: &str, mut spec: Value) -> Value {
    spec["nodeSelector"] = json!({"kubernetes.io/hostname": node});
    spec
}

/// Whole GPUs, slices and shares with plans, a share without one, and a share whose pod takes more than it said.
async fn pods_of_every_kind(cluster: &Cluster) -> Result<()> {
    cluster.apply(pods::three_of_each().into()).await?;
    let mut sized = pods::deployment("sized", 1, on(SHARED, pods::spec(By::Stowage, "gpu.shared", 1)));
    sized["spec"]["template"]["metadata"]["annotations"] = json!({"stowage.dev/gpu-memory": SAYS});
    cluster.apply(vec![sized]).await?;
    pods::create(cluster, "unplanned", on(SHARED, pods::spec(By::Stock, "gpu.shared", 1))).await?;
    let running = pods::all_running(cluster, 11, LIMIT).await?;
    let sized = running.iter().find(|pod| pods::name(pod).starts_with("sized")).context("no sized pod")?;
    take_too_much(cluster, sized).await
}

/// A process of the pod takes memory of the GPU that the pod shares.
async fn take_too_much(cluster: &Cluster, pod: &Pod) -> Result<()> {
    let pid = cluster.container_pid("default", pods::name(pod), "main").await?;
    let gpu = cluster
        .wait_until(LIMIT, "the GpuNode to tell the pod's GPU", &[], async || {
            let views = look::views(cluster).await?;
            let view = views.iter().find(|view| view.node == SHARED).context("no GpuNode")?;
            let held = view.allocations.iter().find(|held| held.pod == pods::name(pod));
            let held = held.context("it holds nothing yet")?;
            let id = held.device_ids.first().context("no device")?;
            let (gpu, _) = locate(&view.gpus, &held.resource, &id.parse()?).context("no such device")?;
            Ok(view.gpus[gpu].index)
        })
        .await?;
    let process = Process { pid, memory_mib: TAKES_MIB, instance: None };
    Store::open(&simulator(cluster, SHARED)?)?.update(|node| node.start_process(gpu, process))?;
    Ok(())
}

/// XIDs of three classes, and a configuration that is not there.
async fn faults(node: &Mps<'_>) -> Result<()> {
    let mut store = Store::open(&node.simulator)?;
    for (gpu, xid) in [(1, 31), (2, 94), (3, 79)] {
        store.update(|node| node.raise_xid(gpu, xid, None))?;
    }
    node.name_no_configuration().await
}

/// One that the plugin refuses, and two that fit nowhere.
async fn pods_that_fail_or_wait(cluster: &Cluster) -> Result<()> {
    pods::create(cluster, "refused", on(mps::NODE, pods::spec(By::Stock, "gpu.shared", 2))).await?;
    pods::create(cluster, "too-few", pods::spec(By::Stowage, "gpu", 64)).await?;
    pods::create(cluster, "not-offered", pods::spec(By::Stowage, "mig-7g.40gb", 1)).await?;
    cluster
        .wait_until(LIMIT, "a pod to be refused", &[], async || {
            let pods = pods::list(cluster).await?;
            let refused = pods.iter().find(|pod| pods::name(pod) == "refused").context("it is gone")?;
            ensure!(pods::phase(refused) == "Failed", "{}", pods::describe(refused));
            Ok(())
        })
        .await
}

/// Everybody's watch fails, and goes on.
async fn control_plane_restarts(cluster: &Cluster) -> Result<()> {
    let api_server = cluster.control_plane().iter().find(|process| process.name() == "kube-apiserver");
    api_server.context("there is no API server")?.restart()?;
    wait_until(LIMIT, "the API server to be back", async || pods::list(cluster).await.map(drop)).await
}

async fn are_told(cluster: &Cluster, prometheus: &Prometheus, begun: SystemTime) -> Result<()> {
    cluster
        .wait_until(LIMIT, "the alerts", &[&prometheus.process], async || {
            let told = prometheus.range("count by (alertname) (ALERTS)", begun).await?;
            let told: Vec<&str> =
                told.iter().filter_map(|line| line.labels.get("alertname")).map(String::as_str).collect();
            let lacking: Vec<&str> = ALERTS.into_iter().filter(|name| !told.contains(name)).collect();
            ensure!(lacking.is_empty(), "{lacking:?} are not told; {told:?} are");
            Ok(())
        })
        .await
}

/// Seven small slices leave the eighth part of the GPU's memory to nobody, and are in the way of a pod of higher priority that
/// wants the whole GPU.
async fn room_is_made(cluster: &Cluster, prometheus: &Prometheus, begun: SystemTime) -> Result<()> {
    let urgent = json!({
        "apiVersion": "scheduling.k8s.io/v1", "kind": "PriorityClass", "metadata": {"name": "urgent"},
        "value": 1000, "description": "Others make room for it.",
    });
    cluster.apply(vec![urgent]).await?;
    for number in 0..7 {
        pods::create(cluster, &format!("small-{number}"), on_demand::spec(By::Stowage, "mig-1g.5gb")).await?;
    }
    pods::all_running(cluster, 7, LIMIT).await?;
    cluster
        .wait_until(LIMIT, "stranded memory to be seen", &[&prometheus.process], async || {
            let seen =
                prometheus.range(r#"stowage_scheduler_extender_gpus{state="stranded"} > 0"#, begun).await?;
            ensure!(!seen.is_empty(), "none is");
            Ok(())
        })
        .await?;
    let mut spec = on_demand::spec(By::Stowage, "mig-7g.40gb");
    spec["priorityClassName"] = "urgent".into();
    pods::create(cluster, "large", spec).await?;
    // The GPU is wanted whole, so all of them go.
    pods::all_running(cluster, 1, LIMIT).await.map(drop)
}
