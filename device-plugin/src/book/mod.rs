//! The book: what this node has, what its pods were promised, and what the kubelet handed out.
//!
//! A pure state machine: [`Book::apply`] takes what happened, [`Book::choose`] says which devices a call should
//! get, and nothing here waits, locks or does I/O. Time comes in as a number.
//!
//! The kubelet asks for devices without saying for which pod. What it does tell is a resource and a count, and it
//! admits pods one at a time, in the order in which the API server bound them: the order of our own watch. So a
//! call belongs to the first pod that still lacks such a call; and since plans of one shape are interchangeable,
//! a wrong guess costs nothing. What really happened is learned later from pod-resources, and corrects the book.
//!
//! Three facts rank above any plan: what the kubelet says is available, what it says is held, and what a pod
//! itself asks for.

mod calls;
mod choose;
mod events;
mod holders;
mod shares;
mod slices;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use stowage_shared::device_id::DeviceId;
use stowage_shared::gpu::{Gpu, locate};
use stowage_shared::pack::Chosen;
use stowage_shared::plan::Plan;
use stowage_shared::request::Request;
use stowage_shared::resource::ResourceName;
use stowage_shared::share::ShareSize;

use crate::inventory::Inventory;

use calls::{Asker, promised};

pub use calls::Served;
pub use choose::{Ask, Choice, Source};
pub use events::{Event, Holding, Notice, PodSeen};
pub use holders::{GRANT_GRACE, MISSING_GRACE};
pub use shares::{ShareHolder, ShareLimit};
pub use slices::Booking;

/// The most allocations kept in mind that pod-resources has not shown.
const GRANTS_MAX: usize = 4096;
/// The most pods of a node with GPU requests; the kubelet's own limit is 110 unless raised.
const PODS_MAX: usize = 4096;

/// A pod in the book.
#[derive(Debug, Clone)]
struct Pod {
    namespace: String,
    name: String,
    request: Request,
    plan: Option<Plan>,
    /// The annotation that `plan` was read from, so that each text is judged once.
    plan_text: Option<String>,
    /// Its place in the order in which pods came.
    order: u64,
    /// Whether all of its devices have been allocated, whoever shows them: it runs; or an allocation that was
    /// taken for it was never shown, as happens where only an init container has devices.
    settled: bool,
    /// Whether it is being deleted.
    ending: bool,
}

/// An allocation that pod-resources has not shown yet.
#[derive(Debug, Clone)]
struct Grant {
    resource: ResourceName,
    ids: Vec<String>,
    at: Duration,
    /// The pod's UID and container that it was probably for.
    call: Option<(String, String)>,
}

impl Grant {
    /// The container that it was for, if it was probably for this pod.
    fn call_of(&self, uid: &str) -> Option<&str> {
        self.call.as_ref().filter(|(known, _)| known == uid).map(|(_, container)| container.as_str())
    }
}

/// See the [module](self).
#[derive(Debug)]
pub struct Book {
    node: String,
    inventory: Arc<Inventory>,
    /// The inventory's GPUs with the bookings in them.
    gpus: Vec<Arc<Gpu>>,
    bookings: BTreeMap<String, Booking>,
    pods: BTreeMap<String, Pod>,
    next_order: u64,
    held: Vec<Holding>,
    /// The UIDs of the pods that hold these: pod-resources tells names only, and a StatefulSet's next pod has the
    /// name of the last one. What came before any pod of its name was known is in here only later.
    owners: BTreeMap<Holding, String>,
    /// Those of `held` that pod-resources does not show any more, and since when.
    missing: BTreeMap<Holding, Duration>,
    /// Tokens of an earlier process that nobody was seen to hold yet.
    restored: BTreeSet<String>,
    grants: Vec<Grant>,
    /// How many calls of `Allocate` were answered otherwise than a plan says.
    unplanned: u64,
    knows_holders: bool,
    knows_pods: bool,
}

impl Book {
    /// A book of a node with this inventory, and nothing known yet of pods and allocations.
    pub fn new(node: impl Into<String>, inventory: Arc<Inventory>) -> Self {
        Self {
            node: node.into(),
            gpus: inventory.gpus().to_vec(),
            inventory,
            bookings: BTreeMap::new(),
            pods: BTreeMap::new(),
            next_order: 0,
            held: Vec::new(),
            owners: BTreeMap::new(),
            missing: BTreeMap::new(),
            restored: BTreeSet::new(),
            grants: Vec::new(),
            unplanned: 0,
            knows_holders: false,
            knows_pods: false,
        }
    }

    /// What this node offers.
    pub fn inventory(&self) -> &Arc<Inventory> {
        &self.inventory
    }

    /// Whether a pod is in the book: one that is bound here, asks for GPUs, and has not ended.
    pub fn knows_pod(&self, uid: &str) -> bool {
        self.pods.contains_key(uid)
    }

    /// Whether pod-resources has answered since the start: before that, who holds what is not known.
    pub fn knows_holders(&self) -> bool {
        self.knows_holders
    }

    /// How many calls of `Allocate` were answered otherwise than a plan says, since the start.
    pub fn unplanned(&self) -> u64 {
        self.unplanned
    }

