//! A node of the cluster, with its kubelet.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use k8s_openapi::api::core::v1::{ContainerStatus, Node as NodeObject, Pod, PodStatus};
use kube::Api;
use kube::api::{DeleteParams, ListParams, PostParams};
use rustix::process::Signal;
use serde_json::{Value, json};
use stowage_cluster_tests::{Cluster, Node as ClusterNode, images};
use stowage_stand_ins::kubelet::{Container, ContainerKind, PodToAdmit};

use super::{NAMESPACE, Node, VISIBLE, WIDGET};

/// A node without GPUs: a restart of its kubelet disturbs nobody.
const NODE: &str = "cpu-node-1";
/// A kubelet on a busy machine; it looks at its Node's status every 10 s only.
const LIMIT: Duration = Duration::from_secs(60);
/// What the script's pods are found by.
const LABEL: &str = "conformance=kubelet";

pub(super) struct RealNode<'a> {
    cluster: &'a Cluster,
    node: &'a ClusterNode,
    pods: Api<Pod>,
}

impl<'a> RealNode<'a> {
    pub(super) fn new(cluster: &'a Cluster) -> Result<Self> {
        let pods = Api::namespaced(cluster.client(), NAMESPACE);
        Ok(Self { cluster, node: cluster.node(NODE)?, pods })
    }

    /// Deletes what a script that failed has left.
    pub(super) async fn delete_all(&self) -> Result<()> {
        let pods = self.pods.list(&ListParams::default().labels(LABEL)).await?.items;
        let names: Vec<&str> = pods.iter().filter_map(|pod| pod.metadata.name.as_deref()).collect();
        self.delete(&names).await
    }

    async fn wait<T>(&self, what: &str, look: impl AsyncFnMut() -> Result<T>) -> Result<T> {
        self.cluster.wait_until(LIMIT, what, &[self.node.kubelet()], look).await
    }

    async fn status(&self, pod: &str) -> Result<PodStatus> {
        self.pods.get(pod).await?.status.with_context(|| format!("{pod} has no status"))
    }
}

impl Node for RealNode<'_> {
    fn plugins_folder(&self) -> PathBuf {
        self.node.device_plugins_folder()
    }

    fn pod_resources_socket(&self) -> PathBuf {
        self.node.pod_resources_socket()
    }

    async fn admit(&self, pod: &PodToAdmit) -> Result<String> {
        let object: Pod = serde_json::from_value(object(pod))?;
        self.pods.create(&PostParams::default(), &object).await?;
        self.wait(&format!("the admission of {}", pod.name), async || {
            let status = self.status(&pod.name).await?;
            // The kubelet's first word on a pod: before, the API server alone has spoken.
            ensure!(status.start_time.is_some() || status.reason.is_some(), "nothing said yet");
            match status.phase.as_deref() {
                Some("Failed") => {
                    let [reason, message] =
                        [status.reason, status.message].map(|text| text.unwrap_or_default());
                    Ok(format!("{reason}: {message}"))
                }
                _ => Ok("admitted".to_owned()),
            }
        })
        .await
    }

    async fn start(&self, pod: &str, container: &str) -> Result<String> {
        let failed = self
            .wait(&format!("{pod}/{container} to start"), async || {
                let status = self.status(pod).await?;
                let status = container_status(&status, container).context("not looked at yet")?;
                let state = status.state.clone().unwrap_or_default();
                if state.running.is_some() {
                    return Ok(None);
                }
                let waiting = state.waiting.context("it has ended")?;
                let reason = waiting.reason.unwrap_or_default();
                ensure!(reason == "CreateContainerConfigError", "waiting: {reason}");
                Ok(Some(format!("{reason}: {}", waiting.message.unwrap_or_default())))
            })
            .await?;
        if let Some(failed) = failed {
            return Ok(failed);
        }
        self.wait(&format!("the environment of {pod}/{container}"), async || {
            let environment = self.cluster.container_env(NAMESPACE, pod, container).await?;
            Ok(environment.get(VISIBLE).cloned().unwrap_or_default())
        })
        .await
    }

    async fn delete(&self, pods: &[&str]) -> Result<()> {
        for pod in pods {
            self.pods.delete(pod, &DeleteParams::default()).await?;
        }
        self.wait(&format!("{pods:?} to be gone"), async || {
            for pod in pods {
                if let Some(left) = self.pods.get_opt(pod).await? {
                    bail!("{pod} is {:?}", left.status.and_then(|status| status.phase));
                }
            }
            Ok(())
        })
        .await
    }

    /// A kubelet that has just started does not call a pod failed before it has gone through all its pods once,
    /// some seconds later. So it is given pods that nobody could take until it says so.
    async fn restart(&self) -> Result<()> {
        self.node.restart_kubelet(Signal::TERM).await?;
        let hopeless = super::pod_of(WIDGET, "hopeless", &[("main", ContainerKind::App, 99)]);
        self.wait("the kubelet to refuse pods", async || {
            let outcome = self.admit(&hopeless).await?;
            self.delete(&[&hopeless.name]).await?;
            ensure!(outcome != "admitted", "it took one");
            Ok(())
        })
        .await
    }

    async fn wait_counts(&self, capacity: u64, allocatable: u64) -> Result<()> {
        let nodes: Api<NodeObject> = Api::all(self.cluster.client());
        self.wait("the Node's counts", async || {
            let status = nodes.get(NODE).await?.status.unwrap_or_default();
            let [told_capacity, told_allocatable] = [status.capacity, status.allocatable]
                .map(|told| told.unwrap_or_default().get(WIDGET).map_or("none".to_owned(), |q| q.0.clone()));
            let same = told_capacity == capacity.to_string() && told_allocatable == allocatable.to_string();
            ensure!(same, "capacity {told_capacity}, allocatable {told_allocatable}");
            Ok(())
        })
        .await
    }
}

fn container_status<'a>(status: &'a PodStatus, name: &str) -> Option<&'a ContainerStatus> {
    let all = [&status.init_container_statuses, &status.container_statuses];
    all.into_iter().flatten().flatten().find(|status| status.name == name)
}

/// The pod as an API object, on this node.
fn object(pod: &PodToAdmit) -> Value {
    let of = |wanted: fn(ContainerKind) -> bool| -> Vec<Value> {
        pod.containers.iter().filter(|container| wanted(container.kind)).map(container).collect()
    };
    let (key, value) = LABEL.split_once('=').unwrap_or_default();
    json!({
        "metadata": { "name": pod.name, "labels": { key: value } },
        "spec": {
            "nodeName": NODE,
            "terminationGracePeriodSeconds": 1,
            "automountServiceAccountToken": false,
            "initContainers": of(|kind| kind != ContainerKind::App),
            "containers": of(|kind| kind == ContainerKind::App),
        },
    })
}

fn container(container: &Container) -> Value {
    let limits: BTreeMap<_, _> =
        container.devices.iter().map(|(resource, count)| (resource, count.to_string())).collect();
    let mut object = json!({
        "name": container.name,
        "image": images::BUSYBOX,
        "imagePullPolicy": "Never",
        "resources": { "limits": limits },
    });
    match container.kind {
        ContainerKind::Init => object["command"] = json!(["/bin/true"]),
        ContainerKind::Sidecar => object["restartPolicy"] = json!("Always"),
        ContainerKind::App => {}
    }
    object
}
