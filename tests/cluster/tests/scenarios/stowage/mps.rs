//! Shares under MPS on a node for the time of a scenario, with a configuration that a label of the Node may name.
//!
//! The node's own plugin ends, another one with GPUs of its own takes its place, and afterwards the first one comes back.
//! `nvidia-cuda-mps-control` is the stand-in of the plugin's own tests: NVIDIA's is part of the driver.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result};
use k8s_openapi::api::core::v1::Node;
use kube::Api;
use kube::api::{Patch, PatchParams};
use nvml_simulator::store::Store;
use rustix::process::{Pid, Signal, kill_process};
use serde_json::json;
use stowage_cluster_tests::{Cluster, Process};

use super::{LIMIT, NodeFiles, Stowage, Written, look, plugin_http, plugin_without_file, pods};

/// The node: the last of [`NodeFiles::all`].
pub(crate) const NODE: &str = "gpu-node-3";
const NUMBER: usize = 2;
const CONTROL: &str = "nvidia-cuda-mps-control";
/// By this label the plugin knows its configuration.
const LABEL: &str = "nvidia.com/device-plugin.config";
const FILES: NodeFiles = NodeFiles {
    node: NODE,
    gpus: "seed: 5\ngpus:\n  - {model: h100-80gb, count: 4}\n",
    config: "\
version: v1
sharing:
  mps:
    renameByDefault: true
    resources:
      - {name: nvidia.com/gpu, replicas: 4}
",
    offers: &[("nvidia.com/gpu.shared", 16)],
};

/// The node while its GPUs are shared under MPS.
pub(crate) struct Mps<'a> {
    cluster: &'a Cluster,
    /// The folder that the daemons and their clients share.
    root: PathBuf,
    /// The simulated GPUs.
    pub(crate) simulator: PathBuf,
}

/// Runs `body` with shares under MPS on [`NODE`], and gives the node its own GPUs back, however that ends.
pub(crate) async fn with_mps(
    cluster: &Cluster,
    stowage: &Stowage,
    body: impl AsyncFnOnce(&Mps<'_>) -> Result<()>,
) -> Result<()> {
    let own = stowage.plugin(NODE)?;
    own.terminate(Duration::from_secs(5)).await?;
    let result = async {
        let (node, plugin) = start(cluster).await?;
        body(&node).await?;
        plugin.terminate(Duration::from_secs(5)).await.map(drop)
    };
    let result = result.await;
    pods::delete_all(cluster, LIMIT).await?;
    name_configuration(cluster, None).await?;
    own.restart()?;
    result
}

async fn start(cluster: &Cluster) -> Result<(Mps<'_>, Process)> {
    let folder = cluster.node(NODE)?.folder().join("mps");
    let written = FILES.write(&folder)?;
    Store::open(&written.simulator)?;
    let (configurations, programs, root) = (folder.join("configs"), folder.join("bin"), folder.join("root"));
    for made in [&configurations, &programs, &root.join("shm")] {
        fs::create_dir_all(made).with_context(|| format!("cannot make {}", made.display()))?;
    }
    fs::copy(&written.config, configurations.join("mps"))?;
    let stand_in = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../device-plugin/tests/program/fixtures");
    fs::copy(stand_in.join(CONTROL), programs.join(CONTROL)).context("there is no stand-in of MPS")?;
    let plugin = plugin_without_file(cluster, NODE, NUMBER, &written)
        .await?
        .arg("--config-file-srcdir")
        .arg(&configurations)
        .env("PATH", format!("{}:/usr/bin:/bin", programs.display()))
        .env("MPS_ROOT", &root)
        .env("MPS_CTR_PATH", &root);
    let plugin = cluster.start_program_on(NODE, plugin.named("plugin-mps"))?;
    let address = plugin_http(NUMBER);
    let look = async || look::http_ok(&address, "/readyz").await;
    cluster.wait_until(LIMIT, "the plugin to be ready", &[&plugin], look).await?;
    let Written { simulator, .. } = written;
    Ok((Mps { cluster, root, simulator }, plugin))
}

impl Mps<'_> {
    /// Lets the Node's label name a configuration that is not there.
    pub(crate) async fn name_no_configuration(&self) -> Result<()> {
        name_configuration(self.cluster, Some("nobody-wrote-it")).await
    }

    /// Kills the control daemon; the plugin starts another one.
    pub(crate) fn kill_daemon(&self) -> Result<()> {
        let file = self.root.join("nvidia.com/gpu.shared/pipe/daemon.pid");
        let text = fs::read_to_string(&file).with_context(|| format!("cannot read {}", file.display()))?;
        let pid = Pid::from_raw(text.trim().parse()?).context("a process without an id")?;
        kill_process(pid, Signal::KILL).context("cannot kill the MPS control daemon")
    }
}

async fn name_configuration(cluster: &Cluster, name: Option<&str>) -> Result<()> {
    let patch = Patch::Merge(json!({"metadata": {"labels": {LABEL: name}}}));
    Api::<Node>::all(cluster.client()).patch(NODE, &PatchParams::default(), &patch).await?;
    Ok(())
}
