//! One real node: a kubelet and a containerd in a mount namespace of their own.
//!
//! The node's files are in a state folder that the test process sees too, so it finds the same sockets there
//! that the node's processes find under `/var/lib/kubelet`. What differs between nodes beyond that is an address on
//! the common bridge and a cgroup.

use std::collections::BTreeMap;
use std::fs;
use std::os::fd::OwnedFd;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, anyhow, ensure};
use k8s_openapi::api::core::v1 as core;
use kube::{Api, Client};
use rustix::process::Signal;
use serde_json::Value;

use crate::control_plane::{BRIDGE, ControlPlane, Folders, create_folder};
use crate::process::{Process, Program};
use crate::{cgroups, isolation, mount_namespace, node_config, prerequisites, wait_until};

/// containerd answers within a second; more means that it did not start.
const CONTAINERD_LIMIT: Duration = Duration::from_secs(30);
/// Importing two images of 2 MB.
const IMPORT_LIMIT: Duration = Duration::from_secs(60);
/// A kubelet on a busy machine.
const READY_LIMIT: Duration = Duration::from_secs(90);
/// How long a kubelet that was asked to end may take.
const KUBELET_END_LIMIT: Duration = Duration::from_secs(20);

/// What one node is to be like.
#[derive(Clone, Debug, Default)]
pub struct NodeOptions {
    /// The Node's name, for instance `gpu-node-1`.
    pub name: String,
    /// Labels the kubelet registers with. NodeRestriction refuses most of `kubernetes.io`.
    pub labels: BTreeMap<String, String>,
    /// Taints the kubelet registers with: key, value, effect.
    pub taints: Vec<(String, String, String)>,
    /// Keys of `KubeletConfiguration` that override ours, for instance
    /// `{"topologyManagerPolicy": "single-numa-node"}`; `Null` for none.
    pub kubelet: Value,
}

impl NodeOptions {
    /// A node of this name, with nothing special.
    pub fn named(name: impl Into<String>) -> Self {
        Self { name: name.into(), ..Self::default() }
    }

    /// Adds a label.
    pub fn label(mut self, key: impl Into<String>, value: impl Into<String>) -> Self {
        self.labels.insert(key.into(), value.into());
        self
    }

    /// Adds a taint, with an effect such as `NoSchedule`.
    pub fn taint(
        mut self,
        key: impl Into<String>,
        value: impl Into<String>,
        effect: impl Into<String>,
    ) -> Self {
        self.taints.push((key.into(), value.into(), effect.into()));
        self
    }
}

/// Where a node's things are.
#[derive(Clone, Debug)]
pub(crate) struct Place {
    /// From 1; part of its addresses.
    pub(crate) number: u8,
    pub(crate) address: String,
    pub(crate) folder: PathBuf,
    pub(crate) cgroup_root: String,
}

impl Place {
    pub(crate) fn containerd_socket(&self) -> PathBuf {
        self.folder.join("containerd.sock")
    }
}

/// A running node.
pub struct Node {
    name: String,
    place: Place,
    mount_namespace: Arc<OwnedFd>,
    client: Client,
    kubelet: Process,
    containerd: Process,
}

impl Node {
    /// Starts a node and waits until it is Ready.
    pub(crate) async fn start(
        number: u8,
        options: &NodeOptions,
        plane: &ControlPlane,
        folders: &Folders,
        cgroup: &str,
    ) -> Result<Self> {
        let name = options.name.clone();
        let folder = folders.state.join(&name);
        let place = Place {
            number,
            address: format!("10.88.0.{}", 10 + number),
            cgroup_root: format!("/{cgroup}/{name}"),
            folder,
        };
        cgroups::create(cgroup, &name)?;
        isolation::ip(&["addr", "add", &format!("{}/16", place.address), "dev", BRIDGE])?;
        let serving = plane.authority.server(&format!("{name}-serving"), &[&place.address, &name])?;
        write_files(&place, options, &serving, &plane.authority.certificate())?;
        let mount_namespace = Arc::new(mount_namespace::create(place.folder.clone())?);

        let start = |program| Process::start(program, &folders.logs, Some(Arc::clone(&mount_namespace)));
        let containerd = start(containerd(&place, &name, folders))?;
        wait_for_containerd(&place, &containerd).await?;
        let images = folders.state.join("images.tar");
        import_images(&place, &name, &images, &start, &folders.programs).await?;

        let user = format!("system:node:{name}");
        let identity = plane.authority.client(&name, &user, &["system:nodes"])?;
        let kubeconfig = place.folder.join("kubeconfig");
        plane.endpoint.write_for_certificate(&kubeconfig, &identity)?;
        let kubelet = start(kubelet(&place, options, &kubeconfig, folders))?;
        let client = plane.client.clone();
        let node = Self { name, place, mount_namespace, client, kubelet, containerd };
        node.wait_ready().await?;
        Ok(node)
    }

