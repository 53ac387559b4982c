//! The Helm chart on the real cluster: Stowage in pods, with the chart's own rights and security contexts.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use k8s_openapi::api::core::v1::{Namespace, Pod};
use kube::Api;
use kube::api::ListParams;
use kubelet_api::pod_resources::AllocatableResourcesRequest;
use rustix::process::{Pid, Signal, kill_process};
use stowage_cluster_tests::{Cluster, Scenario, scenarios};

use super::Stage;
use super::stowage::pods::{self, By};
use super::stowage::release::{PLUGIN_NAMESPACE, Release, SCHEDULER_NAMESPACE};
use super::stowage::{LIMIT, NodeFiles, look, nodes_offer_their_gpus};

pub(crate) fn all() -> Vec<Scenario<Stage>> {
    scenarios![the_chart_is_installed_upgraded_and_uninstalled_and_pods_run_on]
}

/// How often a kubelet is asked what it may hand out.
const LOOK_EVERY: Duration = Duration::from_millis(25);

async fn the_chart_is_installed_upgraded_and_uninstalled_and_pods_run_on(stage: &mut Stage) -> Result<()> {
    ensure!(stage.stowage.is_none(), "it must come before Stowage runs as plain programs");
    let release = Release::prepare(&stage.cluster).await?;
    let told = is_installed_upgraded_and_uninstalled(&stage.cluster, &release).await;
    if told.is_err() {
        // The scenarios after this one need the nodes for themselves.
        _ = release.uninstall().await;
    }
    let cleaned = async {
        pods::delete_all(&stage.cluster, LIMIT).await?;
        release.clean_up().await
    };
    told.and(cleaned.await)
}

async fn is_installed_upgraded_and_uninstalled(cluster: &Cluster, release: &Release<'_>) -> Result<()> {
    let start = Instant::now();
    release.install().await?;
    eprintln!("installed in {:.1} s", start.elapsed().as_secs_f64());
    nodes_offer_their_gpus(cluster, &[]).await?;
    nothing_has_more_rights_than_it_may(cluster).await?;

    cluster.apply(pods::three_of_each().into()).await?;
    let running = pods::all_running(cluster, 9, LIMIT).await?;
    look::containers_see_their_plans(cluster, &running).await?;
    look::audit_is_clean(cluster).await?;

    let outages = watched_while(cluster, kill_plugins(cluster)).await?;
    eprintln!("a plugin was killed on each node; for how long it had no GPU to give: {outages:?}");
    let outages = watched_while(cluster, upgrade(cluster, release)).await?;
    eprintln!("the chart was upgraded; for how long each node had no GPU to give: {outages:?}");
    pods::create(cluster, "after-the-upgrade", pods::spec(By::Stowage, "gpu", 1)).await?;
    let after = pods::all_running(cluster, 10, LIMIT).await?;
    ensure!(containers(&running).is_subset(&containers(&after)), "the upgrade restarted a container");
    look::audit_is_clean(cluster).await?;

    release.uninstall().await?;
    let left = pods::all_running(cluster, 10, LIMIT).await?;
    ensure!(containers(&left) == containers(&after), "taking Stowage away restarted a container");
    ensure!(look::gpu_nodes(cluster.client()).list(&ListParams::default()).await.is_ok(), "the CRD went too");
    Ok(())
}

/// No container is privileged, and the scheduler's pods are where only `restricted` ones may be.
async fn nothing_has_more_rights_than_it_may(cluster: &Cluster) -> Result<()> {
    for namespace in [SCHEDULER_NAMESPACE, PLUGIN_NAMESPACE] {
        let pods: Api<Pod> = Api::namespaced(cluster.client(), namespace);
        for pod in pods.list(&ListParams::default()).await? {
            for container in pod.spec.iter().flat_map(|spec| &spec.containers) {
                let context = container.security_context.clone().unwrap_or_default();
                ensure!(context.privileged != Some(true), "{namespace}: {} is privileged", container.name);
                ensure!(
                    context.allow_privilege_escalation == Some(false)
                        && context.read_only_root_filesystem == Some(true),
                    "{namespace}: {} may gain rights or write to its root",
                    container.name
                );
            }
        }
    }
    let namespaces: Api<Namespace> = Api::all(cluster.client());
    let labels = namespaces.get(SCHEDULER_NAMESPACE).await?.metadata.labels.unwrap_or_default();
    let enforced = labels.get("pod-security.kubernetes.io/enforce").map(String::as_str);
    ensure!(enforced == Some("restricted"), "{SCHEDULER_NAMESPACE} enforces {enforced:?}");
    Ok(())
}

/// The plugin's pods.
async fn plugins(cluster: &Cluster) -> Result<Vec<Pod>> {
    let pods: Api<Pod> = Api::namespaced(cluster.client(), PLUGIN_NAMESPACE);
    Ok(pods.list(&ListParams::default()).await?.items)
}

/// Kills the plugin that serves on each node: another one takes over, long before its container is started again. Ends
/// when all of them are.
async fn kill_plugins(cluster: &Cluster) -> Result<()> {
    let before = plugins(cluster).await?;
    for pod in &before {
        let name = pods::name(pod);
        let container = serving_container(cluster, name).await?;
        let pid = cluster.container_pid(PLUGIN_NAMESPACE, name, container).await?;
        let pid = Pid::from_raw(i32::try_from(pid)?).context("a process without an id")?;
        kill_process(pid, Signal::KILL)?;
        let look = async || {
            let now = serving_container(cluster, name).await?;
            ensure!(now != container, "nobody takes over from {container} of {name}");
            Ok(())
        };
        cluster.wait_until(LIMIT, "the other plugin to take over", &[], look).await?;
    }
    // The kubelet looks once a second what has ended, so a pod that is ready proves nothing yet.
    let look = async || {
        let now = plugins(cluster).await?;
        let (then, now) = (restarts(&before), restarts(&now));
        ensure!(then + before.len() <= now, "{now} restarts, {then} before {} were killed", before.len());
        all_have_a_plugin(cluster).await
    };
    cluster.wait_until(LIMIT, "the killed containers to be started again", &[], look).await
}

