//! Looking at what Stowage did: plans, GpuNodes, environments, the audit.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use anyhow::{Context, Result, ensure};
use k8s_openapi::api::core::v1::Pod;
use kube::Api;
use kube::api::{ApiResource, GroupVersionKind, ListParams};
use kube::core::Object;
use kubelet_api::pod_resources::ListPodResourcesRequest;
use stowage_cluster_tests::Cluster;
use stowage_shared::audit::{Finding, NodeView, PodView, Severity, audit};
use stowage_shared::contract::{API_GROUP, API_VERSION, PLAN_ANNOTATION};
use stowage_shared::gpu::locate;
use stowage_shared::gpu_node::{GpuNodeSpec, GpuNodeStatus, KIND, PLURAL};
use stowage_shared::plan::Plan;
use stowage_shared::pod::{PodSpec, PodStatus};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::pods;

/// A GpuNode as the API server has it.
pub(crate) type GpuNode = Object<GpuNodeSpec, GpuNodeStatus>;

/// The GpuNodes' API.
pub(crate) fn gpu_nodes(client: kube::Client) -> Api<GpuNode> {
    let gvk = GroupVersionKind::gvk(API_GROUP, API_VERSION, KIND);
    Api::all_with(client, &ApiResource::from_gvk_with_plural(&gvk, PLURAL))
}

/// Each GPU node as the audit wants it, from the API server alone.
pub(crate) async fn views(cluster: &Cluster) -> Result<Vec<NodeView>> {
    type Slim = Object<PodSpec, PodStatus>;
    let all: Api<Slim> = Api::all_with(cluster.client(), &ApiResource::erase::<Pod>(&()));
    let pods = all.list(&ListParams::default()).await?.items;
    let mut views = Vec::new();
    for node in gpu_nodes(cluster.client()).list(&ListParams::default()).await? {
        let name = node.metadata.name.unwrap_or_default();
        let status = node.status.with_context(|| format!("GpuNode {name} has no status"))?;
        let pods = pods.iter().filter_map(|pod| {
            let meta = &pod.metadata;
            let key = (meta.namespace.as_deref()?, meta.name.as_deref()?, meta.uid.as_deref()?);
            let annotation = |key: &str| meta.annotations.as_ref()?.get(key).map(String::as_str);
            PodView::of(
                key,
                annotation,
                &pod.spec,
                pod.status.as_ref().unwrap_or(&PodStatus::default()),
                &name,
            )
        });
        let pods = pods.collect();
        views.push(NodeView { gpus: status.inventory()?, allocations: status.allocations, pods, node: name });
    }
    Ok(views)
}

/// Waits until the audit finds nothing: GpuNodes lag a moment behind the kubelets.
pub(crate) async fn audit_is_clean(cluster: &Cluster) -> Result<()> {
    audit_finds_only(cluster, |_| false).await.map(drop)
}

/// The same where pods that had swapped devices ended one by one: that leaves notices, which it answers.
pub(crate) async fn audit_finds_only_notices(cluster: &Cluster) -> Result<Vec<Finding>> {
    audit_finds_only(cluster, |finding| finding.severity == Severity::Notice).await
}

async fn audit_finds_only(cluster: &Cluster, is_fine: fn(&Finding) -> bool) -> Result<Vec<Finding>> {
    cluster
        .wait_until(super::LIMIT, "a clean audit", &[], async || {
            let findings: Vec<_> = views(cluster).await?.iter().flat_map(audit).collect();
            let broken: Vec<_> = findings.iter().filter(|f| !is_fine(f)).map(ToString::to_string).collect();
            ensure!(broken.is_empty(), "{}", broken.join("\n"));
            Ok(findings)
        })
        .await
}

/// Each container sees just what its node's GpuNode says that it holds.
pub(crate) async fn containers_see_what_they_hold(cluster: &Cluster, pods: &[Pod]) -> Result<()> {
    let views = views(cluster).await?;
    for pod in pods {
        let view =
            views.iter().find(|view| view.node == pods::node(pod)).context("a pod without a GpuNode")?;
        let mut held = BTreeSet::new();
        for allocation in view.allocations.iter().filter(|held| held.pod == pods::name(pod)) {
            for id in &allocation.device_ids {
                let found = locate(&view.gpus, &allocation.resource, &id.parse()?);
                let (g, offer) = found.with_context(|| format!("{id} is no device of {}", view.node))?;
                held.insert(view.gpus[g].part_uuids[offer].clone());
            }
        }
        let seen = visible_devices(cluster, pod).await?;
        ensure!(seen == held, "{} holds {held:?}, its container sees {seen:?}", pods::name(pod));
    }
    Ok(())
}

