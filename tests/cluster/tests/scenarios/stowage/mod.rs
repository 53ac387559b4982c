//! Stowage on the cluster: the simulator, the plugin on each GPU node, the extender and a second
//! kube-scheduler, each with its ServiceAccount and the rights of `deploy/`, never as admin.

pub(crate) mod look;
pub(crate) mod mps;
mod node_files;
pub(crate) mod on_demand;
pub(crate) mod pods;
pub(crate) mod random;
pub(crate) mod release;

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use k8s_openapi::api::core::v1::Node;
use kube::Api;
use stowage_cluster_tests::{Cluster, Process, Program, TokenBoundTo, apply};

pub(crate) use node_files::{NodeFiles, Written};

/// Long enough for anything that is started; a failure shows what was seen last.
pub(crate) const LIMIT: Duration = Duration::from_secs(90);
pub(crate) const TOKEN_TTL: Duration = Duration::from_secs(6 * 3600);
const EXTENDER_VERBS: &str = "127.0.0.1:9412";
pub(crate) const EXTENDER_HTTP: &str = "127.0.0.1:9411";

/// The programs of one cluster.
pub(crate) struct Stowage {
    /// By node.
    pub(crate) plugins: Vec<(String, Process)>,
    pub(crate) extender: Process,
    pub(crate) scheduler: Process,
}

impl Stowage {
    /// Applies `deploy/` and starts everything; waits until all of it is ready.
    pub(crate) async fn start(cluster: &Cluster) -> Result<Self> {
        install(cluster).await?;
        let mut plugins = Vec::new();
        for (number, files) in (0..).zip(NodeFiles::all()) {
            let program = plugin(cluster, &files, number).await?;
            plugins.push((files.node.to_owned(), cluster.start_program_on(files.node, program)?));
        }
        let extender = cluster.start_program(extender(cluster).await?)?;
        let account = ("stowage-system", "stowage-kube-scheduler");
        let kubeconfig = cluster
            .service_account_kubeconfig(account.0, account.1, TOKEN_TTL, TokenBoundTo::Nothing)
            .await?;
        let configuration = apply::read_manifests(&deploy().join("scheduler/kube-scheduler-config.yaml"))?;
        let configuration = configuration.into_iter().next().context("an empty scheduler configuration")?;
        let scheduler = cluster.start_scheduler("stowage-kube-scheduler", configuration, &kubeconfig)?;
        let stowage = Self { plugins, extender, scheduler };
        stowage.wait_ready(cluster).await?;
        Ok(stowage)
    }

    /// Waits until the extender is ready and each node offers what its plugin advertises.
    pub(crate) async fn wait_ready(&self, cluster: &Cluster) -> Result<()> {
        self.wait_healthy(cluster).await?;
        nodes_offer_their_gpus(cluster, &self.processes()).await
    }

    /// Waits until every program says that it is ready.
    pub(crate) async fn wait_healthy(&self, cluster: &Cluster) -> Result<()> {
        let addresses = (0..self.plugins.len()).map(plugin_http).chain([EXTENDER_HTTP.to_owned()]);
        for address in addresses {
            let what = format!("{address} to be ready");
            cluster
                .wait_until(LIMIT, &what, &self.processes(), async || {
                    look::http_ok(&address, "/readyz").await
                })
                .await?;
        }
        Ok(())
    }

    /// All processes, for the logs that a failure shows.
    pub(crate) fn processes(&self) -> Vec<&Process> {
        let plugins = self.plugins.iter().map(|(_, process)| process);
        plugins.chain([&self.extender, &self.scheduler]).collect()
    }

    /// The plugin of a node.
    pub(crate) fn plugin(&self, node: &str) -> Result<&Process> {
        let found = self.plugins.iter().find(|(name, _)| name == node);
        found.map(|(_, process)| process).with_context(|| format!("no plugin on {node}"))
    }
}

