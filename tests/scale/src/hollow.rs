//! All kubelets and device plugins of the hollow nodes, played by two tasks.
//!
//! One watches the new pods ([`LABEL`](crate::shapes::LABEL)): a pod that has got a node is admitted there, by the node's book
//! ([`crate::book`]). The other writes, as plugins and kubelets do, what has changed: GpuNodes first, then pods that
//! run; and each GpuNode at least as often as a real plugin would.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow};
use futures::{StreamExt, stream};
use k8s_openapi::api::core::v1::Pod;
use kube::api::ApiResource;
use kube::core::Object;
use kube::runtime::watcher::{self, Event};
use kube::runtime::{WatchStreamExt, watcher as watch_objects};
use kube::{Api, Client};
use serde_json::{Value, json};
use stowage_shared::contract::{GPU_NODE_CONFIRM, GPU_NODE_HEARTBEAT, PLAN_ANNOTATION};
use stowage_shared::plan::Plan;
use tokio::sync::watch;
use tokio::task::JoinHandle;

use crate::api;
use crate::book::{Books, Confirmed, Holder};
use crate::record::{Next, Record, Spec, Status};
use crate::shapes::LABEL;

/// How often changes are written. A real kubelet takes longer to start a container.
const WRITE_EVERY: Duration = Duration::from_millis(250);
/// Calls of the API server at once.
const CALLS: usize = 16;
/// A GpuNode is written so long after its last write: what plugins take on average.
const HEARTBEAT: Duration = Duration::from_secs(GPU_NODE_HEARTBEAT.as_secs() - 50);

/// The phase of a pod that was admitted.
const RUNNING: &str = "Running";
/// The phase of one that was not, as a kubelet that finds no device for it says.
const FAILED: &str = "Failed";

type Seen = Object<Spec, Status>;

/// A hollow node that has been created.
#[derive(Debug)]
pub struct Registered {
    /// Its name.
    pub name: String,
    /// Its book.
    pub book: crate::book::NodeBook,
}

/// What the tasks share.
#[derive(Debug, Default)]
pub struct State {
    /// What became of the pods.
    pub record: Record,
    /// The nodes' books.
    pub books: Books,
    /// What was counted.
    pub counts: Counts,
    /// Pods that did not get what they were promised: who, where, what, and who had it.
    pub surprises: Vec<String>,
    written: HashMap<String, Instant>,
    /// When each changed GpuNode is written.
    dirty: BTreeMap<String, Instant>,
    to_tell: Vec<(String, &'static str)>,
}

/// What the hollow kubelets and plugins did.
#[derive(Debug, Clone, Copy, Default)]
pub struct Counts {
    /// Pods that got the devices of their plans.
    pub as_planned: usize,
    /// Pods that got others, since another pod had been promised the same.
    pub otherwise: usize,
    /// Pods for which nothing was left: a kubelet would have failed them.
    pub not_admitted: usize,
    /// Pods without a plan that can be read.
    pub unplanned: usize,
    /// Writes of GpuNodes after a change.
    pub gpu_nodes_written: usize,
    /// Writes of GpuNodes that only say that the plugin lives.
    pub heartbeats: usize,
    /// Writes of pods that run.
    pub pods_written: usize,
    /// Calls that failed.
    pub faults: usize,
}

/// The running tasks. They end when this is dropped.
#[derive(Debug)]
pub struct Hollow {
    state: Arc<Mutex<State>>,
    changed: watch::Receiver<()>,
    tasks: Vec<JoinHandle<()>>,
}

impl Hollow {
    /// Starts them for these nodes.
    pub fn start(client: &Client, nodes: Vec<Registered>) -> Self {
        let mut state = State::default();
        let (now, count) = (Instant::now(), u32::try_from(nodes.len()).unwrap_or(u32::MAX).max(1));
        for (n, node) in (0..).zip(nodes) {
            // Plugins that have run for long do not write together.
            let ago = HEARTBEAT * n / count;
            state.written.insert(node.name.clone(), now.checked_sub(ago).unwrap_or(now));
            state.books.insert(node.name, node.book);
        }
        let state = Arc::new(Mutex::new(state));
        let (tell, changed) = watch::channel(());
        let tasks = vec![
            tokio::spawn(watch_pods(client.clone(), Arc::clone(&state), tell)),
            tokio::spawn(write(client.clone(), Arc::clone(&state))),
        ];
        Self { state, changed, tasks }
    }

