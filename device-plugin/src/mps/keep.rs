//! Keeps the daemons running: starts them, asks them every few seconds, and starts them again.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use nvml_wrapper::error::NvmlError;
use ops::chain;
use rustix::fs::{XattrFlags, setxattr};
use stowage_shared::resource::ResourceName;
use tokio::time::{Instant, sleep, sleep_until};

use super::control::{Control, ControlError};
use super::{Mps, MpsMetrics, SharedGpu, Wanted};
use crate::cluster::{NodeEvents, Reason};
use crate::nvml::{About, CallError};

/// How often a daemon that runs is asked whether it does.
const PERIOD: Duration = Duration::from_secs(5);
/// The first wait after a daemon could not be started; it doubles up to the last.
const FIRST_RETRY: Duration = Duration::from_millis(500);
/// The longest wait.
const LAST_RETRY: Duration = Duration::from_secs(30);
/// How long a new daemon may take to answer.
const FIRST_ANSWER: Duration = Duration::from_secs(2);
/// The time between two tries within that.
const FIRST_ANSWER_STEP: Duration = Duration::from_millis(20);
/// What containers may use where SELinux is on, as NVIDIA's daemon labels it.
const SELINUX_LABEL: &str = "system_u:object_r:container_file_t:s0";

/// Why a daemon does not run as it should.
#[derive(Debug, thiserror::Error)]
enum KeepError {
    #[error(transparent)]
    Control(#[from] ControlError),
    #[error("cannot write {}: is mps-root mounted here, read-write?", .path.display())]
    File { path: PathBuf, source: io::Error },
    #[error("cannot let containers use {}: SELinux refuses the label {SELINUX_LABEL}", .path.display())]
    SeLinux { path: PathBuf, source: io::Error },
    #[error("GPU {gpu} cannot be switched to exclusive compute mode, which MPS wants")]
    ComputeMode { gpu: u32, source: NvmlError },
    #[error("GPU {gpu} is divided into {replicas} shares, and its MPS server has {most} clients at most")]
    TooManyClients { gpu: u32, replicas: u32, most: u32 },
    #[error(transparent)]
    Call(#[from] CallError),
    #[error("NVML does not work")]
    NoNvml,
}

/// What is known of a daemon.
#[derive(Default)]
struct Kept {
    /// What it was last set up as, or was to be.
    tried: Option<Wanted>,
    /// Whether that succeeded.
    is_set: bool,
    /// When to look at it again.
    due: Option<Instant>,
    /// The last wait after a failure.
    retry: Option<Duration>,
}

impl Mps {
    /// Keeps the daemons running until the process ends.
    pub async fn keep(self: Arc<Self>, metrics: MpsMetrics, events: NodeEvents) {
        let mut wanted = self.wanted.subscribe();
        let mut kept: BTreeMap<ResourceName, Kept> = BTreeMap::new();
        loop {
            let now = wanted.borrow_and_update().clone();
            if let Some(now) = &now {
                self.stop_others(now, &metrics).await;
                kept.retain(|resource, _| now.iter().any(|wanted| &wanted.resource == resource));
                for wanted in now {
                    let kept = kept.entry(wanted.resource.clone()).or_default();
                    let is_new = kept.tried.as_ref() != Some(wanted);
                    if is_new || kept.due.is_none_or(|due| due <= Instant::now()) {
                        self.see_to(wanted, kept, &metrics, &events).await;
                    }
                }
                self.tell_ready().await;
            }
            let due = kept.values().filter_map(|kept| kept.due).min();
            tokio::select! {
                changed = wanted.changed() => if changed.is_err() { return },
                () = sleep_until(due.unwrap_or_else(Instant::now)), if due.is_some() => {}
            }
        }
    }

    /// Looks at one daemon, and does what it needs.
    async fn see_to(&self, wanted: &Wanted, kept: &mut Kept, metrics: &MpsMetrics, events: &NodeEvents) {
        let is_new = kept.tried.as_ref() != Some(wanted);
        kept.tried = Some(wanted.clone());
        let control = self.control(&wanted.resource);
        let mut outcome = Ok(());
        if kept.is_set && !is_new {
            outcome = control.probe().await.map_err(KeepError::from);
            if let Err(error) = &outcome {
                // Said before it is started again: what its clients had is gone.
                self.tell(&wanted.resource, Some(chain(error)), metrics, events);
                self.tell_ready().await;
            }
        }
        if !kept.is_set || is_new || outcome.is_err() {
            outcome = self.set_up(wanted, &control, metrics).await;
        }
        kept.is_set = outcome.is_ok();
        kept.retry = match &outcome {
            Ok(()) => None,
            Err(_) => Some(kept.retry.map_or(FIRST_RETRY, |last| (last * 2).min(LAST_RETRY))),
        };
        kept.due = Some(Instant::now() + kept.retry.unwrap_or(PERIOD));
        self.tell(&wanted.resource, outcome.err().map(|error| chain(&error)), metrics, events);
    }

    /// Starts a daemon, unless it runs, and tells it its limits.
    async fn set_up(
        &self,
        wanted: &Wanted,
        control: &Control,
        metrics: &MpsMetrics,
    ) -> Result<(), KeepError> {
        for gpu in &wanted.gpus {
            self.prepare(gpu).await?;
        }
        for folder in [&control.pipe, &control.log] {
            let file = |source| KeepError::File { path: folder.clone(), source };
            tokio::fs::create_dir_all(folder).await.map_err(file)?;
        }
        self.label(&control.pipe)?;
        if control.probe().await.is_err() {
            control.start().await?;
            metrics.started(&wanted.resource);
            tracing::info!(resource_name = %wanted.resource, "MPS control daemon started.");
            let until = Instant::now() + FIRST_ANSWER;
            while let Err(error) = control.probe().await {
                if Instant::now() >= until {
                    return Err(error.into());
                }
                sleep(FIRST_ANSWER_STEP).await;
            }
        }
        for command in wanted.commands() {
            control.tell(&command).await?;
        }
        let path = self.folders.started(&wanted.resource);
        let written = tokio::fs::write(&path, wanted.uuids()).await;
        written.map_err(|source| KeepError::File { path, source })
    }

    /// Makes a GPU ready for a daemon.
    async fn prepare(&self, gpu: &SharedGpu) -> Result<(), KeepError> {
        let index = gpu.index;
        let call = self.session.call(About::Gpu(index), move |gpus| {
            let most = gpus.mps_clients(index)?;
            gpus.set_exclusive(index).map(|()| most)
        });
        let most = call.await?.ok_or(KeepError::NoNvml)?;
        let most = most.map_err(|source| KeepError::ComputeMode { gpu: index, source })?;
        if gpu.replicas > most {
            return Err(KeepError::TooManyClients { gpu: index, replicas: gpu.replicas, most });
        }
        Ok(())
    }

    /// Lets containers use a folder where SELinux is on.
    fn label(&self, path: &Path) -> Result<(), KeepError> {
        if !self.selinux.exists() {
            return Ok(());
        }
        setxattr(path, "security.selinux", SELINUX_LABEL.as_bytes(), XattrFlags::empty())
            .map_err(|errno| KeepError::SeLinux { path: path.to_owned(), source: errno.into() })
    }

    /// Says what became of a daemon, where that is news.
    fn tell(&self, resource: &ResourceName, down: Option<String>, metrics: &MpsMetrics, events: &NodeEvents) {
        metrics.set_up(resource, down.is_none());
        let before = self.daemons.borrow().get(resource).cloned();
        if before.as_ref() == Some(&down) {
            return;
        }
        match &down {
            Some(why) => {
                tracing::error!(resource_name = %resource, error = why, "The MPS control daemon is down.");
                events.tell(
                    Reason::MpsDaemonDown,
                    format!("the MPS control daemon of {resource} is down: {why}"),
                );
            }
            None => {
                tracing::info!(resource_name = %resource, "The MPS control daemon runs.");
                // At the start, it is nothing to speak of.
                if before.is_some() {
                    events.tell(
                        Reason::MpsDaemonUp,
                        format!("the MPS control daemon of {resource} runs again"),
                    );
                }
            }
        }
        self.daemons.send_modify(|daemons| _ = daemons.insert(resource.clone(), down));
    }

    /// Stops the daemons of ours that nobody wants any more, and lets every process use their GPUs again.
    async fn stop_others(&self, wanted: &[Wanted], metrics: &MpsMetrics) {
        for (resource, uuids) in self.folders.ours() {
            if wanted.iter().any(|wanted| wanted.resource == resource) {
                continue;
            }
            if let Err(error) = self.control(&resource).tell("quit").await {
                tracing::debug!(resource_name = %resource, %error, "The MPS control daemon had ended already.");
            }
            let still_shared =
                |uuid: &String| wanted.iter().any(|other| other.gpus.iter().any(|gpu| &gpu.uuid == uuid));
            let freed: Vec<String> = uuids.into_iter().filter(|uuid| !still_shared(uuid)).collect();
            let freed = self.session.call(About::Driver, move |gpus| gpus.set_shared(&freed)).await;
            let freed = match freed {
                Ok(Some(done)) => done.map_err(|error| error.to_string()),
                Ok(None) => Err("NVML does not work".to_owned()),
                Err(error) => Err(error.to_string()),
            };
            if let Err(error) = freed {
                tracing::warn!(
                    resource_name = %resource,
                    error,
                    "GPUs are left in exclusive compute mode: only one process at a time can use each of them, \
                     until nvidia-smi -c DEFAULT."
                );
            }
            let _ = tokio::fs::remove_file(self.folders.started(&resource)).await;
            self.daemons.send_modify(|daemons| _ = daemons.remove(&resource));
            metrics.forget(&resource);
            tracing::info!(resource_name = %resource, "MPS control daemon stopped.");
        }
    }

    /// Says that all daemons run, or no longer does.
    async fn tell_ready(&self) {
        let ready = self.folders.ready();
        let is_used = self.wanted.borrow().as_ref().is_some_and(|wanted| !wanted.is_empty());
        let all_run = is_used && self.why_not_ready().is_none();
        let told =
            if all_run { tokio::fs::write(&ready, "").await } else { tokio::fs::remove_file(&ready).await };
        if let Err(error) = told
            && all_run
        {
            tracing::warn!(path = %ready.display(), %error, "It cannot be told that all MPS daemons run.");
        }
    }
}
