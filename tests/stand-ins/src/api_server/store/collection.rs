//! The objects of one resource and a bounded log of what changed, from which any recent version can
//! be seen again.

use std::borrow::Cow;
use std::collections::{BTreeMap, VecDeque};
use std::ops::RangeFrom;
use std::sync::{Arc, OnceLock};

use serde_json::Value;
use tokio::sync::watch;

use super::super::error::ApiError;
use super::super::object::{Object, metadata};
use super::super::resources::ResourceType;

/// Where an object stands in its collection: lists are in this order.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Key {
    /// Empty for cluster-scoped resources.
    pub(super) namespace: String,
    pub(super) name: String,
}

impl Key {
    pub(super) fn new(namespace: &str, name: &str) -> Self {
        Self { namespace: namespace.to_owned(), name: name.to_owned() }
    }
}

/// One write.
pub(super) struct Change {
    pub(super) version: u64,
    pub(super) key: Key,
    pub(super) before: Option<Arc<Object>>,
    pub(super) after: Option<Arc<Object>>,
    left: OnceLock<Arc<Object>>,
}

impl Change {
    /// `before` under this change's version: what a watch shows as DELETED, be it that the object is
    /// gone or that it left the selector. Made only if some watch shows it.
    pub(super) fn left(&self) -> Option<Arc<Object>> {
        let before = self.before.as_ref()?;
        let left = self.left.get_or_init(|| Arc::new(at_version(Value::clone(before), self.version)));
        Some(left.clone())
    }
}

pub(super) type Objects = BTreeMap<Key, Arc<Object>>;

pub(super) struct Collection {
    pub(super) kind: Arc<ResourceType>,
    pub(super) objects: Objects,
    log: VecDeque<Change>,
    bound: usize,
    /// Versions before this one cannot be asked for any more.
    floor: u64,
    /// The newest change that is no longer in the log: a watch that has not seen it has lost it.
    forgotten: u64,
    /// Wakes the watches; holds the version of the newest change.
    head: watch::Sender<u64>,
}

impl Collection {
    pub(super) fn new(kind: ResourceType, version: u64, bound: usize) -> Self {
        Self {
            kind: Arc::new(kind),
            objects: BTreeMap::new(),
            log: VecDeque::new(),
            bound,
            floor: version,
            forgotten: version,
            head: watch::Sender::new(version),
        }
    }

    pub(super) fn get(&self, key: &Key) -> Result<Arc<Object>, ApiError> {
        self.objects.get(key).cloned().ok_or_else(|| ApiError::not_found(&self.kind, &key.name))
    }

    /// Puts `after` (or nothing) under `key` as the change `version`, and tells the watches.
    pub(super) fn write(&mut self, version: u64, key: Key, after: Option<Arc<Object>>) {
        let before = match &after {
            Some(object) => self.objects.insert(key.clone(), object.clone()),
            None => self.objects.remove(&key),
        };
        self.log.push_back(Change { version, key, before, after, left: OnceLock::new() });
        while self.log.len() > self.bound {
            if let Some(lost) = self.log.pop_front() {
                self.forgotten = lost.version;
                self.floor = self.floor.max(lost.version);
            }
        }
        self.head.send_replace(version);
    }

    pub(super) fn compact(&mut self, version: u64) {
        if let Some(lost) = self.log.back() {
            self.forgotten = lost.version;
        }
        self.log.clear();
        self.floor = version;
    }

    /// The oldest version that can still be asked for.
    pub(super) fn floor(&self) -> u64 {
        self.floor
    }

    pub(super) fn subscribe(&self) -> watch::Receiver<u64> {
        self.head.subscribe()
    }

    /// The changes after `version`, oldest first; `None` when some of them are forgotten.
    pub(super) fn since(&self, version: u64) -> Option<impl DoubleEndedIterator<Item = &Change>> {
        (version >= self.forgotten).then(|| self.log.range(self.newer_than(version)))
    }

    /// The objects as they were at `version`: today's, with every later change undone. `None` when
    /// some of those changes are forgotten.
    pub(super) fn objects_at(&self, version: u64) -> Option<Cow<'_, Objects>> {
        if version < self.floor {
            return None;
        }
        let mut objects = Cow::Borrowed(&self.objects);
        for change in self.since(version)?.rev() {
            match &change.before {
                Some(object) => objects.to_mut().insert(change.key.clone(), object.clone()),
                None => objects.to_mut().remove(&change.key),
            };
        }
        Some(objects)
    }

    fn newer_than(&self, version: u64) -> RangeFrom<usize> {
        self.log.partition_point(|change| change.version <= version)..
    }
}

/// The object under another version.
pub(super) fn at_version(mut value: Value, version: u64) -> Object {
    metadata(&mut value).insert("resourceVersion".to_owned(), version.to_string().into());
    Object::new(value)
}
