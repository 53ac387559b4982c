//! Which pods still wait for calls of the kubelet, and what was promised to them.
//!
//! A call is one container asking for one resource. Which pod it is for the kubelet does not say, so devices
//! that were planned for pods of one [`Shape`] form a pool: any of these pods may get any of them.

use std::time::Duration;

use stowage_shared::occupancy::GpuState;
use stowage_shared::pack::Chosen;
use stowage_shared::plan::{Plan, PlannedDevice};
use stowage_shared::request::Role;
use stowage_shared::resource::ResourceName;
use stowage_shared::share::ShareSize;

use super::{Book, GRANTS_MAX, Grant, Pod};

/// How an allocation relates to the plans.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Served {
    /// It is what a plan of its shape says.
    Planned,
    /// The pod has a plan, and got something else: the kubelet's NUMA alignment or another use came first.
    OffPlan,
    /// No pod with a plan waits for such a call.
    Unplanned,
}

impl Served {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Planned, Self::OffPlan, Self::Unplanned];
}

/// What pods have in common whose planned devices may be swapped.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Shape {
    /// How many devices of the resource the whole pod gets.
    pub(super) total: u32,
    /// How large its shares are.
    pub(super) share: Option<ShareSize>,
}

/// A device that somebody was promised.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Promise {
    pub(super) place: Chosen,
    share: Option<ShareSize>,
}

impl Promise {
    /// Counts it as in use.
    pub(super) fn take(&self, states: &mut [GpuState]) {
        states[self.place.gpu].take(self.place.offer, self.share);
    }
}

/// A pod that asks for a resource.
#[derive(Debug)]
pub(super) struct Asker<'a> {
    pub(super) uid: &'a str,
    order: u64,
    /// Within which plans swap: all devices of a resource isolate alike, so there is nothing else to tell apart.
    pub(super) shape: Shape,
    /// The places that its plan names, those that init containers hand on once. `None` where there is no plan,
    /// or it names what this node has not.
    planned: Option<Vec<Chosen>>,
    /// The devices that it has, each once.
    has: Vec<&'a String>,
    has_places: Vec<Chosen>,
    /// The containers that still wait.
    waiting: Vec<Waiting<'a>>,
    /// Whether a container was served already: the kubelet is in the middle of this pod.
    begun: bool,
}

impl Asker<'_> {
    /// Whether it has this device.
    pub(super) fn has(&self, id: &str) -> bool {
        self.has.iter().any(|known| *known == id)
    }

    /// What a device that it has may stand for, of its shape's pool, its own plan's devices first.
    pub(super) fn candidates(&self, askers: &[Asker<'_>]) -> Vec<Chosen> {
        let mut pool = pool(askers, self.shape);
        let mut candidates = take_from(&mut pool, self.planned.as_deref().unwrap_or_default());
        candidates.extend(pool);
        candidates
    }
}

/// A container that waits for devices.
#[derive(Debug)]
struct Waiting<'a> {
    container: &'a str,
    count: usize,
    planned: Vec<Chosen>,
}

/// A call that is to come.
#[derive(Debug, Clone, Copy)]
pub(super) struct Call<'c> {
    pub(super) asker: &'c Asker<'c>,
    waiting: &'c Waiting<'c>,
}

impl Call<'_> {
    /// Whether the pod has a plan that can be carried out here.
    pub(super) fn is_planned(&self) -> bool {
        self.asker.planned.is_some()
    }

    /// What the call may get of its shape's pool, its own plan's devices first.
    pub(super) fn candidates(&self, askers: &[Asker<'_>], given: &[Chosen]) -> Vec<Chosen> {
        let mut pool = pool(askers, self.asker.shape);
        let own = without(&self.waiting.planned, given);
        let mut candidates = take_from(&mut pool, &own);
        candidates.extend(take_from(&mut pool, self.asker.planned.as_deref().unwrap_or_default()));
        candidates.extend(pool);
        candidates
    }
}

