//! A kube-scheduler, as far as pods and extenders see it.
//!
//! It takes one pending pod after another, asks its in-tree filters, then the extenders over HTTP
//! exactly as kube-scheduler 1.36 does, adds the extenders' points to its own scores, breaks ties at
//! random, and binds. It knows a cluster only through the trait [`Cluster`]; the API server stand-in's
//! [`Store`](crate::api_server::Store) is one.
//!
//! ```text
//!   Cluster ──watch──► cache (nodes, pods, assumed) ──► filter ──► extenders ──► score ──► choose
//!                └───► queue (active, backing off, parked)                                  │
//!   Cluster ◄──bind── (the extender with a bindVerb, or itself) ◄───────────────────────────┘
//! ```
//!
//! What it leaves out: preemption and nominated nodes; affinity beyond `nodeSelector`, ports, volumes
//! and topology spread (kube-scheduler's default spreads a ReplicaSet's pods still wider); sampling of
//! nodes (below 100 nodes kube-scheduler looks at all of them, too); to try a pod before its back-off has
//! passed when no other waits (kube-scheduler has done so since 1.33); events and the pod's
//! `PodScheduled` condition ([`Status::waiting`] has its words instead).
//!
//! [`Cache`], [`Pod`], [`Node`] and [`choose`] are pure: a simulation of the stock policy runs on them
//! without any cluster.

mod amounts;
mod cache;
mod choose;
mod cluster;
mod configuration;
mod cycle;
mod extender;
mod filter;
mod objects;
mod options;
mod quantity;
mod queue;
mod run;
mod score;
mod store;

use std::collections::BTreeMap;

use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::JoinHandle;

pub use self::amounts::{Amounts, PodAmounts};
pub use self::cache::Cache;
pub use self::choose::{Unfit, choose};
pub use self::cluster::{BindError, Cluster, Listing, PodName, Told};
pub use self::configuration::ConfigurationError;
pub use self::objects::{Node, Pod, Taint, Toleration};
pub use self::options::{ExtenderOptions, Profile, SchedulerOptions};
pub use self::queue::QueueOptions;
pub use self::score::ScoreWeights;

use self::run::Run;

/// Questions that may be on their way to the scheduler at once.
const COMMANDS_MAX: usize = 16;

enum Command {
    Idle(oneshot::Sender<()>),
    Retry(oneshot::Sender<()>),
}

/// What the scheduler is at.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Status {
    /// Cycles so far.
    pub attempts: u64,
    /// Pods that no node took and that wait for something to happen.
    pub parked: usize,
    /// Pods that wait for their back-off.
    pub backing_off: usize,
    /// Bindings on their way.
    pub binding: usize,
    /// Pods without a node, as `namespace/name`, and why.
    pub waiting: BTreeMap<String, Waiting>,
}

/// Why a pod waits, in the words of the condition `PodScheduled`; empty before the first try.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Waiting {
    /// `Unschedulable` where no node takes it, `SchedulerError` where something went wrong.
    pub reason: &'static str,
    /// The text, which is also that of kube-scheduler's event.
    pub message: String,
}

/// The scheduler has ended: the cluster's watch is over for good, or it panicked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the scheduler stand-in has ended")]
pub struct Ended;

/// A running scheduler; it ends when dropped. See the [module](self).
#[derive(Debug)]
pub struct Scheduler {
    commands: mpsc::Sender<Command>,
    status: watch::Receiver<Status>,
    running: JoinHandle<()>,
}

impl Scheduler {
    /// Starts a scheduler on a cluster. Must be called within a tokio runtime.
    pub fn start(cluster: impl Cluster, options: SchedulerOptions) -> Self {
        let (commands, received) = mpsc::channel(COMMANDS_MAX);
        let (publish, status) = watch::channel(Status::default());
        let running = tokio::spawn(Run::new(cluster, options, received, publish).run());
        Self { commands, status, running }
    }

    /// Waits until there is nothing to do: everything that is in the cluster has been seen, every
    /// pending pod has been tried since the last thing that could help it, and no binding is on its way.
    ///
    /// There is no deadline: a pod that fails again and again with errors is never done. Use
    /// `tokio::time::timeout`.
    ///
    /// # Errors
    /// [`Ended`].
    pub async fn idle(&self) -> Result<(), Ended> {
        self.ask(Command::Idle).await
    }

    /// Tries every parked pod again, as kube-scheduler does by itself after 5 minutes at the latest: for
    /// a caller whose clock runs faster.
    ///
    /// # Errors
    /// [`Ended`].
    pub async fn retry(&self) -> Result<(), Ended> {
        self.ask(Command::Retry).await
    }

    /// What it is at, now and with every change.
    pub fn status(&self) -> watch::Receiver<Status> {
        self.status.clone()
    }

    async fn ask(&self, command: impl FnOnce(oneshot::Sender<()>) -> Command) -> Result<(), Ended> {
        let (answer, answered) = oneshot::channel();
        self.commands.send(command(answer)).await.map_err(|_| Ended)?;
        answered.await.map_err(|_| Ended)
    }
}

impl Drop for Scheduler {
    fn drop(&mut self) {
        self.running.abort();
    }
}
