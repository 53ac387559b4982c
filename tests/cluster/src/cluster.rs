//! The running cluster: what scenarios hold in their hands.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::Duration;

use anyhow::{Context, Result, anyhow, ensure};
use futures::future::try_join_all;
use k8s_openapi::api::authentication::v1::{BoundObjectReference, TokenRequest, TokenRequestSpec};
use k8s_openapi::api::core::v1::ServiceAccount;
use kube::api::PostParams;
use kube::{Api, Client};
use serde_json::Value;

use crate::control_plane::{self, ControlPlane, Election, Folders, Nodes, create_folder};
use crate::isolation::Isolated;
use crate::node::{Node, NodeOptions};
use crate::pki::Identity;
use crate::process::{Process, Program};
use crate::versions::Versions;
use crate::{apply, images, prerequisites, wait_until};

/// The API server refuses to make shorter-lived tokens.
const SHORTEST_TOKEN: Duration = Duration::from_secs(600);
/// How much of a log a failure shows.
const TAIL_LINES: usize = 20;

/// What cluster to start.
#[derive(Clone, Debug)]
pub struct Options {
    /// The nodes, at most 200.
    pub nodes: Vec<NodeOptions>,
    /// Whether a stock kube-scheduler serves pods that name no scheduler.
    pub default_scheduler: bool,
}

/// A kube-scheduler that was started, and where it tells of itself.
#[derive(Debug)]
pub struct Scheduler {
    /// The process.
    pub process: Process,
    /// `/readyz` and `/metrics` are served on this port of 127.0.0.1, over HTTPS with a certificate of its own
    /// making.
    pub port: u16,
}

impl Default for Options {
    /// `gpu-node-1` to `gpu-node-3`, `cpu-node-1`, and a stock kube-scheduler.
    fn default() -> Self {
        let names = ["gpu-node-1", "gpu-node-2", "gpu-node-3", "cpu-node-1"];
        Self { nodes: names.map(NodeOptions::named).into(), default_scheduler: true }
    }
}

/// The object that a ServiceAccount's token is bound to: when that is deleted, the token is worth nothing.
/// The token also names the node, which admission policies see.
#[derive(Clone, Debug)]
pub enum TokenBoundTo {
    /// Nothing.
    Nothing,
    /// A pod of the account's namespace, as the kubelet binds the tokens that it mounts.
    Pod {
        /// The pod's name.
        name: String,
        /// Its UID.
        uid: String,
    },
    /// A node: fits a program that runs on a node outside of any pod.
    Node {
        /// The node's name.
        name: String,
        /// Its UID.
        uid: String,
    },
}

/// A running cluster. Dropping it ends every process in its namespaces.
pub struct Cluster {
    // In the order in which they are dropped.
    nodes: Vec<Node>,
    default_scheduler: Option<Process>,
    plane: ControlPlane,
    folders: Folders,
    schedulers: AtomicU16,
    kubeconfigs: AtomicU16,
    isolated: Isolated,
}

impl Cluster {
    /// Starts the cluster and waits until all nodes are Ready and pods can be created.
    ///
    /// # Errors
    /// What did not start, with the end of its log. What had been started is ended.
    pub async fn start(isolated: Isolated, options: Options) -> Result<Self> {
        ensure!(options.nodes.len() <= 200, "at most 200 nodes have addresses");
        let folders = folders(&isolated)?;
        let busybox = prerequisites::busybox().context("there is no static busybox (busybox-static)")?;
        images::write_archive(&folders.state.join("images.tar"), &busybox)?;

        let plane = ControlPlane::start(&folders, Nodes::Real).await?;
        let mut cluster = Self::of(plane, folders, isolated);
        if options.default_scheduler {
            let identity = cluster.plane.authority.client("scheduler", "system:kube-scheduler", &[])?;
            let kubeconfig = cluster.folders.state.join("scheduler.kubeconfig");
            cluster.plane.endpoint.write_for_certificate(&kubeconfig, &identity)?;
            let stock = control_plane::stock_scheduler_configuration();
            cluster.default_scheduler =
                Some(cluster.start_scheduler("kube-scheduler", stock, &kubeconfig)?);
        }
        let nodes = (1..).zip(&options.nodes).map(|(number, node)| {
            Node::start(number, node, &cluster.plane, &cluster.folders, cluster.isolated.cgroup())
        });
        cluster.nodes = try_join_all(nodes).await?;
        cluster.plane.wait_for_service_accounts().await?;
        Ok(cluster)
    }

