//! What the stand-in's tasks share: the state, and the tasks themselves.
//!
//! One lock over the state, as the device manager has one; never held over an `.await`.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Mutex, MutexGuard, PoisonError};

use tokio::sync::watch;
use tokio::task::{AbortHandle, JoinSet};
use tokio::time::Instant;

use super::books::{Allocatable, Books};
use super::options::KubeletOptions;
use super::plugins::Plugins;
use super::pod::PodToAdmit;

/// See the module.
#[derive(Debug)]
pub(super) struct Shared {
    pub(super) options: KubeletOptions,
    /// The kubelet admits one pod at a time, in its sync loop: a queue, in order of arrival. It is
    /// held over calls to plugins, since a slow plugin stalls the real node's admissions too.
    pub(super) sync_loop: tokio::sync::Mutex<()>,
    allocatable: watch::Sender<Allocatable>,
    state: Mutex<State>,
    /// Servers, streams and timers of this life.
    tasks: Mutex<JoinSet<()>>,
}

/// Everything that changes.
#[derive(Debug)]
pub(super) struct State {
    pub(super) books: Books,
    pub(super) plugins: Plugins,
    /// By UID.
    pub(super) pods: BTreeMap<String, KnownPod>,
    /// Counts starts; `None` while stopped.
    life: Option<u64>,
    lives: u64,
}

/// A pod that the API server has bound to the node.
#[derive(Debug)]
pub(super) struct KnownPod {
    pub(super) pod: PodToAdmit,
    /// Neither refused nor ended.
    pub(super) active: bool,
}

impl State {
    pub(super) fn is_running(&self) -> bool {
        self.life.is_some()
    }

    /// The pod has failed at admission: what it holds is free for the next pod that asks.
    pub(super) fn refuse(&mut self, pod_uid: &str) {
        if let Some(known) = self.pods.get_mut(pod_uid) {
            known.active = false;
        }
    }

    /// Frees the devices of pods that have ended or were refused.
    pub(super) fn free_ended(&mut self) {
        let active = self.pods.iter().filter(|(_, known)| known.active);
        let active: BTreeSet<&str> = active.map(|(uid, _)| uid.as_str()).collect();
        self.books.free_all_but(&active);
    }
}

impl Shared {
    pub(super) fn new(options: KubeletOptions) -> Self {
        let books = Books::new(options.seed);
        let state = State { books, plugins: Plugins::default(), pods: BTreeMap::new(), life: None, lives: 0 };
        Self {
            options,
            sync_loop: tokio::sync::Mutex::new(()),
            allocatable: watch::Sender::new(Allocatable::new()),
            state: Mutex::new(state),
            tasks: Mutex::new(JoinSet::new()),
        }
    }

    pub(super) fn state(&self) -> MutexGuard<'_, State> {
        // A panic under the lock ends a test anyway; it should not hide behind a second one.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Runs `act` if the kubelet still lives the same life.
    pub(super) fn in_life<T>(&self, life: u64, act: impl FnOnce(&mut State) -> T) -> Option<T> {
        let mut state = self.state();
        // Under the lock, so that the life cannot end in between.
        (state.life == Some(life)).then(|| act(&mut state))
    }

    /// Begins a life: the checkpoint is read, the plugins are not there yet.
    pub(super) fn begin_life(&self) -> u64 {
        let mut state = self.state();
        state.books.restart(Instant::now());
        state.plugins.restart();
        state.lives += 1;
        state.life = Some(state.lives);
        state.lives
    }

    /// Ends a life: no server, no stream, no timer is left afterwards. What the Node's status told
    /// last stays told, since there is nobody to change it.
    pub(super) async fn end_life(&self) {
        self.state().life = None;
        let mut tasks = std::mem::take(&mut *self.tasks());
        tasks.shutdown().await;
        self.state().plugins.restart();
    }

    /// Ends all tasks without waiting for them.
    pub(super) fn abandon(&self) {
        self.state().life = None;
        self.tasks().abort_all();
    }

    /// Starts a task of this life.
    pub(super) fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) -> AbortHandle {
        let mut tasks = self.tasks();
        // Those that have ended are let go here, so that the set does not grow with every stream.
        while let Some(ended) = tasks.try_join_next() {
            if let Err(error) = ended
                && error.is_panic()
            {
                tracing::error!(node = self.options.node_name, %error, "A task of the kubelet stand-in failed.");
            }
        }
        tasks.spawn(task)
    }

    /// Tells watchers how many devices there are now, if that has changed.
    pub(super) fn publish(&self) -> Allocatable {
        let mut state = self.state();
        if state.is_running() {
            let counts = state.books.counts(Instant::now(), self.options.endpoint_stop_grace_period);
            // Under the lock, so that a newer count is never overtaken by an older one.
            self.allocatable.send_if_modified(|told| {
                let changed = *told != counts;
                *told = counts;
                changed
            });
        }
        self.allocatable.borrow().clone()
    }

    pub(super) fn watch_allocatable(&self) -> watch::Receiver<Allocatable> {
        self.allocatable.subscribe()
    }

    fn tasks(&self) -> MutexGuard<'_, JoinSet<()>> {
        self.tasks.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
