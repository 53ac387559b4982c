//! The watches where the book is kept: each object is told to the state and to the book.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use futures::StreamExt;
use kube::Client;
use kube::runtime::watcher;
use ops::chain;
use tokio::sync::Notify;

use super::objects::{Budget, Node, Pod};
use super::read::{BudgetObject, NodeObject, PodObject};
use super::{Book, Settled};
use crate::health::Kind;
use crate::planner::rush::Rush;
use crate::seldom::Seldom;
use crate::state::event::{self, Change, Event};
use crate::watch::{self, Feed, WatchEnded};

/// Pods that wait no longer and of which nobody has taken notice; beyond that they are forgotten.
const SETTLED_MAX: usize = 65_536;
/// How often a failing watch on PodDisruptionBudgets is logged at most.
const COMPLAINT_EVERY: std::time::Duration = std::time::Duration::from_secs(60);

/// The book, for those who fill it and those who read it.
#[derive(Debug)]
pub struct Desk {
    inner: Mutex<Inner>,
    changed: Notify,
    keep: Keep,
    /// What is told of nominations.
    pub rush: Arc<Rush>,
}

/// What is kept beside what everybody needs.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Keep {
    /// Pods that wait no longer, for somebody who takes notice.
    pub settled: bool,
    /// Where bound pods might go as well, for somebody who moves them.
    pub movable: bool,
}

/// The book, and what happened since somebody looked.
#[derive(Debug, Default)]
pub struct Inner {
    /// The book.
    pub book: Book,
    /// Pods that wait no longer.
    pub settled: Vec<Settled>,
    /// Whether PodDisruptionBudgets were listed completely: before, nobody is evicted.
    pub budgets_known: bool,
}

impl Desk {
    /// An empty book; `rush` is told who is nominated.
    pub fn new(keep: Keep, rush: Arc<Rush>) -> Self {
        Self { inner: Mutex::default(), changed: Notify::new(), keep, rush }
    }

    /// Opens the book. Never over an `.await`.
    pub fn open(&self) -> MutexGuard<'_, Inner> {
        // What a panic leaves behind is at worst a hint that misleads: the watch tells all anew.
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits until something was written.
    pub async fn changed(&self) {
        self.changed.notified().await;
    }

    fn write(&self, write: impl FnOnce(&mut Inner)) {
        write(&mut self.open());
        self.changed.notify_one();
    }

    fn pod(&self, change: Change<PodObject>) -> Event {
        let (narrow, wide) = split(change, PodObject::narrow);
        self.tell_of_nominations(&narrow);
        self.write(|inner| {
            let wide = map(wide, |object| {
                let mut pod = Pod::of(object, &mut inner.book.names);
                if !self.keep.movable {
                    pod.forget_where_it_may_go();
                }
                pod
            });
            let settled = inner.book.apply_pod(wide);
            if self.keep.settled {
                inner.settled.extend(settled);
                inner.settled.truncate(SETTLED_MAX);
            }
        });
        Event::Pod(narrow)
    }

    fn tell_of_nominations(&self, change: &Change<event::Pod>) {
        // For whom filter may wait.
        let waits = |pod: &event::Pod| {
            pod.ours && pod.asks_for_extended_resources() && pod.node.is_empty() && !pod.terminal
        };
        match change {
            Change::Listed(pod) if waits(pod) => self.rush.waits(&pod.uid),
            Change::Applied(pod) if waits(pod) => match pod.nominated.is_empty() {
                true => self.rush.not_nominated(&pod.uid),
                false => self.rush.nominated(&pod.uid),
            },
            Change::Applied(event::Pod { uid, .. }) | Change::Deleted(uid) => self.rush.settled(uid),
            Change::ListBegins => self.rush.begin_anew(),
            Change::Listed(_) | Change::ListEnds => {}
        }
    }

    fn node(&self, change: Change<NodeObject>) -> Event {
        let (narrow, wide) = split(change, NodeObject::narrow);
        self.write(|inner| {
            let wide = map(wide, |object| Node::of(object, &mut inner.book.names));
            inner.book.apply_node(wide);
        });
        Event::Node(narrow)
    }
}

/// Watches pods for the state and the book.
///
/// # Errors
/// [`WatchEnded`].
pub async fn pods(client: Client, feed: Feed, desk: Arc<Desk>) -> Result<(), WatchEnded> {
    let config = watch::live_pods();
    watch::run::<PodObject>(Kind::Pods, client, config, feed, move |change| desk.pod(change)).await
}

