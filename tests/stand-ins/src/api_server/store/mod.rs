//! The objects, their history and everything that may be done to them, in memory and without HTTP.
//!
//! The HTTP half of the server is a thin layer over [`Store`], so a test or the demo's driver that
//! calls it directly meets the same rules, the same refusals and the same versions as a client.
//! One lock guards all of it: every call is short and none waits while holding it. The store knows
//! no users, no faults and no wire formats.

mod binding;
mod collection;
mod commit;
mod eviction;
mod list;
#[cfg(test)]
mod tests;
mod watch;
mod write;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use serde_json::json;

pub use self::list::{List, ListOptions, VersionMatch};
pub use self::watch::{Watch, WatchEvent, WatchOptions};
pub use self::write::{DeleteOptions, Deleted, Part};

use self::collection::{Collection, Key};
use super::error::ApiError;
use super::object::Object;
use super::resources::{Gvr, NAMESPACES, ResourceType};

/// Namespaces that a new cluster has.
const FIRST_NAMESPACES: [&str; 4] = ["default", "kube-system", "kube-public", "kube-node-lease"];

/// All objects of one cluster. Clones share them.
#[derive(Clone)]
pub struct Store {
    state: Arc<Mutex<State>>,
    /// How often a watch that allows bookmarks gets one.
    bookmark_every: Duration,
}

struct State {
    /// The version of the newest write, to any resource: one counter for all, as etcd's revision.
    version: u64,
    collections: BTreeMap<Gvr, Collection>,
    random: ChaCha8Rng,
    /// How many changes of each resource are remembered.
    history: usize,
}

/// What a [`Store`] is made with.
#[derive(Clone, Debug)]
pub struct StoreOptions {
    /// The resources it knows: [`known`](super::resources::known) and the caller's own.
    pub resources: Vec<ResourceType>,
    /// How many changes of each resource are remembered for watches and consistent lists; older
    /// versions answer 410 Gone.
    pub history: usize,
    /// How often a watch that allows bookmarks gets one; the real server sends one about a minute.
    pub bookmark_every: Duration,
    /// Where UIDs and generated names come from: equal seeds and equal calls give equal objects.
    pub seed: u64,
}

impl Default for StoreOptions {
    fn default() -> Self {
        Self {
            resources: super::resources::known(),
            history: 10_000,
            bookmark_every: Duration::from_secs(60),
            seed: rand::random(),
        }
    }
}

impl Store {
    /// A cluster that holds nothing but the namespaces every cluster has.
    pub fn new(options: StoreOptions) -> Self {
        let StoreOptions { resources, history, bookmark_every, seed } = options;
        let random = ChaCha8Rng::seed_from_u64(seed);
        let state = State { version: 0, collections: BTreeMap::new(), random, history };
        let store = Self { state: Arc::new(Mutex::new(state)), bookmark_every };
        for resource in resources {
            store.install(resource);
        }
        for name in FIRST_NAMESPACES {
            // Only a caller who took the namespaces out of the table gets the 404 that is let go here.
            let _ = store.create(&NAMESPACES, "", json!({ "metadata": { "name": name } }));
        }
        store
    }

    /// Makes a resource known, as creating a CRD does. One that is known already is left as it is.
    pub fn install(&self, resource: ResourceType) {
        self.with(|state| {
            let (version, history) = (state.version, state.history);
            state
                .collections
                .entry(resource.gvr.clone())
                .or_insert_with(|| Collection::new(resource, version, history));
        });
    }

    /// Forgets a resource with all its objects, as deleting a CRD does; its watches end.
    pub fn uninstall(&self, resource: &Gvr) {
        self.with(|state| state.collections.remove(resource));
    }

    /// The version of the newest write.
    pub fn version(&self) -> u64 {
        self.with(|state| state.version)
    }

    /// Forgets the history, as etcd's compaction does: a watch from an older version, or the next
    /// page of an older list, is answered with 410 Gone. Watches that are up to date go on.
    pub fn compact(&self) {
        self.with(|state| {
            let version = state.version;
            state.collections.values_mut().for_each(|collection| collection.compact(version));
        });
    }

    /// The object of that name; `namespace` is empty for cluster-scoped resources.
    ///
    /// # Errors
    /// 404 for an object or a resource that is not there.
    pub fn get(&self, resource: &Gvr, namespace: &str, name: &str) -> Result<Arc<Object>, ApiError> {
        self.with(|state| state.collection(resource)?.get(&Key::new(namespace, name)))
    }

    /// The known resources, in the order of their names.
    pub(super) fn resources(&self) -> Vec<Arc<ResourceType>> {
        self.with(|state| state.collections.values().map(|collection| collection.kind.clone()).collect())
    }

    /// What is known of one resource.
    pub(super) fn resource(&self, resource: &Gvr) -> Result<Arc<ResourceType>, ApiError> {
        self.with(|state| Ok(state.collection(resource)?.kind.clone()))
    }

    /// A panic while the lock was held cannot have left half a write behind: a write is one insert.
    fn with<R>(&self, act: impl FnOnce(&mut State) -> R) -> R {
        act(&mut self.state.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl State {
    fn collection(&self, resource: &Gvr) -> Result<&Collection, ApiError> {
        self.collections.get(resource).ok_or_else(ApiError::no_such_resource)
    }

    fn collection_mut(&mut self, resource: &Gvr) -> Result<&mut Collection, ApiError> {
        self.collections.get_mut(resource).ok_or_else(ApiError::no_such_resource)
    }

    /// A random (version 4) UUID.
    fn new_uid(&mut self) -> String {
        let bits: u128 = self.random.random();
        let bits = bits & !(0xf << 76) & !(0x3 << 62) | (0x4 << 76) | (0x2 << 62);
        let hex = format!("{bits:032x}");
        [&hex[..8], &hex[8..12], &hex[12..16], &hex[16..20], &hex[20..]].join("-")
    }

    /// Five letters that spell no word: what follows a `generateName`.
    fn new_suffix(&mut self) -> String {
        const LETTERS: &[u8] = b"bcdfghjklmnpqrstvwxz2456789";
        (0..5).map(|_| char::from(LETTERS[self.random.random_range(0..LETTERS.len())])).collect()
    }
}
