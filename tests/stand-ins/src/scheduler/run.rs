//! The scheduler's one task: it owns the cache and the queue, and everything else reaches it as a
//! message.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use futures::stream::BoxStream;
use futures::{FutureExt, StreamExt};
use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;
use serde_json::Value;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until};

use super::cache::Cache;
use super::cluster::{Cluster, Listing, PodName, Told, Versions};
use super::cycle::{NoNode, chain, cycle};
use super::extender::Extender;
use super::objects::{Node, Pod};
use super::options::SchedulerOptions;
use super::queue::{ClusterEvent, Failure, Queue};
use super::{Command, Status, Waiting};

/// The reasons of a pod's condition `PodScheduled`.
const UNSCHEDULABLE: &str = "Unschedulable";
const SCHEDULER_ERROR: &str = "SchedulerError";

/// What a binding's task says at its end: the pod's UID, and the error if there was one.
type Bound = (String, Result<(), String>);

pub(super) struct Run<C> {
    cluster: Arc<C>,
    told: BoxStream<'static, Told>,
    commands: mpsc::Receiver<Command>,
    status: watch::Sender<Status>,
    options: SchedulerOptions,
    extenders: Vec<Extender>,
    cache: Cache,
    queue: Queue,
    /// The versions of everything that was told.
    seen: Versions,
    nodes: BTreeMap<String, Node>,
    /// Pods whose binding is on its way or not yet told back, by UID.
    assumed: BTreeMap<String, (Arc<Pod>, String)>,
    bindings: JoinSet<Bound>,
    /// Who wants to know when there is nothing left to do.
    idle: Vec<oneshot::Sender<()>>,
    random: ChaCha8Rng,
}

impl<C: Cluster> Run<C> {
    pub(super) fn new(
        cluster: C,
        options: SchedulerOptions,
        commands: mpsc::Receiver<Command>,
        status: watch::Sender<Status>,
    ) -> Self {
        let told = cluster.watch();
        // Ignorable extenders are asked last.
        let (ignorable, strict): (Vec<_>, Vec<_>) =
            options.extenders.iter().cloned().map(Extender::new).partition(|e| e.options.ignorable);
        Self {
            cluster: Arc::new(cluster),
            told,
            commands,
            status,
            extenders: strict.into_iter().chain(ignorable).collect(),
            cache: Cache::default(),
            queue: Queue::new(options.queue),
            seen: Versions::new(),
            nodes: BTreeMap::new(),
            assumed: BTreeMap::new(),
            bindings: JoinSet::new(),
            idle: Vec::new(),
            random: ChaCha8Rng::seed_from_u64(options.seed),
            options,
        }
    }

    /// Runs until the handle is dropped, or the cluster's watch ends for good.
    pub(super) async fn run(mut self) {
        loop {
            // All that is known counts before the next pod is tried.
            while let Some(told) = self.told.next().now_or_never() {
                let Some(told) = told else { return };
                self.hear(told);
            }
            while let Some(Ok(bound)) = self.bindings.try_join_next() {
                self.bound(bound);
            }
            if let Some(pod) = self.queue.pop(Instant::now()) {
                self.try_pod(pod).await;
                continue;
            }
            self.publish();
            self.tell_idle();
            let deadline = self.queue.next_deadline();
            tokio::select! {
                told = self.told.next() => match told {
                    Some(told) => self.hear(told),
                    None => return,
                },
                Some(bound) = self.bindings.join_next() => {
                    if let Ok(bound) = bound {
                        self.bound(bound);
                    }
                }
                command = self.commands.recv() => match command {
                    Some(Command::Idle(answer)) => self.idle.push(answer),
                    Some(Command::Retry(answer)) => {
                        self.queue.wake(ClusterEvent::Flush, Instant::now());
                        // Nobody may be listening any more.
                        let _ = answer.send(());
                    }
                    None => return,
                },
                () = until(deadline) => {}
            }
        }
    }

