//! Looks at the GPUs: what is there, how it fares, how it is connected, and what the driver tells of it.

use std::collections::BTreeSet;

use ops::chain;
use stowage_shared::gpu::GpuUuid;

use super::{FIRST_RETRY, Live, tell};
use crate::health::Seen;
use crate::nvml::{About, Listener, NvmlFault};
use crate::plugin::Plugin;

impl Live {
    /// Looks at the GPUs, and finds out which MIG instances of ours are gone.
    pub(super) async fn look_at_all(
        &mut self,
        in_use: impl FnOnce() -> BTreeSet<String>,
    ) -> Result<Vec<(GpuUuid, Seen)>, NvmlFault> {
        self.were_ours = self.slices.as_ref().map(|slices| slices.ours()).unwrap_or_default();
        let look = self.session.look().await?;
        if let Some(slices) = &self.slices {
            slices.forget_missing(&self.were_ours, &look);
        }
        Ok(self.known.take(look, &in_use()))
    }

    /// Looks, takes note of what is seen, and publishes what follows. NVML that fails is opened again once.
    pub(super) async fn look(&mut self, plugin: &Plugin) {
        let in_use = || plugin.book.borrow().parts_in_use();
        let look = match self.look_at_all(in_use).await {
            Ok(look) => Ok(look),
            Err(first) => {
                // Opened anew, it may work: after a driver was loaded again, all handles are stale.
                tracing::debug!(error = chain(&first), "NVML fails: opening it again.");
                self.listener = None;
                self.listening_to.clear();
                self.session.close().await;
                self.look_at_all(in_use).await
            }
        };
        match look {
            Ok(look) => self.take(look, plugin),
            Err(fault) => {
                self.session.close().await;
                self.retry = if self.fault.is_some() {
                    (self.retry * 2).min(self.config.health.period)
                } else {
                    FIRST_RETRY.min(self.config.health.period)
                };
                self.set_fault(Some(chain(&fault)), plugin);
            }
        }
        self.publish(plugin);
    }

    fn take(&mut self, look: Vec<(GpuUuid, Seen)>, plugin: &Plugin) {
        self.set_fault(None, plugin);
        for (gpu, seen) in look {
            let changes = self.health.apply(&gpu, seen, plugin.now());
            self.tell(&gpu, &changes, plugin);
        }
        for gone in self.known.gone().filter(|gone| !self.gone.contains(gone.part)) {
            tell::gone(plugin, &self.events, &gone);
        }
        self.gone = self.known.gone().map(|gone| gone.part.to_owned()).collect();
        self.listen();
    }

    /// The GPUs that answer.
    fn answering(&self) -> Vec<(u32, GpuUuid)> {
        let gpus = self.known.reading().gpus.into_iter().map(|gpu| (gpu.index, gpu.uuid));
        gpus.filter(|(_, uuid)| self.health.answers(uuid)).collect()
    }

    /// Reads how the GPUs are connected, if others answer than the last time. That costs some hundred calls, so it is
    /// read after everything else, and never while the kubelet waits.
    pub(super) async fn connect(&mut self, plugin: &Plugin) {
        let answering = self.answering();
        if self.fault.is_some() || self.connected == answering {
            return;
        }
        self.connected.clone_from(&answering);
        match self.session.call(About::Topology, move |gpus| gpus.nearness(&answering)).await {
            Ok(nearness) => {
                self.known.connected(nearness.unwrap_or_default());
                self.publish(plugin);
            }
            Err(error) => {
                tracing::warn!(%error, "Several GPUs for one pod are not chosen by how they are connected.");
            }
        }
    }

    /// Listens to the GPUs that answer, if it does not yet. One that was away is listened to anew.
    pub(super) fn listen(&mut self) {
        let answering = self.answering();
        let Some(nvml) = self.session.gpus() else { return };
        if answering.is_empty() || self.listening_to == answering {
            return;
        }
        self.listening_to.clone_from(&answering);
        self.listener = Listener::start(nvml, answering)
            .inspect_err(|error| tracing::warn!(%error, "There is no thread to hear NVML's events on."))
            .ok();
    }
}