impl Book {
    /// The pods that ask for a resource, in the order in which they came.
    pub(super) fn askers(&self, resource: &ResourceName) -> Vec<Asker<'_>> {
        let askers = self.pods.iter().filter_map(|(uid, pod)| self.asker(uid, pod, resource));
        let mut askers: Vec<Asker<'_>> = askers.collect();
        askers.sort_by_key(|asker| asker.order);
        askers
    }

    fn asker<'a>(&'a self, uid: &'a str, pod: &'a Pod, resource: &ResourceName) -> Option<Asker<'a>> {
        let total = pod.request.total().get(resource).copied()?;
        let held: Vec<_> = self.held.iter().filter(|held| self.owner(held) == Some(uid)).collect();
        let grants: Vec<_> =
            self.grants.iter().filter_map(|grant| Some((grant, grant.call_of(uid)?))).collect();

        let mut has: Vec<&String> = Vec::new();
        let held_ids =
            held.iter().filter(|held| &held.resource == resource).flat_map(|held| &held.device_ids);
        let granted_ids =
            grants.iter().filter(|(grant, _)| &grant.resource == resource).flat_map(|(grant, _)| &grant.ids);
        for id in held_ids.chain(granted_ids) {
            if !has.contains(&id) {
                has.push(id);
            }
        }
        let served = |container: &str, role: Role| {
            pod.settled
                || held.iter().any(|held| held.container == container && &held.resource == resource)
                || grants.iter().any(|(grant, name)| *name == container && &grant.resource == resource)
                // Pod-resources does not list init containers: once another one holds something, they are done.
                || (role == Role::Init && !held.is_empty())
        };
        let planned = self.planned(pod, resource);
        let waiting = pod.request.containers().iter().filter_map(|container| {
            let count = *container.devices.get(resource)? as usize;
            let devices = pod.plan.as_ref().map_or(&[][..], |plan| plan.devices(&container.name, resource));
            let planned = self.located(devices, resource).unwrap_or_default();
            (!served(&container.name, container.role)).then_some(Waiting {
                container: &container.name,
                count,
                planned,
            })
        });
        Some(Asker {
            uid,
            order: pod.order,
            shape: Shape { total, share: Plan::share_of(pod.plan.as_ref(), &pod.request) },
            planned,
            has_places: self.places(resource, has.iter().copied()),
            has,
            waiting: waiting.collect(),
            begun: !held.is_empty() || !grants.is_empty(),
        })
    }

    /// The places that a pod's plan names, if this node has all of them.
    fn planned(&self, pod: &Pod, resource: &ResourceName) -> Option<Vec<Chosen>> {
        let sets = pod.plan.as_ref()?.sets(&pod.request);
        self.located(sets.get(resource).map_or(&[][..], Vec::as_slice), resource)
    }

    fn located(&self, devices: &[PlannedDevice], resource: &ResourceName) -> Option<Vec<Chosen>> {
        let gpus = || self.gpus.iter().map(|gpu| &**gpu);
        let place = |device: &PlannedDevice| {
            device.locate(gpus(), resource).map(|(gpu, offer)| Chosen { gpu, offer })
        };
        devices.iter().map(place).collect()
    }

    /// Takes note of an answered `Allocate`, and guesses whose it was.
    pub(super) fn allocated(&mut self, resource: ResourceName, ids: Vec<String>, at: Duration) -> Served {
        self.book_slices(&resource, &ids);
        let askers = self.askers(&resource);
        let calls = expected(&askers, ids.len(), &ids);
        let as_planned = |call: &&Call<'_>| {
            let fresh: Vec<&String> = ids.iter().filter(|id| !call.asker.has.contains(id)).collect();
            let fresh = self.places(&resource, fresh);
            call.is_planned() && without(&fresh, &pool(&askers, call.asker.shape)).is_empty()
        };
        let (call, served) = match calls.iter().find(as_planned) {
            Some(call) => (Some(call), Served::Planned),
            // Not what any plan says: a pod without one is likelier to have asked.
            None => match calls.iter().find(|call| !call.is_planned()) {
                Some(call) => (Some(call), Served::Unplanned),
                None => (calls.first(), if calls.is_empty() { Served::Unplanned } else { Served::OffPlan }),
            },
        };
        let call = call.map(|call| (call.asker.uid.to_owned(), call.waiting.container.to_owned()));
        self.grant(Grant { resource, ids, at, call });
        served
    }

    fn grant(&mut self, new: Grant) {
        // A device that is handed out again was free: whatever is remembered of it is over, unless the same pod's
        // init container had it.
        self.grants.retain(|old| {
            let same_pod = match (&old.call, &new.call) {
                (Some((one, _)), Some((two, _))) => one == two,
                _ => false,
            };
            same_pod || old.resource != new.resource || !old.ids.iter().any(|id| new.ids.contains(id))
        });
        if self.grants.len() >= GRANTS_MAX {
            self.grants.remove(0);
        }
        self.grants.push(new);
    }
}

