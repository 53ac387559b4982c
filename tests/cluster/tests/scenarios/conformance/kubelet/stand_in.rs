//! The stand-in as a node.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use stowage_cluster_tests::wait_until;
use stowage_stand_ins::kubelet::{Kubelet, KubeletOptions, PodToAdmit, StartContainerError};
use tempfile::TempDir;

use super::{NAMESPACE, Node, VISIBLE, WIDGET};

/// It does everything at once.
const LIMIT: Duration = Duration::from_secs(10);

pub(super) struct StandIn {
    kubelet: Kubelet,
    folder: TempDir,
}

impl StandIn {
    pub(super) async fn start() -> Result<Self> {
        let folder = tempfile::tempdir()?;
        let kubelet = Kubelet::start(KubeletOptions::new("stand-in", folder.path())).await?;
        Ok(Self { kubelet, folder })
    }
}

impl Node for StandIn {
    fn plugins_folder(&self) -> PathBuf {
        self.folder.path().join("device-plugins")
    }

    fn pod_resources_socket(&self) -> PathBuf {
        self.kubelet.pod_resources_socket().to_owned()
    }

    async fn admit(&self, pod: &PodToAdmit) -> Result<String> {
        let Err(error) = self.kubelet.admit(pod.clone()).await else { return Ok("admitted".to_owned()) };
        let reason = error.pod_reason().context("the stand-in is stopped")?;
        Ok(format!("{reason}: {}", error.pod_message().unwrap_or_default()))
    }

    async fn start(&self, pod: &str, container: &str) -> Result<String> {
        match self.kubelet.start_container(NAMESPACE, pod, container).await {
            Ok(told) => Ok(told.envs.get(VISIBLE).cloned().unwrap_or_default()),
            Err(error @ StartContainerError::Config(_)) => Ok(format!("CreateContainerConfigError: {error}")),
            Err(error) => Err(error.into()),
        }
    }

    async fn delete(&self, pods: &[&str]) -> Result<()> {
        for pod in pods {
            ensure!(self.kubelet.remove_pod(NAMESPACE, pod), "there is no pod {pod}");
        }
        Ok(())
    }

    async fn restart(&self) -> Result<()> {
        Ok(self.kubelet.restart().await?)
    }

    async fn wait_counts(&self, capacity: u64, allocatable: u64) -> Result<()> {
        wait_until(LIMIT, "the stand-in's counts", async || {
            let told = self.kubelet.allocatable();
            let widgets = told.get(WIDGET).context("no widgets")?;
            ensure!((widgets.capacity, widgets.allocatable) == (capacity, allocatable), "{widgets:?}");
            Ok(())
        })
        .await
    }
}
