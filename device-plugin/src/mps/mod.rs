//! MPS: the daemons through which several pods use one GPU at once, each within its limits.
//!
//! ```text
//!   inventory ──want──► wanted daemons ──keep──► nvidia-cuda-mps-control -d, limits, compute mode
//!                              │                           │ asked every few seconds
//!   devices' health ◄─why_down─┴───────────◄───────────────┘
//! ```
//!
//! One daemon serves one resource, as in NVIDIA's plugin, and in the same folders: one that answers there already is
//! taken over, be it from an earlier process of ours or NVIDIA's own `mps-control-daemon`. A daemon outlives this
//! program where the container lets it, since pods that run are its clients; so nothing is stopped at the end, only
//! what the configuration no longer wants. The chart's container does not: there an upgrade waits for a drained node. While a daemon is down, its GPUs' shares are unhealthy: a client that finds
//! no daemon would be alone with a GPU in exclusive mode, or without limits.

mod control;
mod folders;
mod keep;
mod metrics;
mod wanted;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use futures::future::join_all;
use stowage_shared::resource::ResourceName;
use tokio::sync::watch;
use tokio::time::timeout;

use crate::config::Config;
use crate::inventory::Inventory;
use crate::nvml::Session;

use control::Control;
pub use folders::Folders;
pub use metrics::MpsMetrics;
pub use wanted::{SharedGpu, Wanted};

/// How long the start waits for daemons that may run already: pods fail meanwhile.
const FIND_LIMIT: Duration = Duration::from_millis(500);

/// Why each daemon is down; `None` for one that runs, nothing for one that was not seen yet.
pub type Daemons = BTreeMap<ResourceName, Option<String>>;

/// See the [module](self).
pub struct Mps {
    folders: Folders,
    /// Whether anything is shared by MPS; else there may be daemons to stop.
    is_used: bool,
    /// There where the kernel has SELinux.
    selinux: PathBuf,
    session: Arc<Session>,
    /// `None` until the GPUs are known.
    wanted: watch::Sender<Option<Vec<Wanted>>>,
    daemons: watch::Sender<Daemons>,
}

impl Mps {
    /// What the configuration makes of it; `None` where it names no folder for MPS.
    pub fn of(config: &Config, session: &Arc<Session>) -> Option<Arc<Self>> {
        let folders = Folders::at(config.mps.as_ref()?.root.clone());
        let is_used = config.mps_in_use().is_some();
        Some(Arc::new(Self {
            folders,
            is_used,
            selinux: config.sysfs.join("fs/selinux"),
            session: session.clone(),
            wanted: watch::Sender::new(None),
            daemons: watch::Sender::default(),
        }))
    }

    /// Lets there be the daemons that the shares of this inventory need.
    pub fn want(&self, inventory: &Inventory) {
        // Before any GPU is known, it is not known what to stop.
        if inventory.gpus().is_empty() {
            return;
        }
        let new = if self.is_used { Wanted::all(inventory) } else { Vec::new() };
        self.wanted.send_if_modified(|wanted| {
            let changes = wanted.as_ref() != Some(&new);
            *wanted = Some(new);
            changes
        });
    }

    /// Finds the daemons that run already, so that their shares need not be unhealthy at the start.
    pub async fn find_running(&self) {
        let wanted = self.wanted.borrow().clone().unwrap_or_default();
        let probe = |wanted: Wanted| async move {
            let probe = timeout(FIND_LIMIT, self.control(&wanted.resource).probe()).await;
            matches!(probe, Ok(Ok(()))).then_some((wanted.resource, None))
        };
        let running = join_all(wanted.into_iter().map(probe)).await;
        self.daemons.send_modify(|daemons| daemons.extend(running.into_iter().flatten()));
    }

    /// Why the shares of a GPU must not be handed out.
    pub fn why_down(&self, part: &str) -> Option<String> {
        let wanted = self.wanted.borrow();
        let serves = |wanted: &&Wanted| wanted.gpus.iter().any(|gpu| gpu.uuid == part);
        let resource = &wanted.iter().flatten().find(serves)?.resource;
        match self.daemons.borrow().get(resource) {
            Some(None) => None,
            Some(Some(why)) => Some(format!("the MPS control daemon of {resource} is down: {why}")),
            None => Some(format!("the MPS control daemon of {resource} does not run yet")),
        }
    }

    /// Why daemons that should run do not.
    pub fn why_not_ready(&self) -> Option<String> {
        let wanted = self.wanted.borrow();
        wanted.iter().flatten().find_map(|wanted| self.why_down(&wanted.gpus.first()?.uuid))
    }

    /// Changes when a daemon goes up or down.
    pub fn changes(&self) -> watch::Receiver<Daemons> {
        self.daemons.subscribe()
    }

    fn control(&self, resource: &ResourceName) -> Control {
        Control { pipe: self.folders.pipe(resource), log: self.folders.log(resource) }
    }
}
