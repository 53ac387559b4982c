//! Which devices a call should get: the plan's, else the packing core's.

use std::collections::BTreeSet;

use stowage_shared::device_id::DeviceId;
use stowage_shared::gpu::locate;
use stowage_shared::pack::{self, Chosen, Demand, Mix};
use stowage_shared::resource::ResourceName;
use stowage_shared::share::ShareSize;
use stowage_shared::topology::draw_together;
use stowage_shared::units::MemoryMib;

use super::Book;
use super::calls::{Asker, Shape, expected, promised};

/// What `GetPreferredAllocation` is asked for one container.
#[derive(Debug, Clone, Copy)]
pub struct Ask<'a> {
    /// The resource.
    pub resource: &'a ResourceName,
    /// The ids to choose from, `must_include` among them.
    pub available: &'a [String],
    /// Ids that the container gets anyway: an init container of its pod had them.
    pub must_include: &'a [String],
    /// How many devices in all.
    pub size: usize,
}

/// Who chose.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Source {
    /// A plan.
    Plan,
    /// The configured policy for shares: no plan was there, or what it says is not available.
    Policy,
    /// The packing core: no plan was there, or what it says is not available.
    Core,
    /// Nobody: nothing fits, and the kubelet takes what it likes.
    Nobody,
}

impl Source {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Plan, Self::Policy, Self::Core, Self::Nobody];
}

/// What the kubelet should take.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Choice {
    /// Device ids, those that must be included first; empty where there is nothing to say.
    pub ids: Vec<String>,
    /// Who chose.
    pub source: Source,
}

/// An available device.
pub(super) struct Free<'a> {
    pub(super) id: &'a String,
    pub(super) gpu: usize,
    /// Its offer; any of the resource's on that GPU where it is a token without a slice.
    pub(super) offer: Option<usize>,
    replica: u32,
}

impl Free<'_> {
    fn is_at(&self, place: &Chosen) -> bool {
        self.gpu == place.gpu && self.offer.is_none_or(|offer| offer == place.offer)
    }
}

impl Book {
    /// Whether a pod is known that may be the one that asks, so that there is nothing to wait for.
    pub fn expects(&self, ask: &Ask<'_>) -> bool {
        !expected(&self.askers(ask.resource), ask.size, ask.must_include).is_empty()
    }

    /// Chooses devices for a call. It never fails: where nothing fits, it says nothing.
    pub fn choose(&self, ask: &Ask<'_>) -> Choice {
        let must: BTreeSet<&String> = ask.must_include.iter().collect();
        let mut free: Vec<Free<'_>> = Vec::new();
        for id in ask.available.iter().collect::<BTreeSet<_>>().difference(&must) {
            free.extend(self.free(ask.resource, id));
        }
        // The least replica of a part first: shares are alike, and people like low numbers.
        free.sort_by_key(|free| (free.gpu, free.offer, free.replica));
        let given: Vec<String> = ask.must_include.iter().take(ask.size).cloned().collect();
        let missing = ask.size - given.len();
        let with = |ids: Vec<String>| given.iter().cloned().chain(ids).collect();
        if missing == 0 {
            return Choice { ids: given, source: Source::Nobody };
        }
        let askers = self.askers(ask.resource);
        if let Some(ids) = self.by_plan(ask, &askers, &free, missing) {
            return Choice { ids: with(ids), source: Source::Plan };
        }
        if let Some(ids) = self.by_policy(ask, &askers, &free, missing) {
            let served = ids.len() == missing;
            return Choice {
                ids: if served { with(ids) } else { Vec::new() },
                source: if served { Source::Policy } else { Source::Nobody },
            };
        }
        match self.by_core(ask, &askers, &free, missing) {
            Some(ids) => Choice { ids: with(ids), source: Source::Core },
            None => Choice { ids: Vec::new(), source: Source::Nobody },
        }
    }

