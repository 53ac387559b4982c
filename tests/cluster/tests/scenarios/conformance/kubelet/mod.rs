//! The kubelet: one script of device plugins and pods, for the stand-in and for a node of the cluster.
//!
//! What a kubelet does to a plugin and to a pod is seen from three sides: what the plugin was asked, how
//! the pod fared, and what pod-resources says. The pods name their node themselves, so no scheduler has a
//! say, and the kubelet gets what a scheduler would never send it.

mod real;
mod script;
mod stand_in;
mod words;

use std::path::PathBuf;

use anyhow::Result;
use stowage_cluster_tests::Cluster;
use stowage_stand_ins::kubelet::{Container, ContainerKind, PodToAdmit};

use super::Steps;

// Its own users are tests, which may unwrap; here not all of it is used.
#[allow(clippy::unwrap_used, dead_code)]
#[path = "../../../../../stand-ins/tests/kubelet/fake_plugin.rs"]
mod fake_plugin;

/// The resource of the script's plugins, which nobody else has.
const WIDGET: &str = "example.com/widget";
const NAMESPACE: &str = "default";
/// The environment variable that the plugins' answers set: the devices.
const VISIBLE: &str = "VISIBLE";

/// What the stand-in does.
pub(super) async fn stand_in() -> Result<Steps> {
    script::run(&stand_in::StandIn::start().await?).await
}

/// What the kubelet of a node does. Its pods are gone afterwards.
pub(super) async fn real(cluster: &Cluster) -> Result<Steps> {
    let node = real::RealNode::new(cluster)?;
    let steps = script::run(&node).await;
    node.delete_all().await?;
    steps
}

/// A kubelet and its pods.
trait Node {
    /// Where plugins have their sockets.
    fn plugins_folder(&self) -> PathBuf;

    /// Where pod-resources is served.
    fn pod_resources_socket(&self) -> PathBuf;

    /// Gives the kubelet a pod and says what came of its admission.
    async fn admit(&self, pod: &PodToAdmit) -> Result<String>;

    /// Waits until a container of an admitted pod runs, or cannot: says what it sees as [`VISIBLE`], or why.
    async fn start(&self, pod: &str, container: &str) -> Result<String>;

    /// Deletes pods, and returns when they are gone.
    async fn delete(&self, pods: &[&str]) -> Result<()>;

    /// Restarts the kubelet; the pods run on.
    async fn restart(&self) -> Result<()>;

    /// Waits until the node's status has this capacity and allocatable count of [`WIDGET`].
    async fn wait_counts(&self, capacity: u64, allocatable: u64) -> Result<()>;
}

/// A pod whose containers ask for so many of `resource` each.
fn pod_of(resource: &str, name: &str, containers: &[(&str, ContainerKind, u64)]) -> PodToAdmit {
    let container = |(name, kind, count): &(&str, ContainerKind, u64)| Container {
        name: (*name).to_owned(),
        kind: *kind,
        devices: [(resource.to_owned(), *count)].into(),
    };
    PodToAdmit {
        namespace: NAMESPACE.to_owned(),
        name: name.to_owned(),
        uid: format!("uid-of-{name}"),
        containers: containers.iter().map(container).collect(),
    }
}