    /// The Node's name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The address its kubelet listens on.
    pub fn address(&self) -> &str {
        &self.place.address
    }

    /// The node's state folder.
    pub fn folder(&self) -> &Path {
        &self.place.folder
    }

    /// What the node's processes see as `/var/lib/kubelet`.
    pub fn kubelet_folder(&self) -> PathBuf {
        self.place.folder.join("kubelet")
    }

    /// What the node's processes see as `/var/lib/kubelet/device-plugins`.
    pub fn device_plugins_folder(&self) -> PathBuf {
        self.kubelet_folder().join("device-plugins")
    }

    /// The pod-resources socket of this node's kubelet, for the test process.
    pub fn pod_resources_socket(&self) -> PathBuf {
        self.kubelet_folder().join("pod-resources/kubelet.sock")
    }

    /// What the node's processes see as `/var/run/cdi`.
    pub fn cdi_folder(&self) -> PathBuf {
        self.place.folder.join("cdi")
    }

    /// The kubelet, to be killed and restarted.
    pub fn kubelet(&self) -> &Process {
        &self.kubelet
    }

    /// containerd, likewise.
    pub fn containerd(&self) -> &Process {
        &self.containerd
    }

    /// Ends the kubelet with `signal` ([`Signal::KILL`] for a crash, [`Signal::TERM`] for an upgrade), starts
    /// it again, and waits until its device-plugin socket is there again. Pods go on running.
    ///
    /// The Node stays Ready all the while: only a kubelet that is silent for some 40 s loses that.
    pub async fn restart_kubelet(&self, signal: Signal) -> Result<()> {
        // A killed kubelet leaves its socket behind, so its being there tells nothing: it must be a new one.
        let socket = self.device_plugins_folder().join("kubelet.sock");
        let made = || fs::metadata(&socket).map(|file| (file.ino(), file.ctime(), file.ctime_nsec()));
        let old = made().ok();
        self.kubelet.signal(signal);
        self.kubelet.wait_exit(KUBELET_END_LIMIT).await?;
        self.kubelet.restart()?;
        wait_until(READY_LIMIT, &format!("the kubelet of {}", self.name), async || {
            self.check_running()?;
            let new = made().with_context(|| format!("there is no {}", socket.display()))?;
            ensure!(Some(new) != old, "{} is still the old one", socket.display());
            Ok(())
        })
        .await
    }

    /// Waits until the API server knows the node and calls it Ready.
    pub async fn wait_ready(&self) -> Result<()> {
        let nodes: Api<core::Node> = Api::all(self.client.clone());
        wait_until(READY_LIMIT, &format!("{} to be Ready", self.name), async || {
            self.check_running()?;
            let node = nodes.get(&self.name).await?;
            let conditions = node.status.and_then(|status| status.conditions).unwrap_or_default();
            let ready = conditions.into_iter().find(|condition| condition.type_ == "Ready");
            let ready = ready.context("no Ready condition yet")?;
            ensure!(ready.status == "True", "{}", ready.message.unwrap_or_default());
            // The taint goes a moment later, and nothing is scheduled before.
            let taints = node.spec.and_then(|spec| spec.taints).unwrap_or_default();
            let not_ready = taints.iter().any(|taint| taint.key == "node.kubernetes.io/not-ready");
            ensure!(!not_ready, "still tainted as not ready");
            Ok(())
        })
        .await
        .with_context(|| format!("the kubelet's log ends:\n{}", self.kubelet.log_tail(20)))
    }