    async fn try_pod(&mut self, pod: Arc<Pod>) {
        let profile =
            self.options.profiles.iter().find(|profile| profile.scheduler_name == pod.scheduler_name);
        let weights = profile.map(|profile| profile.weights).unwrap_or_default();
        let chosen = cycle(&self.cache, &self.extenders, &pod, weights, &mut self.random).await;
        self.status.send_modify(|status| status.attempts += 1);
        let now = Instant::now();
        match chosen {
            Ok(node) => self.start_binding(pod, node).await,
            Err(NoNode::Unfit(unfit)) => {
                self.explain(&pod, UNSCHEDULABLE, unfit.to_string());
                self.queue.fail(&pod.uid, Failure::Unfit(unfit.by), now);
            }
            Err(NoNode::Error(error)) => {
                tracing::debug!(pod.namespace = pod.namespace, pod.name = pod.name, error, "A cycle failed.");
                self.explain(&pod, SCHEDULER_ERROR, error);
                self.queue.fail(&pod.uid, Failure::Error, now);
            }
        }
    }

    /// Assumes the pod on its node, and binds it beside the next cycles.
    async fn start_binding(&mut self, pod: Arc<Pod>, node: String) {
        self.cache.place(pod.clone(), &node);
        self.assumed.insert(pod.uid.clone(), (pod.clone(), node.clone()));
        let binder = self.extenders.iter().find(|e| e.is_binder() && e.is_interested(&pod)).cloned();
        let cluster = self.cluster.clone();
        self.bindings.spawn(async move {
            let name =
                PodName { namespace: pod.namespace.clone(), name: pod.name.clone(), uid: pod.uid.clone() };
            let by_extender = match &binder {
                Some(extender) => Some((extender, extender.bind(&name, &node).await)),
                None => None,
            };
            let result = match by_extender {
                Some((_, Ok(()))) => Ok(()),
                Some((extender, Err(error))) if !extender.options.ignorable => Err(chain(&error)),
                Some(_) | None => cluster.bind(&name, &node).await.map_err(|error| error.to_string()),
            };
            (name.uid, result)
        });
        while self.bindings.len() > self.options.bindings_max {
            if let Some(Ok(bound)) = self.bindings.join_next().await {
                self.bound(bound);
            }
        }
    }

    /// A binding has ended. One that failed may have happened all the same, and be told already.
    fn bound(&mut self, (uid, result): Bound) {
        let Err(error) = result else { return };
        let Some((pod, _)) = self.assumed.remove(&uid) else { return };
        tracing::debug!(pod.namespace = pod.namespace, pod.name = pod.name, error, "A binding failed.");
        let now = Instant::now();
        self.cache.remove_pod(&uid);
        self.queue.wake(ClusterEvent::PodGone, now);
        self.explain(&pod, SCHEDULER_ERROR, error);
        self.queue.fail(&uid, Failure::Error, now);
    }

    fn hear(&mut self, told: Told) {
        let remember = |seen: &mut Versions, object: &Value, there: bool| {
            let text = |key: &str| object["metadata"][key].as_str().unwrap_or_default().to_owned();
            if there {
                seen.insert(text("uid"), text("resourceVersion"))
            } else {
                seen.remove(&text("uid"))
            };
        };
        match told {
            Told::All(listing) => self.hear_all(listing),
            Told::Pod(object) => {
                remember(&mut self.seen, &object, true);
                self.hear_pod(Arc::new(Pod::read(object)));
            }
            Told::PodGone(object) => {
                remember(&mut self.seen, &object, false);
                self.hear_pod_gone(&Pod::read(object).uid);
            }
            Told::Node(object) => {
                remember(&mut self.seen, &object, true);
                self.hear_node(Node::read(&object));
            }
            Told::NodeGone(object) => {
                remember(&mut self.seen, &object, false);
                let name = Node::read(&object).name;
                self.nodes.remove(&name);
                self.cache.remove_node(&name);
            }
        }
    }