/// How often containers of these pods were started again.
fn restarts(pods: &[Pod]) -> usize {
    let statuses = pods.iter().filter_map(|pod| pod.status.as_ref()?.container_statuses.as_ref()).flatten();
    statuses.map(|status| usize::try_from(status.restart_count).unwrap_or(0)).sum()
}

/// The container of a plugin's pod that said last that it serves.
async fn serving_container(cluster: &Cluster, pod: &str) -> Result<&'static str> {
    for container in ["device-plugin", "standby"] {
        let log = cluster.container_log(PLUGIN_NAMESPACE, pod, container).await?;
        if log.contains("Registered: the kubelet follows the device list.") {
            return Ok(container);
        }
    }
    anyhow::bail!("no container of {pod} serves")
}

/// Upgrades the release, until other plugins serve; fails if a node is seen without a plugin that is ready meanwhile.
async fn upgrade(cluster: &Cluster, release: &Release<'_>) -> Result<()> {
    let old = uids(&plugins(cluster).await?);
    let others_serve = async {
        release.upgrade().await?;
        cluster
            .wait_until(LIMIT, "the old plugins to be gone", &[], async || {
                let now = uids(&plugins(cluster).await?);
                let left = now.intersection(&old).count();
                ensure!(now.len() == old.len() && left == 0, "{} are there, {left} of the old", now.len());
                Ok(())
            })
            .await
    };
    tokio::select! {
        done = others_serve => done,
        seen = until_a_node_lacks_a_plugin(cluster) => seen,
    }
}

fn uids(pods: &[Pod]) -> BTreeSet<String> {
    pods.iter().filter_map(|pod| pod.metadata.uid.clone()).collect()
}

/// Looks again and again whether each node has a plugin that is ready. It ends with an error only.
async fn until_a_node_lacks_a_plugin(cluster: &Cluster) -> Result<()> {
    loop {
        all_have_a_plugin(cluster).await?;
        tokio::time::sleep(8 * LOOK_EVERY).await;
    }
}

/// By the pods, since the DaemonSet's own count lags behind them.
async fn all_have_a_plugin(cluster: &Cluster) -> Result<()> {
    let pods = plugins(cluster).await?;
    for NodeFiles { node, .. } in NodeFiles::all() {
        let here = pods.iter().filter(|pod| pods::node(pod) == node);
        let conditions: Vec<_> = here.map(|pod| (pods::name(pod), conditions(pod))).collect();
        let is_ready = conditions.iter().any(|(_, conditions)| conditions.contains(&"Ready"));
        ensure!(is_ready, "{node} has no plugin that is ready; what is true of its pods: {conditions:?}");
    }
    Ok(())
}

/// The conditions of a pod that are true.
fn conditions(pod: &Pod) -> Vec<&str> {
    let all = pod.status.iter().filter_map(|status| status.conditions.as_ref()).flatten();
    all.filter(|condition| condition.status == "True").map(|condition| condition.type_.as_str()).collect()
}

/// Asks each kubelet again and again what it may hand out while something is done, and until each has GPUs to give: for how
/// long it had none, at the longest.
async fn watched_while(
    cluster: &Cluster,
    what: impl Future<Output = Result<()>>,
) -> Result<BTreeMap<&'static str, Duration>> {
    let mut what = std::pin::pin!(what);
    let mut is_done = false;
    let mut longest: BTreeMap<_, _> = NodeFiles::all().map(|files| (files.node, Duration::ZERO)).into();
    let mut nothing_since: BTreeMap<&'static str, Instant> = BTreeMap::new();
    let deadline = Instant::now() + 3 * LIMIT;
    while !is_done || !nothing_since.is_empty() {
        ensure!(Instant::now() < deadline, "nothing can be had on {:?}", nothing_since.keys());
        for files in NodeFiles::all() {
            if healthy_devices(cluster, files.node).await? == 0 {
                nothing_since.entry(files.node).or_insert_with(Instant::now);
            } else if let Some(since) = nothing_since.remove(files.node) {
                let longest = longest.entry(files.node).or_default();
                *longest = since.elapsed().max(*longest);
            }
        }
        tokio::select! {
            done = &mut what, if !is_done => {
                done?;
                is_done = true;
            }
            () = tokio::time::sleep(LOOK_EVERY) => {}
        }
    }
    Ok(longest)
}

/// How many of NVIDIA's devices a kubelet may hand out.
async fn healthy_devices(cluster: &Cluster, node: &str) -> Result<usize> {
    let socket = cluster.node(node)?.pod_resources_socket();
    let channel = kubelet_api::endpoint(&socket)?.connect().await?;
    let mut client = kubelet_api::pod_resources::client(channel);
    let told = client
        .get_allocatable_resources(AllocatableResourcesRequest::default())
        .await
        .context("the kubelet does not tell what it may hand out")?;
    let devices = told.into_inner().devices;
    let ours = devices.iter().filter(|devices| devices.resource_name.starts_with("nvidia.com/"));
    Ok(ours.map(|devices| devices.device_ids.len()).sum())
}

/// The ids of all containers, which a restart changes.
fn containers(pods: &[Pod]) -> BTreeSet<String> {
    let statuses = pods.iter().filter_map(|pod| pod.status.as_ref()?.container_statuses.as_ref()).flatten();
    statuses.filter_map(|status| status.container_id.clone()).collect()
}