    /// Starts a cluster without kubelets, controllers and schedulers, whose nodes are what the caller creates: API
    /// objects that stay as they are. So thousands of them cost no more than their objects.
    ///
    /// # Errors
    /// What did not start, with the end of its log. What had been started is ended.
    pub async fn start_hollow(isolated: Isolated) -> Result<Self> {
        let folders = folders(&isolated)?;
        let plane = ControlPlane::start(&folders, Nodes::Hollow).await?;
        let cluster = Self::of(plane, folders, isolated);
        cluster.plane.create_service_account().await?;
        Ok(cluster)
    }

    fn of(plane: ControlPlane, folders: Folders, isolated: Isolated) -> Self {
        Self {
            nodes: Vec::new(),
            default_scheduler: None,
            plane,
            folders,
            schedulers: AtomicU16::new(0),
            kubeconfigs: AtomicU16::new(0),
            isolated,
        }
    }

    /// A client with all rights (`system:masters`), for the test itself and never for what it tests.
    pub fn client(&self) -> Client {
        self.plane.client.clone()
    }

    /// The certificate of the cluster's authority.
    pub fn authority(&self) -> PathBuf {
        self.plane.authority.certificate()
    }

    /// A server's certificate, signed by the cluster's authority; `file` is its name among those.
    ///
    /// # Errors
    /// Where it cannot be written.
    pub fn server_certificate(&self, file: &str, names: &[&str]) -> Result<Identity> {
        self.plane.authority.server(file, names)
    }

    /// The same for a client.
    ///
    /// # Errors
    /// Where it cannot be written.
    pub fn client_certificate(&self, file: &str, name: &str) -> Result<Identity> {
        self.plane.authority.client(file, name, &[])
    }

    /// A client for whoever a kubeconfig file speaks for.
    pub async fn client_of(&self, kubeconfig: &Path) -> Result<Client> {
        control_plane::client_of(kubeconfig).await
    }

    /// The nodes, in the order of [`Options::nodes`].
    pub fn nodes(&self) -> &[Node] {
        &self.nodes
    }

    /// The node of this name.
    pub fn node(&self, name: &str) -> Result<&Node> {
        self.nodes.iter().find(|node| node.name() == name).with_context(|| format!("there is no node {name}"))
    }

    /// The state folder, for files that the tests give to programs. Every process of the cluster sees it at
    /// this path.
    pub fn folder(&self) -> &Path {
        &self.folders.state
    }

    /// The folder with Kubernetes' and containerd's programs.
    pub fn programs(&self) -> &Path {
        &self.folders.programs
    }

    /// The stock kube-scheduler, if there is one.
    pub fn default_scheduler(&self) -> Option<&Process> {
        self.default_scheduler.as_ref()
    }

    /// etcd, kube-apiserver and, where nodes are real, kube-controller-manager.
    pub fn control_plane(&self) -> &[Process] {
        &self.plane.processes
    }

    /// Starts a program beside the control plane.
    pub fn start_program(&self, program: Program) -> Result<Process> {
        Process::start(program, &self.folders.logs, None)
    }

    /// Starts a program on a node: `/var/lib/kubelet` and `/var/run/cdi` are that node's there.
    pub fn start_program_on(&self, node: &str, program: Program) -> Result<Process> {
        Process::start(program, &self.folders.logs, Some(self.node(node)?.mount_namespace()))
    }

    /// Starts one more kube-scheduler, as `name`, with a `KubeSchedulerConfiguration` of its own (see
    /// [`apply::read_manifests`] and [`apply::parse`] for reading one).
    ///
    /// Replaced in it are `clientConnection.kubeconfig` and `leaderElection`, which it does without.
    pub fn start_scheduler(&self, name: &str, configuration: Value, kubeconfig: &Path) -> Result<Process> {
        let scheduler = self.start_scheduler_with(name, configuration, kubeconfig, Election::None)?;
        Ok(scheduler.process)
    }

    /// The same, where it matters on which port it tells of itself, or that it elects a leader.
    pub fn start_scheduler_with(
        &self,
        name: &str,
        configuration: Value,
        kubeconfig: &Path,
        election: Election,
    ) -> Result<Scheduler> {
        let port = control_plane::scheduler_port(self.schedulers.fetch_add(1, Ordering::Relaxed));
        let process =
            control_plane::start_scheduler(&self.folders, name, port, configuration, kubeconfig, election)?;
        Ok(Scheduler { process, port })
    }

