//! Watches: what changed since a version, in order, as one namespace and selector see it.
//!
//! A watch keeps no queue of its own that could grow: it reads the collection's bounded log, and one
//! that falls too far behind is told 410 Gone and ends, as the real server ends a slow watcher.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::{Instant, sleep_until};

use super::super::error::ApiError;
use super::super::object::Object;
use super::super::resources::{Gvr, ResourceType};
use super::super::selector::Selector;
use super::collection::{Change, Collection};
use super::list::parse_version;
use super::{State, Store};

/// How many changes a watch takes from the log at once, so that no reader holds the lock for long.
const BATCH: usize = 256;

/// What to watch. The default shows every object there is as added, then every change.
#[derive(Clone, Debug, Default)]
pub struct WatchOptions {
    /// Only this namespace.
    pub namespace: Option<String>,
    /// A label selector.
    pub labels: String,
    /// A field selector.
    pub fields: String,
    /// Show what happened after this version; empty or `0` begins with the objects there are.
    pub resource_version: String,
    /// Send [`WatchEvent::Bookmark`]s.
    pub bookmarks: bool,
    /// Whether to begin with the objects there are, and to mark their end if there are bookmarks (a
    /// streaming list); `None` leaves it to the version.
    pub send_initial_events: Option<bool>,
    /// End the watch after so long.
    pub timeout: Option<Duration>,
}

/// One thing a watch says.
#[derive(Clone, Debug)]
pub enum WatchEvent {
    /// New, or new to the selector.
    Added(Arc<Object>),
    /// Changed.
    Modified(Arc<Object>),
    /// Gone, or out of the selector: the object as it was, under the version of the change.
    Deleted(Arc<Object>),
    /// Nothing else happened up to this version.
    Bookmark {
        /// A version to go on from.
        version: u64,
        /// True once: the objects of a streaming list are complete.
        initial_events_end: bool,
    },
    /// The watch cannot go on and ends.
    Error(ApiError),
}

/// A running watch; [`next`](Self::next) gives its events.
pub struct Watch {
    store: Store,
    kind: Arc<ResourceType>,
    namespace: Option<String>,
    selector: Selector,
    /// Everything up to this version has been put in `ready`.
    seen: u64,
    ready: VecDeque<WatchEvent>,
    changed: watch::Receiver<u64>,
    bookmarks: bool,
    next_bookmark: Instant,
    deadline: Option<Instant>,
    ended: bool,
}

impl Store {
    /// Starts to watch a resource.
    ///
    /// A version that is no longer in the history is no error here: as on the real server, the watch
    /// begins and its only event is [`WatchEvent::Error`] with code 410.
    ///
    /// # Errors
    /// 404 for an unknown resource, 400 for a bad selector, 500 for a version that is no number.
    pub fn watch(&self, resource: &Gvr, options: &WatchOptions) -> Result<Watch, ApiError> {
        self.with(|state| start(self, state, resource, options))
    }
}

fn start(store: &Store, state: &State, resource: &Gvr, options: &WatchOptions) -> Result<Watch, ApiError> {
    let collection = state.collection(resource)?;
    let wanted = parse_version(&options.resource_version).map_err(|why| ApiError::new(500, "", why))?;
    let now = Instant::now();
    let mut watch = Watch {
        store: store.clone(),
        kind: collection.kind.clone(),
        namespace: options.namespace.clone(),
        selector: Selector::parse(&collection.kind, &options.labels, &options.fields)?,
        seen: wanted,
        ready: VecDeque::new(),
        changed: collection.subscribe(),
        bookmarks: options.bookmarks,
        next_bookmark: now + store.bookmark_every,
        deadline: options.timeout.map(|timeout| now + timeout),
        ended: false,
    };
    match options.send_initial_events {
        Some(true) => watch.show_all(state.version, collection),
        // Since 1.34 a watch from nowhere is a streaming list, whether it says so or not.
        None if wanted == 0 => watch.show_all(state.version, collection),
        Some(false) if wanted == 0 => watch.seen = state.version,
        _ if wanted < collection.floor() => watch.fail_expired(collection.floor()),
        _ => {}
    }
    Ok(watch)
}

impl Watch {
    /// The next event, or `None` when the watch is over. Losing the future loses no event.
    pub async fn next(&mut self) -> Option<WatchEvent> {
        loop {
            if let Some(event) = self.ready.pop_front() {
                return Some(event);
            }
            if self.ended {
                return None;
            }
            // Marked as seen before the log is read: a change in between wakes the next wait.
            self.changed.borrow_and_update();
            self.read();
            if !self.ready.is_empty() || self.ended {
                continue;
            }
            tokio::select! {
                changed = self.changed.changed() => self.ended = changed.is_err(),
                () = sleep_until(self.next_bookmark), if self.bookmarks => {
                    self.next_bookmark = Instant::now() + self.store.bookmark_every;
                    self.read();
                    self.ready.push_back(WatchEvent::Bookmark { version: self.seen, initial_events_end: false });
                }
                () = until(self.deadline) => self.ended = true,
            }
        }
    }

    /// The kind of the objects it shows.
    pub(in super::super) fn kind(&self) -> &Arc<ResourceType> {
        &self.kind
    }

    /// Takes the next changes from the log.
    fn read(&mut self) {
        let store = self.store.clone();
        store.with(|state| {
            let Ok(collection) = state.collection(&self.kind.gvr) else {
                self.ended = true;
                return;
            };
            let Some(changes) = collection.since(self.seen) else {
                self.fail_expired(collection.floor());
                return;
            };
            let mut taken = 0;
            for change in changes.take(BATCH) {
                taken += 1;
                self.seen = change.version;
                self.ready.extend(self.event(change));
            }
            if taken < BATCH {
                // Nothing of this resource changed since; a version yet to come stays what it was.
                self.seen = self.seen.max(state.version);
            }
        });
    }

    /// What this watch sees of a change: nothing, if neither side of it is selected.
    fn event(&self, change: &Change) -> Option<WatchEvent> {
        if self.namespace.as_ref().is_some_and(|wanted| *wanted != change.key.namespace) {
            return None;
        }
        let selected = |object: &Option<Arc<Object>>| object.clone().filter(|it| self.selector.matches(it));
        match (selected(&change.before), selected(&change.after)) {
            (None, Some(object)) => Some(WatchEvent::Added(object)),
            (Some(_), Some(object)) => Some(WatchEvent::Modified(object)),
            (Some(_), None) => change.left().map(WatchEvent::Deleted),
            (None, None) => None,
        }
    }

    fn show_all(&mut self, version: u64, collection: &Collection) {
        let shown = collection
            .objects
            .iter()
            .filter(|(key, _)| self.namespace.as_ref().is_none_or(|wanted| *wanted == key.namespace))
            .filter(|(_, object)| self.selector.matches(object))
            .map(|(_, object)| WatchEvent::Added(object.clone()));
        self.ready.extend(shown);
        self.seen = version;
        if self.bookmarks {
            self.ready.push_back(WatchEvent::Bookmark { version, initial_events_end: true });
        }
    }

    fn fail_expired(&mut self, floor: u64) {
        let message = format!("too old resource version: {} ({floor})", self.seen);
        self.ready.push_back(WatchEvent::Error(ApiError::expired(message)));
        self.ended = true;
    }
}

async fn until(deadline: Option<Instant>) {
    match deadline {
        Some(deadline) => sleep_until(deadline).await,
        None => std::future::pending().await,
    }
}
