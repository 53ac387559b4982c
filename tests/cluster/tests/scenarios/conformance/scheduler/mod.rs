//! kube-scheduler: one script of pods, nodes and extenders, for the stand-in and for the real one.
//!
//! Both have an extender that writes down what it is asked and answers as the script says. What comes of a
//! pod is seen from three sides: what the extender was asked, where the pod went, and why it waits where it
//! does. The nodes exist in the API only, so nothing runs on them, and no kubelet has a say.

mod extender;
mod fits;
mod later;
mod managed;
mod real;
mod scores;
mod script;
mod stand_in;
mod words;

use anyhow::Result;
use k8s_openapi::api::core::v1::{Node, Pod};
use kube::Client;
use serde_json::Value;
use stowage_cluster_tests::Cluster;

use super::Steps;

// Its own users are tests, which may unwrap; here not all of it is used.
#[allow(clippy::unwrap_used, dead_code)]
#[path = "../../../../../stand-ins/tests/scheduler/fake_extender.rs"]
mod fake_extender;

/// The scheduler of the script's pods, and of nobody else's.
const SCHEDULER: &str = "conformance-scheduler";
const NAMESPACE: &str = "default";
/// What the script's nodes and pods have as a label; the pods ask for it too, so that they stay on these nodes.
const LABEL: (&str, &str) = ("conformance", "scheduler");
/// Resources that only the script's nodes have.
const WIDGET: &str = "example.com/widget";
const GADGET: &str = "example.com/gadget";

/// What the stand-in does, in a cluster that has as many other nodes as the real one.
pub(super) async fn stand_in(cluster: &Cluster) -> Result<Steps> {
    let others = cluster.nodes().iter().map(|node| node.name().to_owned());
    script::run(&stand_in::StandIn::start(others).await?).await
}

/// What kube-scheduler does. The script's nodes and pods are gone afterwards.
pub(super) async fn real(cluster: &Cluster) -> Result<Steps> {
    let mut side = real::Real::start(cluster).await?;
    let steps = script::run(&side).await;
    side.delete_all().await?;
    steps
}

/// A cluster, real or not, where schedulers can be started.
trait Side {
    /// A running scheduler; dropped, it ends.
    type Scheduler;

    /// A client with all rights.
    fn client(&self) -> Client;

    /// Adds a node that has no kubelet, and returns when nothing but the script will change it.
    async fn add_node(&self, node: Node) -> Result<()>;

    /// Starts a scheduler with a `KubeSchedulerConfiguration`.
    fn start_scheduler(&self, configuration: Value) -> Result<Self::Scheduler>;

    /// Why a pod waits, in the words of its condition `PodScheduled`: reason and message. `None` before its
    /// first try.
    fn why(scheduler: &Self::Scheduler, pod: &Pod) -> Option<(String, String)>;
}