    /// What is known now.
    pub fn state(&self) -> MutexGuard<'_, State> {
        lock(&self.state)
    }

    /// Waits until `look` answers `Ok`; asks again with each change.
    ///
    /// # Errors
    /// After `limit`, with what was waited for and what `look` said last.
    pub async fn wait<T>(
        &self,
        limit: Duration,
        what: &str,
        look: impl Fn(&State) -> Result<T>,
    ) -> Result<T> {
        let deadline = tokio::time::Instant::now() + limit;
        let mut changed = self.changed.clone();
        loop {
            changed.mark_unchanged();
            let not_yet = match look(&self.state()) {
                Ok(found) => return Ok(found),
                Err(error) => error,
            };
            match tokio::time::timeout_at(deadline, changed.changed()).await {
                Ok(told) => told.context("the watch on pods ended")?,
                Err(_) => {
                    return Err(anyhow!(
                        "gave up waiting for {what} after {limit:?}; last seen: {not_yet:#}"
                    ));
                }
            }
        }
    }
}

impl Drop for Hollow {
    fn drop(&mut self) {
        self.tasks.iter().for_each(JoinHandle::abort);
    }
}

fn lock(state: &Mutex<State>) -> MutexGuard<'_, State> {
    // A panic elsewhere leaves counts a little wrong, and a run that has failed anyway.
    state.lock().unwrap_or_else(PoisonError::into_inner)
}

async fn watch_pods(client: Client, state: Arc<Mutex<State>>, tell: watch::Sender<()>) {
    let pods: Api<Seen> = Api::default_namespaced_with(client, &ApiResource::erase::<Pod>(&()));
    let config = watcher::Config::default().labels(LABEL);
    let mut events = std::pin::pin!(watch_objects(pods, config).default_backoff());
    while let Some(event) = events.next().await {
        let now = Instant::now();
        let mut state = lock(&state);
        match event {
            Ok(Event::Apply(pod) | Event::InitApply(pod)) => state.see(&pod, now),
            Ok(Event::Delete(pod)) => state.gone(&pod, now),
            Ok(Event::Init | Event::InitDone) => {}
            Err(_) => state.counts.faults += 1,
        }
        drop(state);
        // Nobody waits: no matter.
        let _ = tell.send(());
    }
}

