//! The kubelet stand-in, as a plugin meets it.

use std::path::{Path, PathBuf};
use std::sync::PoisonError;
use std::time::Duration;

use anyhow::{Context, Result};
use kubelet_api::device_plugin::RegisterRequest;
use stowage_stand_ins::kubelet::{Allocatable, Kubelet, KubeletOptions};
use tokio::time::{Instant, sleep, timeout};

use super::door::{Door, Registrations};

/// How long no resource may have come for those that are there to be all.
const SETTLED: Duration = Duration::from_millis(500);

/// A kubelet whose socket takes the registrations of strangers too.
pub(crate) struct Node {
    /// The kubelet behind the door.
    pub(crate) kubelet: Kubelet,
    /// The folder of the plugins' sockets.
    pub(crate) sockets: PathBuf,
    /// Where plugins register.
    pub(crate) door_path: PathBuf,
    door: Option<Door>,
    registrations: Registrations,
}

impl Node {
    /// Starts it in that folder.
    pub(crate) async fn start(folder: &Path) -> Result<Self> {
        let kubelet = Kubelet::start(KubeletOptions::new("bench", folder)).await?;
        let sockets = folder.join("device-plugins");
        let mut node = Self {
            kubelet,
            door_path: sockets.join("registration.sock"),
            sockets,
            door: None,
            registrations: Registrations::default(),
        };
        node.open()?;
        Ok(node)
    }

    fn open(&mut self) -> Result<()> {
        self.door = Some(Door::open(
            &self.door_path,
            self.kubelet.registration_socket(),
            self.registrations.clone(),
        )?);
        Ok(())
    }

    /// Restarts the kubelet, which is away for so long; gives when it was back.
    pub(crate) async fn restart(&mut self, away: Duration) -> Result<Instant> {
        self.door = None;
        self.kubelet.stop().await;
        sleep(away).await;
        // Deletes every socket in the folder, the door among them.
        self.kubelet.resume().await?;
        self.open()?;
        Ok(Instant::now())
    }

    /// How a resource was registered last.
    pub(crate) fn registered(&self, resource: &str) -> Option<RegisterRequest> {
        self.registrations.lock().unwrap_or_else(PoisonError::into_inner).get(resource).cloned()
    }

    /// Waits until there are resources with devices, and no more come; gives their names.
    pub(crate) async fn settled(&self, limit: Duration) -> Result<Vec<String>> {
        self.counts(limit, |counts| counts.values().any(|count| count.allocatable > 0)).await?;
        let mut allocatable = self.kubelet.watch_allocatable();
        allocatable.borrow_and_update();
        while timeout(SETTLED, allocatable.changed()).await.is_ok() {}
        let counts = self.kubelet.allocatable();
        Ok(counts.into_iter().filter(|(_, count)| count.allocatable > 0).map(|(name, _)| name).collect())
    }

    /// Waits until the kubelet counts so.
    pub(crate) async fn counts(&self, limit: Duration, so: impl Fn(&Allocatable) -> bool) -> Result<()> {
        let mut allocatable = self.kubelet.watch_allocatable();
        timeout(limit, allocatable.wait_for(|counts| so(counts))).await.context("no device list")??;
        Ok(())
    }
}
