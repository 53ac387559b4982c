//! Stowage as a Helm release: its images on the nodes, and helm.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};
use k8s_openapi::api::core::v1::{Namespace, Node};
use kube::Api;
use kube::api::{DeleteParams, Patch, PatchParams};
use nvml_simulator::store::Store;
use serde_json::json;
use stowage_chart_tests::helm;
use stowage_cluster_tests::versions::Versions;
use stowage_cluster_tests::{Cluster, images};

use super::{LIMIT, NodeFiles, built, deploy};

/// The release's namespace, where the scheduler is.
pub(crate) const SCHEDULER_NAMESPACE: &str = "stowage-system";
/// The plugin's.
pub(crate) const PLUGIN_NAMESPACE: &str = "stowage-device-plugin";
/// What a GPU node's processes see as the host's driver.
const DRIVER_ROOT: &str = "/var/lib/kubelet/driver";
/// By this label the chart knows a GPU node, and by that one the plugin its configuration.
const LABELS: [&str; 2] = ["nvidia.com/gpu.present", "nvidia.com/device-plugin.config"];

/// A release on a cluster.
pub(crate) struct Release<'a> {
    cluster: &'a Cluster,
    values: PathBuf,
}

impl<'a> Release<'a> {
    /// Builds the images of the programs that cargo built beside this test, and puts on each node what a GPU node has:
    /// the driver, and labels.
    pub(crate) async fn prepare(cluster: &'a Cluster) -> Result<Self> {
        let folder = cluster.folder().join("release");
        fs::create_dir_all(&folder)?;
        let archives = build_images(cluster, &folder)?;
        for node in cluster.nodes() {
            for archive in &archives {
                cluster.import_images(node.name(), archive).await?;
            }
        }
        let nodes: Api<Node> = Api::all(cluster.client());
        let mut configurations = String::new();
        for files in NodeFiles::all() {
            write_driver(&cluster.node(files.node)?.kubelet_folder().join("driver"), &files)?;
            let labels = json!({LABELS[0]: "true", LABELS[1]: files.node});
            let patch = Patch::Merge(json!({"metadata": {"labels": labels}}));
            nodes.patch(files.node, &PatchParams::default(), &patch).await?;
            configurations += &format!("    {}: {}\n", files.node, json!(files.config));
        }
        let values = folder.join("values.yaml");
        let text = format!(
            "nvidiaDriverRoot: {DRIVER_ROOT}\nconfig:\n  map:\n{configurations}\
             devicePlugin: {{env: {{NVML_SIMULATOR_CONFIG: /driver-root/gpus.yaml}}}}\n"
        );
        fs::write(&values, text)?;
        Ok(Self { cluster, values })
    }

    /// `helm install`, until everything is ready, in a namespace where only pods of the restricted profile may be.
    pub(crate) async fn install(&self) -> Result<()> {
        let labels = json!({"pod-security.kubernetes.io/enforce": "restricted"});
        let metadata = json!({"name": SCHEDULER_NAMESPACE, "labels": labels});
        let namespace = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": metadata});
        self.cluster.apply(vec![namespace]).await?;
        let chart = deploy().join("helm/stowage").display().to_string();
        let values = self.values.display().to_string();
        self.helm(&["install", "stowage", &chart, "--values", &values, "--wait"]).await
    }

    /// `helm upgrade` with one more annotation on every pod, so that all are made anew.
    pub(crate) async fn upgrade(&self) -> Result<()> {
        let chart = deploy().join("helm/stowage").display().to_string();
        let changes = "podAnnotations.made=anew,scheduler.podAnnotations.made=anew";
        self.helm(&["upgrade", "stowage", &chart, "--reuse-values", "--set", changes, "--wait"]).await
    }

    /// `helm uninstall`, until everything is gone that it takes along.
    pub(crate) async fn uninstall(&self) -> Result<()> {
        self.helm(&["uninstall", "stowage", "--wait"]).await
    }

    /// Takes away what an uninstalled release leaves: its namespace, and the nodes' labels.
    pub(crate) async fn clean_up(&self) -> Result<()> {
        let namespaces: Api<Namespace> = Api::all(self.cluster.client());
        namespaces.delete(SCHEDULER_NAMESPACE, &DeleteParams::default()).await?;
        self.cluster
            .wait_until(LIMIT, "the namespaces to be gone", &[], async || {
                for name in [SCHEDULER_NAMESPACE, PLUGIN_NAMESPACE] {
                    ensure!(namespaces.get_opt(name).await?.is_none(), "{name} is still there");
                }
                Ok(())
            })
            .await?;
        let nodes: Api<Node> = Api::all(self.cluster.client());
        for files in NodeFiles::all() {
            let labels = json!({LABELS[0]: null, LABELS[1]: null});
            let patch = Patch::Merge(json!({"metadata": {"labels": labels}}));
            nodes.patch(files.node, &PatchParams::default(), &patch).await?;
        }
        Ok(())
    }

    async fn helm(&self, arguments: &[&str]) -> Result<()> {
        let mut command = Command::new(helm::helm()?);
        command
            .args(arguments)
            .args(["--namespace", SCHEDULER_NAMESPACE, "--kubeconfig"])
            .arg(self.cluster.admin_kubeconfig())
            .env("HOME", self.cluster.folder().join("release"));
        if arguments.contains(&"--wait") {
            command.args(["--timeout", "150s"]);
        }
        let said = tokio::task::spawn_blocking(move || helm::run(command)).await??;
        eprintln!("{said}");
        Ok(())
    }
}

/// The archives of all images of the chart, kube-scheduler's too.
fn build_images(cluster: &Cluster, folder: &Path) -> Result<[PathBuf; 3]> {
    let programs = folder.join("programs");
    fs::create_dir_all(&programs)?;
    for name in ["stowage-scheduler-extender", "stowage-device-plugin"] {
        // What a debugger would read is most of it, and every node keeps a copy.
        let mut strip = Command::new("strip");
        strip.arg("-o").arg(programs.join(name)).arg(built(name)?);
        helm::run(strip)?;
    }
    let mut build = Command::new(deploy().join("images/build.sh"));
    build.arg("--programs").arg(&programs).arg(folder).env("SOURCE_DATE_EPOCH", "1700000000");
    helm::run(build)?;
    let scheduler = folder.join("kube-scheduler.tar");
    let version = Versions::from_env().kubernetes;
    let reference = format!("registry.k8s.io/kube-scheduler:v{version}");
    images::write_program(&scheduler, &reference, &cluster.programs().join("kube-scheduler"))?;
    let ours = ["stowage-scheduler-extender.tar", "stowage-device-plugin.tar"].map(|name| folder.join(name));
    let [extender, plugin] = ours;
    Ok([extender, plugin, scheduler])
}

/// The driver as a host has it: its library, and what it finds.
fn write_driver(folder: &Path, files: &NodeFiles) -> Result<()> {
    let libraries = folder.join("usr/lib64");
    fs::create_dir_all(&libraries).with_context(|| format!("cannot make {}", libraries.display()))?;
    fs::copy(built("libnvml_simulator.so")?, libraries.join("libnvidia-ml.so.1"))?;
    let description = folder.join("gpus.yaml");
    fs::write(&description, files.gpus)?;
    // The plugin's container sees the folder read-only, so the state is there before.
    Store::open(&description)?;
    Ok(())
}