    /// The kubeconfig of somebody with all rights, for what a person does; never for what is tested.
    pub fn admin_kubeconfig(&self) -> PathBuf {
        self.folders.state.join(control_plane::ADMIN_KUBECONFIG)
    }

    /// What ServiceAccounts outside of kube-system have asked the API server for: an `audit.k8s.io/v1` Event on each line.
    pub fn audit_log(&self) -> PathBuf {
        self.folders.logs.join(control_plane::AUDIT_LOG)
    }

    /// Gives a node's containerd the images of an archive.
    pub async fn import_images(&self, node: &str, archive: &Path) -> Result<()> {
        self.node(node)?.import_images(archive, &self.folders).await
    }

    /// Applies manifests (see [`apply`]).
    pub async fn apply(&self, documents: Vec<Value>) -> Result<()> {
        apply::apply(&self.client(), documents).await
    }

    /// Writes a kubeconfig with a fresh token of a ServiceAccount and returns its path: what runs with it has
    /// exactly the account's rights.
    ///
    /// # Errors
    /// When there is no such account or `ttl` is under ten minutes, which the API server refuses.
    pub async fn service_account_kubeconfig(
        &self,
        namespace: &str,
        name: &str,
        ttl: Duration,
        bound_to: TokenBoundTo,
    ) -> Result<PathBuf> {
        ensure!(ttl >= SHORTEST_TOKEN, "the API server makes no tokens for less than {SHORTEST_TOKEN:?}");
        let bound_object_ref = match bound_to {
            TokenBoundTo::Nothing => None,
            TokenBoundTo::Pod { name, uid } => Some(("Pod", name, uid)),
            TokenBoundTo::Node { name, uid } => Some(("Node", name, uid)),
        };
        let bound_object_ref = bound_object_ref.map(|(kind, name, uid)| BoundObjectReference {
            api_version: Some("v1".to_owned()),
            kind: Some(kind.to_owned()),
            name: Some(name),
            uid: Some(uid),
        });
        let request = TokenRequest {
            spec: TokenRequestSpec {
                expiration_seconds: Some(i64::try_from(ttl.as_secs())?),
                bound_object_ref,
                ..TokenRequestSpec::default()
            },
            ..TokenRequest::default()
        };
        let accounts: Api<ServiceAccount> = Api::namespaced(self.client(), namespace);
        let answer = accounts
            .create_token_request(name, &PostParams::default(), &request)
            .await
            .with_context(|| format!("cannot get a token for ServiceAccount {namespace}/{name}"))?;
        let token = answer.status.context("the API server answered without a token")?.token;
        let count = self.kubeconfigs.fetch_add(1, Ordering::Relaxed);
        let path = self.folders.state.join(format!("{namespace}-{name}-{count}.kubeconfig"));
        self.plane.endpoint.write_for_token(&path, token.as_str(), namespace)?;
        Ok(path)
    }

    /// As [`wait_until`], and on failure shows the ends of the logs of `processes`, and which parts of the
    /// cluster itself have ended.
    ///
    /// # Errors
    /// As [`wait_until`].
    pub async fn wait_until<T>(
        &self,
        limit: Duration,
        what: &str,
        processes: &[&Process],
        look: impl AsyncFnMut() -> Result<T>,
    ) -> Result<T> {
        wait_until(limit, what, look).await.map_err(|error| {
            let own = self.plane.processes.iter().chain(&self.default_scheduler);
            let of_nodes = self.nodes.iter().flat_map(|node| [node.kubelet(), node.containerd()]);
            let ended = own.chain(of_nodes).filter(|process| process.exited().is_some());
            let mut text = format!("{error:#}");
            for process in ended.chain(processes.iter().copied()) {
                let state = process.exited().map_or("runs".to_owned(), |status| format!("ended, {status}"));
                let tail = process.log_tail(TAIL_LINES);
                text.push_str(&format!("\n--- {} ({state}); its log ends:\n{tail}", process.name()));
            }
            anyhow!(text)
        })
    }
}

/// The folders of a run, made.
fn folders(isolated: &Isolated) -> Result<Folders> {
    let state = isolated.folder().to_owned();
    let programs = Versions::from_env().cache_folder();
    let folders = Folders { logs: state.join("logs"), state, programs };
    create_folder(&folders.logs)?;
    Ok(folders)
}

impl Drop for Cluster {
    fn drop(&mut self) {
        // All at once: nothing here is worth an orderly end, and one after another the rest would complain
        // about each that is missing, and start it anew.
        self.isolated.end_all_processes();
    }
}