    fn free<'a>(&self, resource: &ResourceName, text: &'a String) -> Option<Free<'a>> {
        let id: DeviceId = text.parse().ok()?;
        let replica = id.replica_index().unwrap_or(0);
        match locate(self.gpus.iter().map(|gpu| &**gpu), resource, &id) {
            Some((gpu, offer)) => Some(Free { id: text, gpu, offer: Some(offer), replica }),
            None => self.gpu_of_token(resource, &id).map(|gpu| Free { id: text, gpu, offer: None, replica }),
        }
    }

    /// Whether one container may hold these: shares may have to be of different GPUs.
    fn may_be_together(&self, resource: &ResourceName, ids: &[String]) -> bool {
        !self.inventory.share_rules().distinct_gpus || self.inventory.same_part_twice(resource, ids).is_none()
    }

    /// What was planned for the next call, or for one of its shape, if enough of it is available.
    fn by_plan(
        &self,
        ask: &Ask<'_>,
        askers: &[Asker<'_>],
        free: &[Free<'_>],
        missing: usize,
    ) -> Option<Vec<String>> {
        let given = self.places(ask.resource, ask.must_include);
        let mut tried: Vec<Shape> = Vec::new();
        for call in expected(askers, ask.size, ask.must_include) {
            // Its turn, and it has no plan: the core chooses for it.
            if !call.is_planned() {
                return None;
            }
            if !tried.contains(&call.asker.shape) {
                tried.push(call.asker.shape);
                let candidates = call.candidates(askers, &given);
                let ids = available_at(&candidates, free, missing);
                if ids.len() == missing && self.may_be_together(ask.resource, &ids) {
                    return Some(ids);
                }
            }
        }
        None
    }

    /// What the packing core chooses, first without what others were promised, then, as the kubelet wants
    /// devices in any case, with it.
    fn by_core(
        &self,
        ask: &Ask<'_>,
        askers: &[Asker<'_>],
        free: &[Free<'_>],
        missing: usize,
    ) -> Option<Vec<String>> {
        let gpus = &self.gpus;
        let free_ids = free.iter().map(|free| (ask.resource, free.id)).collect();
        let mut states = self.states_without(&free_ids);
        // What the kubelet does not offer is in use, unhealthy or on another NUMA node: not ours to give.
        for (g, gpu) in gpus.iter().enumerate() {
            for (offer, of) in gpu.kind.offers_of(ask.resource) {
                let free = free.iter().filter(|free| free.is_at(&Chosen { gpu: g, offer })).count();
                let in_use = states[g].occupancy.in_use(offer) as usize;
                // They count, and take nobody's memory.
                let nothing = Some(ShareSize::Memory(MemoryMib(0)));
                (free + in_use..of.device_count() as usize).for_each(|_| states[g].take(offer, nothing));
            }
        }
        let mut guarded = states.clone();
        promised(askers).iter().for_each(|promise| promise.take(&mut guarded));

        let devices = [(ask.resource.clone(), u32::try_from(missing).ok()?)];
        let demand = Demand { share: share_of_next(ask, askers), ..Demand::from(devices) };
        let mix = Mix::prior(gpus.iter().map(|gpu| &**gpu));
        let (mut placement, seen) = match pack::place(&guarded, &demand, &mix) {
            Ok(placement) => (placement, &guarded),
            Err(_) => (pack::place(&states, &demand, &mix).ok()?, &states),
        };
        let given = self.places(ask.resource, ask.must_include);
        draw_together(&mut placement, seen, &given.iter().map(|place| place.gpu).collect::<Vec<_>>());
        let chosen: Vec<Chosen> = placement.devices.into_values().flatten().collect();
        let ids = available_at(&chosen, free, missing);
        (ids.len() == missing).then_some(ids)
    }
}

/// The size of the shares of the pod whose turn it is.
pub(super) fn share_of_next(ask: &Ask<'_>, askers: &[Asker<'_>]) -> Option<ShareSize> {
    expected(askers, ask.size, ask.must_include).first()?.asker.shape.share
}

/// The first `most` of these places that have an available device, as device ids.
fn available_at(places: &[Chosen], free: &[Free<'_>], most: usize) -> Vec<String> {
    let mut ids: Vec<String> = Vec::new();
    for place in places {
        if ids.len() == most {
            break;
        }
        let mut here = free.iter().filter(|free| free.is_at(place));
        ids.extend(here.find(|free| !ids.contains(free.id)).map(|free| free.id.clone()));
    }
    ids
}
