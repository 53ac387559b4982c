//! The device manager's books: which devices there are, and who holds which.
//!
//! A pure state machine after `pkg/kubelet/cm/devicemanager/{manager,pod_devices}.go` of Kubernetes
//! 1.36: it is told what happened and answers questions. It knows no socket and no clock; the calls
//! to plugins lie between [`Books::choose`] and [`Books::fill_up`] (in `choosing.rs`) and
//! [`Books::hold`].

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use kubelet_api::device_plugin::{ContainerAllocateResponse, Device, HEALTHY};
use rand::SeedableRng;
use rand::seq::SliceRandom;
use rand_chacha::ChaCha8Rng;
use tokio::time::Instant;

/// Device ids, or other names.
pub(super) type Names = BTreeSet<String>;

/// How many devices of a resource the node has.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct ResourceCounts {
    /// All devices: `status.capacity` of the Node.
    pub capacity: u64,
    /// The healthy ones, held by pods or not: `status.allocatable` of the Node.
    pub allocatable: u64,
}

/// Resource name to counts, as a Node's status would tell them.
pub type Allocatable = BTreeMap<String, ResourceCounts>;

/// What one container holds of one resource.
#[derive(Debug, Clone)]
pub(super) struct Held {
    /// Device id to the NUMA nodes it had when it was allocated.
    pub(super) devices: BTreeMap<String, Vec<i64>>,
    /// The plugin's answer.
    pub(super) response: ContainerAllocateResponse,
}

/// Pod UID to container name to resource name to what is held.
type Holdings = BTreeMap<String, BTreeMap<String, BTreeMap<String, Held>>>;

/// See the module.
#[derive(Debug)]
pub(super) struct Books {
    /// What each plugin listed last.
    listed: BTreeMap<String, BTreeMap<String, Device>>,
    pub(super) healthy: BTreeMap<String, Names>,
    unhealthy: BTreeMap<String, Names>,
    /// Resource name to the time its plugin went; `None` while it is there.
    stopped: BTreeMap<String, Option<Instant>>,
    /// Resources whose grace period is over. A Node's status shows them with 0 for ever.
    removed: Names,
    /// Taken by somebody. Rebuilt from `holdings` when a pod goes: it may hold more for a while,
    /// namely what a failed admission took.
    pub(super) allocated: BTreeMap<String, Names>,
    pub(super) holdings: Holdings,
    /// What the init containers of the pod under admission leave to the containers after them.
    reusable: Option<(String, BTreeMap<String, Names>)>,
    order: ChaCha8Rng,
}

impl Books {
    /// Empty books. `seed` decides wherever the kubelet takes the order of a Go map.
    pub(super) fn new(seed: u64) -> Self {
        Self {
            listed: BTreeMap::new(),
            healthy: BTreeMap::new(),
            unhealthy: BTreeMap::new(),
            stopped: BTreeMap::new(),
            removed: Names::new(),
            allocated: BTreeMap::new(),
            holdings: Holdings::new(),
            reusable: None,
            order: ChaCha8Rng::seed_from_u64(seed),
        }
    }

    /// Any order, as a Go map's: nobody may rely on it.
    pub(super) fn in_any_order<T>(&mut self, items: impl IntoIterator<Item = T>) -> Vec<T> {
        let mut items: Vec<T> = items.into_iter().collect();
        items.shuffle(&mut self.order);
        items
    }

    /// A plugin has registered. Its devices are counted when its first list comes.
    pub(super) fn connect(&mut self, resource: &str) {
        self.stopped.insert(resource.to_owned(), None);
    }

    /// A plugin is gone: all of its devices are unhealthy at once, and stay in the capacity for the
    /// grace period.
    pub(super) fn disconnect(&mut self, resource: &str, now: Instant) {
        let Some(stopped) = self.stopped.get_mut(resource) else { return };
        *stopped = Some(now);
        let healthy = self.healthy.get_mut(resource).map(std::mem::take).unwrap_or_default();
        self.unhealthy.entry(resource.to_owned()).or_default().extend(healthy);
    }

    /// A plugin's list: all of its devices. What is not in it does not exist any more.
    pub(super) fn list(&mut self, resource: &str, devices: Vec<Device>) {
        let (healthy, unhealthy): (Vec<_>, Vec<_>) =
            devices.iter().partition(|device| device.health == HEALTHY);
        let ids =
            |devices: Vec<&Device>| devices.into_iter().map(|device| device.id.clone()).collect::<Names>();
        self.healthy.insert(resource.to_owned(), ids(healthy));
        self.unhealthy.insert(resource.to_owned(), ids(unhealthy));
        self.removed.remove(resource);
        let by_id = devices.into_iter().map(|device| (device.id.clone(), device)).collect();
        self.listed.insert(resource.to_owned(), by_id);
    }