/// Waits until each node offers what its plugin advertises; a failure shows the logs of `shown`.
pub(crate) async fn nodes_offer_their_gpus(cluster: &Cluster, shown: &[&Process]) -> Result<()> {
    let nodes: Api<Node> = Api::all(cluster.client());
    cluster
        .wait_until(LIMIT, "the nodes to offer their GPUs", shown, async || {
            for files in NodeFiles::all() {
                let status = nodes.get(files.node).await?.status.unwrap_or_default();
                let allocatable = status.allocatable.unwrap_or_default();
                for (resource, want) in files.offers {
                    let got = allocatable.get(*resource).map_or("none", |quantity| quantity.0.as_str());
                    ensure!(got == want.to_string(), "{}: {got} of {want} {resource}", files.node);
                }
            }
            Ok(())
        })
        .await
}

/// Where the plugin of the n-th GPU node tells of itself.
pub(crate) fn plugin_http(number: usize) -> String {
    format!("127.0.0.1:{}", 9420 + number)
}

/// The programs that cargo built beside this test.
pub(crate) fn built(name: &str) -> Result<PathBuf> {
    let test = std::env::current_exe()?;
    let folder = test.parent().and_then(Path::parent).context("a test outside a target folder")?;
    let path = folder.join(name);
    ensure!(path.exists(), "{} is missing: run `cargo build --workspace` first", path.display());
    Ok(path)
}

pub(crate) fn deploy() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../deploy")
}

async fn install(cluster: &Cluster) -> Result<()> {
    for folder in ["crds", "manifests"] {
        let mut files: Vec<PathBuf> = std::fs::read_dir(deploy().join(folder))?
            .map(|entry| entry.map(|e| e.path()))
            .collect::<Result<_, _>>()?;
        files.sort();
        for file in files {
            let documents = apply::read_manifests(&file)?;
            cluster.apply(documents).await.with_context(|| format!("cannot apply {}", file.display()))?;
        }
    }
    Ok(())
}

/// The plugin's command line on one node; its token is bound to that node, as a DaemonSet pod's is.
pub(crate) async fn plugin(cluster: &Cluster, files: &NodeFiles, number: usize) -> Result<Program> {
    let written = files.write(&cluster.node(files.node)?.folder().join("stowage"))?;
    plugin_with(cluster, files.node, number, &written).await
}

/// The same with files that are there already.
async fn plugin_with(cluster: &Cluster, node: &str, number: usize, written: &Written) -> Result<Program> {
    Ok(plugin_without_file(cluster, node, number, written).await?.arg("--config-file").arg(&written.config))
}

/// The same without a configuration: the caller says where it is.
async fn plugin_without_file(
    cluster: &Cluster,
    node: &str,
    number: usize,
    written: &Written,
) -> Result<Program> {
    let nodes: Api<Node> = Api::all(cluster.client());
    let uid = nodes.get(node).await?.metadata.uid.context("a Node without a UID")?;
    let bound_to = TokenBoundTo::Node { name: node.to_owned(), uid };
    let account = "stowage-device-plugin";
    let kubeconfig = cluster.service_account_kubeconfig(account, account, TOKEN_TTL, bound_to).await?;
    Ok(Program::new(format!("plugin-{node}"), built("stowage-device-plugin")?)
        .args(["--node-name", node])
        .arg("--driver-root-ctr-path")
        .arg(&written.driver_root)
        .args(["--http-address", &plugin_http(number)])
        .args(["--log-level", "info,stowage_device_plugin=debug"])
        .env("NVML_SIMULATOR_CONFIG", &written.simulator)
        .env("KUBECONFIG", kubeconfig))
}

/// The extender's command line.
pub(crate) async fn extender(cluster: &Cluster) -> Result<Program> {
    let account = ("stowage-system", "stowage-scheduler-extender");
    let kubeconfig =
        cluster.service_account_kubeconfig(account.0, account.1, TOKEN_TTL, TokenBoundTo::Nothing).await?;
    Ok(Program::new("extender", built("stowage-scheduler-extender")?)
        .args(["--verb-address", EXTENDER_VERBS, "--http-address", EXTENDER_HTTP])
        .args(["--log-level", "info,stowage_scheduler_extender=debug"])
        .env("KUBECONFIG", kubeconfig))
}
