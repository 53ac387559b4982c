//! The real kube-scheduler, beside the cluster's own, and nodes without kubelets.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::{Node, Pod};
use k8s_openapi::api::scheduling::v1::PriorityClass;
use kube::api::{DeleteParams, ListParams, Patch, PatchParams, PostParams};
use kube::{Api, Client};
use serde_json::{Value, json};
use stowage_cluster_tests::{Cluster, Process, wait_until};
use tokio::task::JoinHandle;

use super::script::PRIORITIES;
use super::{LABEL, NAMESPACE, SCHEDULER, Side};

/// The node lifecycle controller looks at all nodes every 5 s.
const LIMIT: Duration = Duration::from_secs(60);
/// A kubelet's usual one; after 50 s without, the controller takes a node for lost.
const HEARTBEAT: Duration = Duration::from_secs(10);
/// What a controller writes on every new node, some time after it came.
const TTL_ANNOTATION: &str = "node.alpha.kubernetes.io/ttl";

pub(super) struct Real<'a> {
    cluster: &'a Cluster,
    /// Each scheduler has a log of its own.
    schedulers: AtomicU32,
    hearts: Mutex<Vec<JoinHandle<()>>>,
}

impl<'a> Real<'a> {
    /// Makes what must be there before the script's pods.
    pub(super) async fn start(cluster: &'a Cluster) -> Result<Self> {
        let classes: Api<PriorityClass> = Api::all(cluster.client());
        for (name, value) in PRIORITIES {
            let class = json!({
                "metadata": { "name": name },
                "value": value,
                // The stand-in does not know preemption.
                "preemptionPolicy": "Never",
            });
            classes.create(&PostParams::default(), &serde_json::from_value(class)?).await?;
        }
        Ok(Self { cluster, schedulers: AtomicU32::new(0), hearts: Mutex::default() })
    }

    /// Deletes everything, also what a script that failed has left.
    pub(super) async fn delete_all(&mut self) -> Result<()> {
        let (key, value) = LABEL;
        let ours = ListParams::default().labels(&format!("{key}={value}"));
        let (now, client) = (DeleteParams::default().grace_period(0), self.client());
        Api::<Pod>::namespaced(client.clone(), NAMESPACE).delete_collection(&now, &ours).await?;
        let nodes = Api::<Node>::all(client.clone());
        let leases = leases(&client);
        for heart in self.hearts.get_mut().unwrap_or_else(PoisonError::into_inner).drain(..) {
            heart.abort();
            let _ = heart.await;
        }
        for node in nodes.list(&ours).await?.items {
            let name = node.metadata.name.context("a node without a name")?;
            nodes.delete(&name, &now).await?;
            // As the node's owner it takes the lease with it, but that may take a while.
            let _ = leases.delete(&name, &now).await;
        }
        for (name, _) in PRIORITIES {
            Api::<PriorityClass>::all(client.clone()).delete(name, &now).await?;
        }
        Ok(())
    }
}

impl Drop for Real<'_> {
    fn drop(&mut self) {
        let hearts = self.hearts.get_mut().unwrap_or_else(PoisonError::into_inner);
        hearts.iter().for_each(JoinHandle::abort);
    }
}

impl Side for Real<'_> {
    type Scheduler = Process;

    fn client(&self) -> Client {
        self.cluster.client()
    }

    /// The node is made as a kubelet makes it, and says that it is Ready. The API server puts a taint on it all
    /// the same, until a controller has seen that.
    async fn add_node(&self, mut node: Node) -> Result<()> {
        let (nodes, name) =
            (Api::<Node>::all(self.client()), node.metadata.name.clone().context("a node without a name")?);
        let ready = json!({ "type": "Ready", "status": "True", "reason": "Conformance", "message": "" });
        node.status.get_or_insert_default().conditions = Some(vec![serde_json::from_value(ready)?]);
        nodes.create(&PostParams::default(), &node).await?;
        let heart = tokio::spawn(beat(leases(&self.client()), name.clone()));
        self.hearts.lock().unwrap_or_else(PoisonError::into_inner).push(heart);

        let wanted = expected_taints(&node);
        wait_until(LIMIT, &format!("{name} to be as it is going to stay"), async || {
            let now = nodes.get(&name).await?;
            let taints = taint_keys(&now);
            ensure!(taints == wanted, "{taints:?}");
            let annotations = now.metadata.annotations.unwrap_or_default();
            ensure!(annotations.contains_key(TTL_ANNOTATION), "{annotations:?}");
            Ok(())
        })
        .await
    }

    fn start_scheduler(&self, configuration: Value) -> Result<Process> {
        let number = self.schedulers.fetch_add(1, Ordering::Relaxed);
        let kubeconfig = self.cluster.folder().join("scheduler.kubeconfig");
        self.cluster.start_scheduler(&format!("{SCHEDULER}-{number}"), configuration, &kubeconfig)
    }

    fn why(_: &Process, pod: &Pod) -> Option<(String, String)> {
        let conditions = pod.status.as_ref()?.conditions.as_ref()?;
        let said = conditions.iter().find(|said| said.type_ == "PodScheduled" && said.status == "False")?;
        let reason = said.reason.clone().filter(|reason| reason != "SchedulingGated")?;
        Some((reason, said.message.clone().unwrap_or_default()))
    }
}

fn leases(client: &Client) -> Api<Lease> {
    Api::namespaced(client.clone(), "kube-node-lease")
}

/// Renews a node's lease until it is aborted, as a kubelet would.
async fn beat(leases: Api<Lease>, node: String) {
    let mut ticks = tokio::time::interval(HEARTBEAT);
    loop {
        ticks.tick().await;
        let now = k8s_openapi::jiff::Timestamp::now();
        let lease = json!({
            "apiVersion": "coordination.k8s.io/v1",
            "kind": "Lease",
            "spec": { "holderIdentity": node, "leaseDurationSeconds": 40, "renewTime": format!("{now:.6}") },
        });
        // One that fails is made up for by the next.
        let _ = leases.patch(&node, &PatchParams::apply(SCHEDULER), &Patch::Apply(lease)).await;
    }
}

/// A cordoned node gets a taint that says so.
fn expected_taints(node: &Node) -> BTreeSet<String> {
    let cordoned = node.spec.as_ref().is_some_and(|spec| spec.unschedulable == Some(true));
    let cordon = cordoned.then(|| "node.kubernetes.io/unschedulable".to_owned());
    taint_keys(node).into_iter().chain(cordon).collect()
}

fn taint_keys(node: &Node) -> BTreeSet<String> {
    let taints = node.spec.as_ref().and_then(|spec| spec.taints.as_ref());
    taints.into_iter().flatten().map(|taint| taint.key.clone()).collect()
}