/// Watches nodes for the state and the book.
///
/// # Errors
/// [`WatchEnded`].
pub async fn nodes(client: Client, feed: Feed, desk: Arc<Desk>) -> Result<(), WatchEnded> {
    let config = watcher::Config::default();
    watch::run::<NodeObject>(Kind::Nodes, client, config, feed, move |change| desk.node(change)).await
}

/// Watches PodDisruptionBudgets for the book.
///
/// # Errors
/// [`WatchEnded`].
pub async fn budgets(client: Client, desk: Arc<Desk>) -> Result<(), WatchEnded> {
    let complaint = Seldom::every(COMPLAINT_EVERY);
    let mut events = std::pin::pin!(watch::stream::<BudgetObject>(client, watcher::Config::default()));
    while let Some(told) = events.next().await {
        match told {
            Ok(told) => {
                let change = map(watch::change(told), Budget::of);
                desk.write(|inner| {
                    inner.budgets_known |= matches!(change, Change::ListEnds);
                    inner.book.apply_budget(change);
                });
            }
            Err(error) if complaint.now() => tracing::warn!(
                error = chain(&error),
                "PodDisruptionBudgets cannot be watched, and nobody is evicted until they were listed; is \
                 deploy/options/preemption.yaml or defrag.yaml applied?"
            ),
            Err(_) => {}
        }
    }
    Err(WatchEnded::Budgets)
}

fn split<T, N>(change: Change<T>, narrow: impl Fn(&T) -> N) -> (Change<N>, Change<T>) {
    let narrow = match &change {
        Change::ListBegins => Change::ListBegins,
        Change::Listed(object) => Change::Listed(narrow(object)),
        Change::ListEnds => Change::ListEnds,
        Change::Applied(object) => Change::Applied(narrow(object)),
        Change::Deleted(key) => Change::Deleted(key.clone()),
    };
    (narrow, change)
}

fn map<T, U>(change: Change<T>, with: impl FnOnce(T) -> U) -> Change<U> {
    match change {
        Change::ListBegins => Change::ListBegins,
        Change::Listed(object) => Change::Listed(with(object)),
        Change::ListEnds => Change::ListEnds,
        Change::Applied(object) => Change::Applied(with(object)),
        Change::Deleted(key) => Change::Deleted(key),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::planner::tests::asks;
    use crate::synthetic::SLICE;

    fn told(desk: &Desk, pod: &Value, change: fn(PodObject) -> Change<PodObject>) {
        desk.pod(change(serde_json::from_value(pod.clone()).unwrap()));
    }

    /// Whether filter waits for more of them, where one nominated pod is enough.
    async fn waits_for_more(pods: &[Value]) -> bool {
        let desk = Desk::new(Keep::default(), Arc::new(Rush::new(2)));
        pods.iter().for_each(|pod| told(&desk, pod, Change::Applied));
        desk.rush.begins("coming");
        desk.rush.over("own").await
    }

    #[tokio::test(start_paused = true)]
    async fn a_nominated_pod_counts_in_a_rush_only_where_filter_is_asked_about_its_gpus() {
        let nominated = |name: &str, resource: &str| {
            let mut pod = asks(name, resource, 1, &json!({}));
            pod["status"]["nominatedNodeName"] = "gpu-node-0".into();
            pod
        };
        let mut other = nominated("of-another-scheduler", SLICE);
        other["spec"]["schedulerName"] = "default-scheduler".into();
        assert!(waits_for_more(&[other, nominated("without-gpus", "memory")]).await);
        assert!(!waits_for_more(&[nominated("ours", SLICE)]).await);
    }

    #[tokio::test(start_paused = true)]
    async fn a_pod_that_a_list_has_told_of_and_that_was_asked_about_is_nobody_to_wait_for() {
        let desk = Desk::new(Keep::default(), Arc::new(Rush::new(2)));
        let mut pod = asks("early", SLICE, 1, &json!({}));
        told(&desk, &pod, Change::Listed);
        desk.rush.over("early").await;
        pod["status"]["nominatedNodeName"] = "gpu-node-0".into();
        told(&desk, &pod, Change::Applied);
        desk.rush.begins("coming");
        assert!(desk.rush.over("own").await);
    }
}