    /// Whether the node's pods have been listed since the start.
    pub fn knows_pods(&self) -> bool {
        self.knows_pods
    }

    /// Whether an allocation has not been shown by pod-resources yet.
    pub fn awaits_holders(&self) -> bool {
        !self.grants.is_empty()
    }

    /// The devices of a resource that somebody holds, or was given a moment ago.
    pub fn ids_in_use(&self, resource: &ResourceName) -> BTreeSet<String> {
        let held = self.held.iter().filter(|held| &held.resource == resource);
        let granted = self.grants.iter().filter(|grant| &grant.resource == resource);
        held.flat_map(|held| &held.device_ids).chain(granted.flat_map(|grant| &grant.ids)).cloned().collect()
    }

    /// The GPUs and MIG devices, by UUID, of which somebody holds something.
    pub fn parts_in_use(&self) -> BTreeSet<String> {
        let held = self.held.iter().flat_map(|held| &held.device_ids);
        let granted = self.grants.iter().flat_map(|grant| &grant.ids);
        let part = |id: &String| Some(id.parse::<DeviceId>().ok()?.part().to_owned());
        held.chain(granted).filter_map(part).collect()
    }

    /// Takes note of what happened.
    pub fn apply(&mut self, event: Event) -> Vec<Notice> {
        let mut notices = Vec::new();
        match event {
            Event::Pod(pod) => notices.extend(self.pod(pod)),
            Event::FoundPod(pod) if !self.pods.contains_key(&pod.uid) => notices.extend(self.pod(pod)),
            Event::FoundPod(_) => {}
            Event::PodGone { uid } => self.forget(&uid),
            Event::Pods(mut pods) => {
                self.knows_pods = true;
                pods.sort_by(|a, b| (a.created, &a.name).cmp(&(b.created, &b.name)));
                self.pods.retain(|uid, _| pods.iter().any(|pod| &pod.uid == uid));
                self.give_up_missing();
                notices.extend(pods.into_iter().filter_map(|pod| self.pod(pod)));
                self.book_held();
            }
            Event::Allocated { resource, ids, at } => {
                let served = self.allocated(resource, ids, at);
                self.unplanned += u64::from(served != Served::Planned);
                notices.push(Notice::Allocated(served));
            }
            Event::PodResources { held, asked_at } => {
                self.holders(held, asked_at);
                self.book_held();
            }
            Event::Inventory(inventory) => {
                self.inventory = inventory;
                self.set_gpus();
            }
            Event::Refused { resource, ids } => {
                self.grants.retain(|grant| grant.resource != resource || grant.ids != ids);
                self.drop_free_bookings();
            }
            Event::Starts { resource, ids } => self.book_slices(&resource, &ids),
            Event::Restored(bookings) => {
                self.restored.extend(bookings.keys().cloned());
                self.bookings.extend(bookings);
                self.set_gpus();
            }
        }
        notices
    }

    fn pod(&mut self, seen: PodSeen) -> Option<Notice> {
        let wanted = seen.request.ok().filter(|request| !request.is_empty() && !seen.terminal);
        let Some(request) = wanted else {
            self.forget(&seen.uid);
            return None;
        };
        let old = self.pods.remove(&seen.uid);
        if old.is_none() && self.pods.len() >= PODS_MAX {
            return None;
        }
        let order = old.as_ref().map_or(self.next_order, |old| old.order);
        self.next_order = self.next_order.max(order + 1);
        let settled = seen.running || old.as_ref().is_some_and(|old| old.settled);
        let old = old.filter(|old| old.plan_text == seen.plan && old.request == request);
        let (plan, notice) = match (old, &seen.plan) {
            (Some(old), _) => (old.plan, None),
            (None, None) => (None, None),
            (None, Some(text)) => match Plan::read(text, &seen.uid, &self.node, &request) {
                Ok(plan) => (Some(plan), None),
                Err(error) => {
                    let (namespace, pod, uid) = (seen.namespace.clone(), seen.name.clone(), seen.uid.clone());
                    (None, Some(Notice::PlanIgnored { namespace, pod, uid, error }))
                }
            },
        };
        let (namespace, name, ending) = (seen.namespace, seen.name, seen.ending);
        let pod = Pod { namespace, name, request, plan, plan_text: seen.plan, order, settled, ending };
        self.pods.insert(seen.uid, pod);
        notice
    }

    /// The size of the shares of whoever holds or was given devices, as far as it is known and says so.
    fn share_of(&self, uid: Option<&str>) -> Option<ShareSize> {
        let pod = self.pods.get(uid?)?;
        Plan::share_of(pod.plan.as_ref(), &pod.request)
    }

    fn forget(&mut self, uid: &str) {
        if self.pods.remove(uid).is_some() {
            self.give_up_missing();
        }
    }

    /// The places of device ids; those of no device here are left out.
    fn places<'a>(&self, resource: &ResourceName, ids: impl IntoIterator<Item = &'a String>) -> Vec<Chosen> {
        let place = |text: &String| {
            let id: DeviceId = text.parse().ok()?;
            let (gpu, offer) = locate(self.gpus.iter().map(|gpu| &**gpu), resource, &id)?;
            Some(Chosen { gpu, offer })
        };
        ids.into_iter().filter_map(place).collect()
    }
}