    /// Gives the node's containerd the images of an archive, as `ctr images import` does.
    pub(crate) async fn import_images(&self, archive: &Path, folders: &Folders) -> Result<()> {
        let start = |program| Process::start(program, &folders.logs, Some(self.mount_namespace()));
        import_images(&self.place, &self.name, archive, &start, &folders.programs).await
    }

    pub(crate) fn mount_namespace(&self) -> Arc<OwnedFd> {
        Arc::clone(&self.mount_namespace)
    }

    fn check_running(&self) -> Result<()> {
        for process in [&self.kubelet, &self.containerd] {
            if let Some(status) = process.exited() {
                return Err(anyhow!("{} ended with {status}:\n{}", process.name(), process.log_tail(20)));
            }
        }
        Ok(())
    }
}

fn write_files(
    place: &Place,
    options: &NodeOptions,
    serving: &crate::pki::Identity,
    authority: &Path,
) -> Result<()> {
    let folder = &place.folder;
    for name in mount_namespace::FOLDERS.into_iter().chain(["cni", "pods", "volume-plugins"]) {
        create_folder(&folder.join(name))?;
    }
    let cni_plugins = prerequisites::cni_folder().context("there are no CNI plugins")?;
    let network = serde_json::to_string_pretty(&node_config::network(place))?;
    let kubelet = node_config::kubelet(place, options, serving, authority);
    let files = [
        ("containerd.toml", node_config::containerd(place, cni_plugins)),
        ("cni/10-pods.conflist", network),
        ("kubelet.json", serde_json::to_string_pretty(&kubelet)?),
    ];
    for (name, text) in files {
        let path = folder.join(name);
        fs::write(&path, text).with_context(|| format!("cannot write {}", path.display()))?;
    }
    Ok(())
}

fn containerd(place: &Place, name: &str, folders: &Folders) -> Program {
    // It finds its shim in PATH.
    let path = format!("{}:/usr/local/sbin:/usr/sbin:/usr/bin:/sbin:/bin", folders.programs.display());
    Program::new(format!("{name}.containerd"), folders.programs.join("containerd"))
        .arg("--config")
        .arg(place.folder.join("containerd.toml"))
        .env("PATH", path)
}

fn kubelet(place: &Place, options: &NodeOptions, kubeconfig: &Path, folders: &Folders) -> Program {
    let labels: Vec<_> = options.labels.iter().map(|(key, value)| format!("{key}={value}")).collect();
    Program::new(format!("{}.kubelet", options.name), folders.programs.join("kubelet"))
        .arg(format!("--config={}", place.folder.join("kubelet.json").display()))
        .arg(format!("--kubeconfig={}", kubeconfig.display()))
        .arg(format!("--hostname-override={}", options.name))
        // Not a loopback address, or logs and exec fail.
        .arg(format!("--node-ip={}", place.address))
        .arg(format!("--node-labels={}", labels.join(",")))
        .arg("--v=2")
}

async fn wait_for_containerd(place: &Place, containerd: &Process) -> Result<()> {
    let socket = place.containerd_socket();
    wait_until(CONTAINERD_LIMIT, containerd.name(), async || {
        if let Some(status) = containerd.exited() {
            return Err(anyhow!("it ended with {status}:\n{}", containerd.log_tail(20)));
        }
        tokio::net::UnixStream::connect(&socket).await.context("it does not listen yet")?;
        Ok(())
    })
    .await
}

async fn import_images(
    place: &Place,
    name: &str,
    archive: &Path,
    start: &impl Fn(Program) -> Result<Process>,
    programs: &Path,
) -> Result<()> {
    let ctr = Program::new(format!("{name}.import"), programs.join("ctr"))
        .arg("--address")
        .arg(place.containerd_socket())
        .args(["--namespace", "k8s.io", "images", "import"])
        .arg(archive);
    let ctr = start(ctr)?;
    let status = ctr.wait_exit(IMPORT_LIMIT).await?;
    ensure!(status.success(), "cannot import {} on {name}:\n{}", archive.display(), ctr.log_tail(20));
    Ok(())
}