/// GpuNodes to write, by name, and pods that change their phase.
type Due = (Vec<(String, Value)>, Vec<(String, &'static str)>);

impl State {
    fn see(&mut self, pod: &Seen, now: Instant) {
        let (Some(name), Some(uid)) = (&pod.metadata.name, &pod.metadata.uid) else { return };
        let status = pod.status.clone().unwrap_or_default();
        if self.record.see(name, uid, &pod.spec, &status, now) == Next::Admit {
            self.admit(pod, name, uid, now);
        }
    }

    fn admit(&mut self, pod: &Seen, name: &str, uid: &str, now: Instant) {
        let node = pod.spec.node_name.as_deref().unwrap_or_default();
        let annotations = pod.metadata.annotations.as_ref();
        let plan = annotations.and_then(|all| Plan::parse(all.get(PLAN_ANNOTATION)?).ok());
        let (Some(plan), Some(book)) = (plan, self.books.get_mut(node)) else {
            self.counts.unplanned += 1;
            self.to_tell.push((name.to_owned(), RUNNING));
            return;
        };
        let holder = Holder {
            namespace: pod.metadata.namespace.clone().unwrap_or_default(),
            name: name.to_owned(),
            uid: uid.to_owned(),
        };
        let confirmed = book.confirm(&holder, &plan);
        if confirmed != Confirmed::AsPlanned {
            let held = book.holders();
            self.surprises
                .push(format!("{name} on {node}: {confirmed:?}, planned {plan:?}; held now: {held}"));
        }
        match confirmed {
            Confirmed::AsPlanned => self.counts.as_planned += 1,
            Confirmed::Otherwise => self.counts.otherwise += 1,
            Confirmed::NotAdmitted => self.counts.not_admitted += 1,
        }
        let phase = if confirmed == Confirmed::NotAdmitted { FAILED } else { RUNNING };
        self.to_tell.push((name.to_owned(), phase));
        // As a real plugin does: what is as planned can wait.
        let due = if confirmed == Confirmed::AsPlanned { now + GPU_NODE_CONFIRM } else { now };
        self.is_due(node.to_owned(), due);
    }

    fn is_due(&mut self, node: String, at: Instant) {
        let due = self.dirty.entry(node).or_insert(at);
        *due = at.min(*due);
    }

    fn gone(&mut self, pod: &Seen, now: Instant) {
        let (Some(name), Some(uid)) = (&pod.metadata.name, &pod.metadata.uid) else { return };
        let Some(fate) = self.record.fates.get(name).filter(|fate| &fate.uid == uid) else { return };
        if let Some(node) = fate.node.clone()
            && self.books.get_mut(&node).is_some_and(|book| book.release(uid))
        {
            self.is_due(node, now);
        }
        self.record.fates.remove(name);
    }

    /// What is to be written now: GpuNodes by name, and the phases of pods.
    fn take(&mut self, now: Instant) -> Due {
        let changed = self.dirty.extract_if(.., |_, due| *due <= now).map(|(name, _)| name);
        let mut names: BTreeSet<String> = changed.collect();
        self.counts.gpu_nodes_written += names.len();
        let changed = names.len();
        names.extend(
            self.written
                .iter()
                .filter(|(_, written)| now.duration_since(**written) >= HEARTBEAT)
                .map(|(name, _)| name.clone()),
        );
        self.counts.heartbeats += names.len() - changed;
        let observed_at = jiff::Timestamp::now().to_string();
        let writes = names.into_iter().filter_map(|name| {
            let allocations = &self.books.get(&name)?.status().allocations;
            let change = json!({"status": {"observedAt": observed_at, "allocations": allocations}});
            self.written.insert(name.clone(), now);
            Some((name, change))
        });
        let writes = writes.collect();
        (writes, std::mem::take(&mut self.to_tell))
    }
}

async fn write(client: Client, state: Arc<Mutex<State>>) {
    let mut ticks = tokio::time::interval(WRITE_EVERY);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        let (gpu_nodes, pods) = lock(&state).take(Instant::now());
        let path = |name: &str| format!("{}/{name}/status", api::gpu_nodes());
        let changes = gpu_nodes.into_iter().map(|(name, change)| (path(&name), change)).collect();
        send(&client, &state, changes).await;
        let told = pods.len();
        let path = |name: &str| format!("{}/{name}/status", api::PODS);
        let change = |phase: &'static str| json!({"status": {"phase": phase}});
        let changes = pods.into_iter().map(|(name, phase)| (path(&name), change(phase))).collect();
        send(&client, &state, changes).await;
        lock(&state).counts.pods_written += told;
    }
}

async fn send(client: &Client, state: &Mutex<State>, changes: Vec<(String, Value)>) {
    let calls = changes.into_iter().map(|(path, change)| {
        let client = client.clone();
        async move { api::merge(&client, &path, &change).await }
    });
    let mut answers = stream::iter(calls.collect::<Vec<_>>()).buffer_unordered(CALLS);
    while let Some(answer) = answers.next().await {
        match answer {
            // A pod that was deleted meanwhile.
            Ok(()) => {}
            Err(kube::Error::Api(status)) if status.code == 404 => {}
            Err(_) => lock(state).counts.faults += 1,
        }
    }
}

#[cfg(test)]
mod tests;