    /// What the Node's status tells. Resources whose plugin went longer than `grace` ago are dropped
    /// from the books here, as the kubelet does it, and told with 0.
    pub(super) fn counts(&mut self, now: Instant, grace: Duration) -> Allocatable {
        let known: Names = self.healthy.keys().chain(self.unhealthy.keys()).cloned().collect();
        for resource in &known {
            let stopped = self.stopped.get(resource).copied();
            // Listed by a plugin whose registration is gone: out of step, so forgotten.
            let forget = stopped.is_none_or(|stopped| stopped.is_some_and(|since| now - since > grace));
            if forget {
                self.healthy.remove(resource);
                self.unhealthy.remove(resource);
                self.stopped.remove(resource);
                self.removed.insert(resource.clone());
            }
        }
        let count = |names: Option<&Names>| names.map_or(0, |names| names.len() as u64);
        known
            .iter()
            .chain(&self.removed)
            .map(|resource| {
                let allocatable = count(self.healthy.get(resource));
                let capacity = allocatable + count(self.unhealthy.get(resource));
                (resource.clone(), ResourceCounts { capacity, allocatable })
            })
            .collect()
    }

    /// The process ended and a new one read the checkpoint: who holds what is known, the devices are
    /// not, and every resource has its grace period to come back in.
    pub(super) fn restart(&mut self, now: Instant) {
        for names in self.healthy.values_mut().chain(self.unhealthy.values_mut()) {
            names.clear();
        }
        self.stopped = self.healthy.keys().map(|resource| (resource.clone(), Some(now))).collect();
        self.listed.clear();
        self.reusable = None;
        self.recount();
    }

    /// Whether the kubelet cares for this resource: served now, or given out before.
    pub(super) fn is_device_plugin_resource(&self, resource: &str) -> bool {
        self.healthy.contains_key(resource) || self.allocated.contains_key(resource)
    }

    /// Frees the devices of pods that are not in `active`. The kubelet does this when the next pod
    /// asks for devices or somebody lists pod resources, not when a pod ends.
    pub(super) fn free_all_but(&mut self, active: &BTreeSet<&str>) {
        let before = self.holdings.len();
        self.holdings.retain(|uid, _| active.contains(uid.as_str()));
        if self.holdings.len() < before {
            self.recount();
        }
    }

    /// Counts only what is held as allocated: what a failed admission took is free again.
    pub(super) fn recount(&mut self) {
        self.allocated.clear();
        for (resource, held) in self.holdings.values().flat_map(BTreeMap::values).flatten() {
            self.allocated.entry(resource.clone()).or_default().extend(held.devices.keys().cloned());
        }
    }

    /// A container's devices are stored, with the plugin's answer.
    pub(super) fn hold(
        &mut self,
        pod_uid: &str,
        container: &str,
        resource: &str,
        devices: Names,
        response: ContainerAllocateResponse,
    ) {
        let listed = self.listed.get(resource);
        let devices = devices
            .into_iter()
            .map(|id| {
                let topology =
                    listed.and_then(|listed| listed.get(&id)).and_then(|device| device.topology.as_ref());
                let nodes = topology.map(|topology| topology.nodes.iter().map(|node| node.id).collect());
                (id, nodes.unwrap_or_default())
            })
            .collect();
        self.holdings
            .entry(pod_uid.to_owned())
            .or_default()
            .entry(container.to_owned())
            .or_default()
            .insert(resource.to_owned(), Held { devices, response });
    }

    /// What a container holds: resource name to devices.
    pub(super) fn held(&self, pod_uid: &str, container: &str) -> Option<&BTreeMap<String, Held>> {
        self.holdings.get(pod_uid)?.get(container)
    }

    /// The ids a container holds of one resource; `None` if it was never given any.
    pub(super) fn held_ids(&self, pod_uid: &str, container: &str, resource: &str) -> Option<Names> {
        Some(self.held(pod_uid, container)?.get(resource)?.devices.keys().cloned().collect())
    }

    /// What the pod's init containers leave of `resource`. Asking for one pod forgets the others'.
    pub(super) fn reusable(&mut self, pod_uid: &str, resource: &str) -> Names {
        self.reusable_of(pod_uid).get(resource).cloned().unwrap_or_default()
    }

    /// An init container's devices are free for the containers after it.
    pub(super) fn leave_to_next(&mut self, pod_uid: &str, container: &str) {
        for (resource, ids) in self.all_held_ids(pod_uid, container) {
            self.reusable_of(pod_uid).entry(resource).or_default().extend(ids);
        }
    }

    /// A sidecar or app container keeps its devices.
    pub(super) fn keep_from_next(&mut self, pod_uid: &str, container: &str) {
        for (resource, ids) in self.all_held_ids(pod_uid, container) {
            if let Some(reusable) = self.reusable_of(pod_uid).get_mut(&resource) {
                reusable.retain(|id| !ids.contains(id));
            }
        }
    }

    /// The healthy devices: resource name and device.
    pub(super) fn healthy_devices(&self) -> impl Iterator<Item = (&str, &Device)> {
        self.healthy.iter().flat_map(|(resource, ids)| {
            let listed = self.listed.get(resource);
            ids.iter().filter_map(move |id| Some((resource.as_str(), listed?.get(id)?)))
        })
    }

    fn all_held_ids(&self, pod_uid: &str, container: &str) -> Vec<(String, Names)> {
        let held = self.held(pod_uid, container).into_iter().flatten();
        held.map(|(resource, held)| (resource.clone(), held.devices.keys().cloned().collect())).collect()
    }

    fn reusable_of(&mut self, pod_uid: &str) -> &mut BTreeMap<String, Names> {
        let (owner, reusable) = self.reusable.get_or_insert_with(|| (pod_uid.to_owned(), BTreeMap::new()));
        if owner != pod_uid {
            pod_uid.clone_into(owner);
            reusable.clear();
        }
        reusable
    }
}