    /// Everything anew: what is not in the list is gone.
    fn hear_all(&mut self, listing: Listing) {
        let there = listing.versions();
        let gone: BTreeSet<String> =
            self.seen.keys().filter(|uid| !there.contains_key(*uid)).cloned().collect();
        gone.iter().for_each(|uid| self.hear_pod_gone(uid));
        self.seen = there;
        let nodes: Vec<Node> = listing.nodes.iter().map(|object| Node::read(object)).collect();
        for name in self.nodes.keys().filter(|name| nodes.iter().all(|node| node.name != **name)) {
            self.cache.remove_node(name);
        }
        self.nodes.clear();
        nodes.into_iter().for_each(|node| self.hear_node(node));
        listing.pods.into_iter().for_each(|pod| self.hear_pod(Arc::new(Pod::read(pod))));
    }

    fn hear_node(&mut self, node: Node) {
        let known = self.nodes.insert(node.name.clone(), node.clone());
        // A heartbeat changes nothing that a pod could wait for.
        let same = |known: Node| Node { version: node.version.clone(), ..known } == node;
        if known.is_none_or(|known| !same(known)) {
            self.cache.set_node(node);
            self.queue.wake(ClusterEvent::Node, Instant::now());
        }
    }

    fn hear_pod(&mut self, pod: Arc<Pod>) {
        let now = Instant::now();
        if pod.ended {
            return self.hear_pod_gone(&pod.uid);
        }
        if !pod.node_name.is_empty() {
            let assumed = self.assumed.remove(&pod.uid).is_some();
            let news = assumed || self.cache.node_of(&pod.uid).is_none();
            self.queue.remove(&pod.uid);
            self.status.send_if_modified(|status| status.waiting.remove(&pod.full_name()).is_some());
            let node = pod.node_name.clone();
            self.cache.place(pod, &node);
            if news {
                self.queue.wake(ClusterEvent::PodPlaced, now);
            }
            return;
        }
        let ours = self.options.profiles.iter().any(|profile| profile.scheduler_name == pod.scheduler_name);
        if !ours || pod.held_back {
            self.forget(&pod.uid);
        } else if !self.assumed.contains_key(&pod.uid) {
            self.status.send_if_modified(|status| {
                let new = !status.waiting.contains_key(&pod.full_name());
                status.waiting.entry(pod.full_name()).or_default();
                new
            });
            self.queue.put(pod, now);
        }
    }

    fn hear_pod_gone(&mut self, uid: &str) {
        self.forget(uid);
        self.assumed.remove(uid);
        if self.cache.remove_pod(uid) {
            self.queue.wake(ClusterEvent::PodGone, Instant::now());
        }
    }

    /// A pod that is not to be scheduled, or no longer.
    fn forget(&mut self, uid: &str) {
        if let Some(pod) = self.queue.remove(uid) {
            self.status.send_if_modified(|status| status.waiting.remove(&pod.full_name()).is_some());
        }
    }

    fn explain(&self, pod: &Pod, reason: &'static str, message: String) {
        let why = Waiting { reason, message };
        self.status.send_if_modified(|status| match status.waiting.get_mut(&pod.full_name()) {
            Some(known) if *known != why => {
                *known = why;
                true
            }
            _ => false,
        });
    }

    fn publish(&self) {
        let counts = self.queue.counts();
        let binding = self.bindings.len();
        self.status.send_if_modified(|status| {
            let now = (counts.parked, counts.backing_off, binding);
            let changed = (status.parked, status.backing_off, status.binding) != now;
            (status.parked, status.backing_off, status.binding) = now;
            changed
        });
    }

    /// Answers those who wait for quiet, if it is: nothing to try, nothing on its way, nothing unheard.
    fn tell_idle(&mut self) {
        let counts = self.queue.counts();
        let busy = counts.active + counts.backing_off + self.bindings.len() + self.assumed.len() > 0;
        if busy || self.idle.is_empty() || self.cluster.list().versions() != self.seen {
            return;
        }
        for answer in self.idle.drain(..) {
            // Nobody may be listening any more.
            let _ = answer.send(());
        }
    }
}

async fn until(deadline: Option<Instant>) {
    match deadline {
        Some(deadline) => sleep_until(deadline).await,
        None => std::future::pending().await,
    }
}