/// The UUIDs that a pod's plan promises, through the node's GpuNode: the GPU's, or the MIG device's.
pub(crate) fn planned_uuids(view: &NodeView, pod: &Pod) -> Result<BTreeSet<String>> {
    let text = pod.metadata.annotations.as_ref().and_then(|all| all.get(PLAN_ANNOTATION));
    let plan = Plan::parse(text.with_context(|| format!("{} has no plan", pods::name(pod)))?)?;
    let mut uuids = BTreeSet::new();
    for (resource, devices) in plan.containers.values().flatten() {
        for device in devices {
            let (g, offer) =
                device.locate(&view.gpus, resource).context("a plan for a device that is not there")?;
            uuids.insert(view.gpus[g].part_uuids[offer].clone());
        }
    }
    Ok(uuids)
}

/// What a container sees: the UUIDs in `NVIDIA_VISIBLE_DEVICES`, read from inside.
pub(crate) async fn visible_devices(cluster: &Cluster, pod: &Pod) -> Result<BTreeSet<String>> {
    let environment = cluster.container_env("default", pods::name(pod), "main").await?;
    let visible = environment.get("NVIDIA_VISIBLE_DEVICES").context("NVIDIA_VISIBLE_DEVICES is not set")?;
    Ok(visible.split(',').map(str::to_owned).collect())
}

/// Checks that what the containers of pods see is what their plans say, up to a permutation among pods of one
/// shape on one node. Each pod must have asked for one resource.
pub(crate) async fn containers_see_their_plans(cluster: &Cluster, pods: &[Pod]) -> Result<()> {
    type Shape = (String, String);
    let views = views(cluster).await?;
    let mut planned: BTreeMap<Shape, Vec<String>> = BTreeMap::new();
    let mut seen: BTreeMap<Shape, Vec<String>> = BTreeMap::new();
    for pod in pods {
        let node = pods::node(pod).to_owned();
        let view =
            views.iter().find(|view| view.node == node).with_context(|| format!("no GpuNode {node}"))?;
        let shape = (node, format!("{:?}", limits(pod)));
        planned.entry(shape.clone()).or_default().extend(planned_uuids(view, pod)?);
        seen.entry(shape).or_default().extend(visible_devices(cluster, pod).await?);
    }
    for (shape, mut planned) in planned {
        let mut seen = seen.remove(&shape).unwrap_or_default();
        planned.sort();
        seen.sort();
        ensure!(planned == seen, "{shape:?}: planned {planned:?}, the containers see {seen:?}");
    }
    Ok(())
}

fn limits(pod: &Pod) -> Vec<(String, String)> {
    let containers = pod.spec.iter().flat_map(|spec| &spec.containers);
    let limits = containers.filter_map(|c| c.resources.as_ref()?.limits.as_ref());
    limits.flatten().map(|(name, quantity)| (name.clone(), quantity.0.clone())).collect()
}

/// The GPUs that pods use, by node and GPU UUID, from the GpuNodes.
pub(crate) async fn gpus_in_use(cluster: &Cluster) -> Result<BTreeSet<(String, String)>> {
    let mut in_use = BTreeSet::new();
    for view in views(cluster).await? {
        for held in &view.allocations {
            for id in &held.device_ids {
                let found = locate(&view.gpus, &held.resource, &id.parse()?);
                let (g, _) = found.with_context(|| format!("{id} is no device of {}", view.node))?;
                in_use.insert((view.node.clone(), view.gpus[g].uuid.to_string()));
            }
        }
    }
    Ok(in_use)
}

/// What a kubelet's pod-resources say of NVIDIA's devices: pod, container, device id.
pub(crate) async fn pod_resources(socket: &Path) -> Result<BTreeSet<(String, String, String)>> {
    let channel = kubelet_api::endpoint(socket)?.connect().await?;
    let mut client = kubelet_api::pod_resources::client(channel);
    let list = client.list(ListPodResourcesRequest::default()).await?.into_inner();
    let mut told = BTreeSet::new();
    for pod in list.pod_resources {
        for container in pod.containers {
            let devices =
                container.devices.into_iter().filter(|d| d.resource_name.starts_with("nvidia.com/"));
            for id in devices.flat_map(|devices| devices.device_ids) {
                told.insert((pod.name.clone(), container.name.clone(), id));
            }
        }
    }
    Ok(told)
}

/// Asks one of our HTTP endpoints; anything but 200 is an error with the body.
pub(crate) async fn http_ok(address: &str, path: &str) -> Result<()> {
    http_text(address, path).await.map(drop)
}

/// The same, with what it says, head and all.
pub(crate) async fn http_text(address: &str, path: &str) -> Result<String> {
    let mut stream =
        tokio::net::TcpStream::connect(address).await.with_context(|| format!("nobody at {address}"))?;
    stream
        .write_all(format!("GET {path} HTTP/1.1\r\nHost: stowage\r\nConnection: close\r\n\r\n").as_bytes())
        .await?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await?;
    ensure!(answer.starts_with("HTTP/1.1 200"), "{path}: {answer}");
    Ok(answer)
}
