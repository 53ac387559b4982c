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
        match change {
            Change::Applied(pod) if pod.node.is_empty() && !pod.terminal => match pod.nominated.is_empty() {
                true => self.rush.not_nominated(&pod.uid),
                false => self.rush.nominated(&pod.uid),
            },
            Change::Applied(event::Pod { uid, .. }) | Change::Deleted(uid) => self.rush.settled(uid),
            Change::ListBegins => self.rush.begin_anew(),
            // How long ago those were nominated is not known.
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