/// Calls of this count that are still to come, the likeliest next one first: of the pod that the kubelet is in
/// the middle of, then in the order of the pods. If a pod has some of the `given` devices already, it can only be
/// that pod: what an init container had goes to nobody else.
pub(super) fn expected<'c>(askers: &'c [Asker<'c>], count: usize, given: &[String]) -> Vec<Call<'c>> {
    let mut calls: Vec<Call<'c>> = askers
        .iter()
        .flat_map(|asker| asker.waiting.iter().map(move |waiting| Call { asker, waiting }))
        .filter(|call| call.waiting.count == count)
        .collect();
    calls.sort_by_key(|call| !call.asker.begun);
    if calls.iter().any(|call| has_any(call.asker, given)) {
        calls.retain(|call| has_any(call.asker, given));
    }
    calls
}

fn has_any(asker: &Asker<'_>, ids: &[String]) -> bool {
    asker.has.iter().any(|id| ids.contains(id))
}

/// What was planned for pods of a shape and not handed out to one of them yet.
fn pool(askers: &[Asker<'_>], shape: Shape) -> Vec<Chosen> {
    let alike = || askers.iter().filter(|asker| asker.shape == shape);
    let planned: Vec<Chosen> =
        alike().filter_map(|asker| asker.planned.as_deref()).flatten().copied().collect();
    let with_plan = alike().filter(|asker| asker.planned.is_some());
    let handed_out: Vec<Chosen> = with_plan.flat_map(|asker| &asker.has_places).copied().collect();
    without(&planned, &handed_out)
}

/// What pods were promised that they have not got yet: their own plan's devices, else others of their shape, and
/// never more than they lack.
pub(super) fn promised(askers: &[Asker<'_>]) -> Vec<Promise> {
    let mut promised = Vec::new();
    let mut shapes: Vec<Shape> = askers.iter().map(|asker| asker.shape).collect();
    shapes.sort_unstable();
    shapes.dedup();
    for shape in shapes {
        let promise = |place: Chosen| Promise { place, share: shape.share };
        let mut pool = pool(askers, shape);
        let lacking = askers
            .iter()
            .filter(|asker| asker.shape == shape && asker.planned.is_some() && !asker.waiting.is_empty());
        let mut missing = 0;
        for asker in lacking {
            let lacks = (shape.total as usize).saturating_sub(asker.has.len());
            let mut own = take_from(&mut pool, asker.planned.as_deref().unwrap_or_default());
            pool.extend(own.split_off(lacks.min(own.len())));
            missing += lacks - own.len();
            promised.extend(own.into_iter().map(promise));
        }
        promised.extend(pool.into_iter().take(missing).map(promise));
    }
    promised
}

/// `one` without what `two` has, each as often as it is there.
pub(super) fn without(one: &[Chosen], two: &[Chosen]) -> Vec<Chosen> {
    let mut rest = one.to_vec();
    take_from(&mut rest, two);
    rest
}

/// Takes `wanted` out of `pool` as far as it is there, and gives back what was taken.
fn take_from(pool: &mut Vec<Chosen>, wanted: &[Chosen]) -> Vec<Chosen> {
    let mut taken = Vec::new();
    for place in wanted {
        if let Some(at) = pool.iter().position(|other| other == place) {
            taken.push(pool.remove(at));
        }
    }
    taken
}
