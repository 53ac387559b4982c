//! Which devices a call should get: the plan's, else the packing core's.

use std::collections::BTreeSet;

use stowage_shared::device_id::DeviceId;
use stowage_shared::gpu::locate;
use stowage_shared::occupancy::GpuState;
use stowage_shared::pack::{self, Chosen, Demand, Mix};
use stowage_shared::resource::ResourceName;

use super::Book;
use super::calls::{Asker, expected, promised};

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
    /// The packing core: no plan was there, or what it says is not available.
    Core,
    /// Nobody: nothing fits, and the kubelet takes what it likes.
    Nobody,
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
struct Free<'a> {
    id: &'a String,
    place: Chosen,
    replica: u32,
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
        free.sort_by_key(|free| (free.place.gpu, free.place.offer, free.replica));
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
        match self.by_core(ask, &askers, &free, missing) {
            Some(ids) => Choice { ids: with(ids), source: Source::Core },
            None => Choice { ids: Vec::new(), source: Source::Nobody },
        }
    }

    fn free<'a>(&self, resource: &ResourceName, text: &'a String) -> Option<Free<'a>> {
        let id: DeviceId = text.parse().ok()?;
        let (gpu, offer) = locate(self.inventory.gpus().iter().map(|gpu| &**gpu), resource, &id)?;
        Some(Free { id: text, place: Chosen { gpu, offer }, replica: id.replica_index().unwrap_or(0) })
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
        let mut tried: Vec<u32> = Vec::new();
        for call in expected(askers, ask.size, ask.must_include) {
            // Its turn, and it has no plan: the core chooses for it.
            if !call.is_planned() {
                return None;
            }
            if !tried.contains(&call.asker.total) {
                tried.push(call.asker.total);
                let candidates = call.candidates(askers, &given);
                let ids = available_at(&candidates, free, missing);
                if ids.len() == missing {
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
        let gpus = self.inventory.gpus();
        let mut states: Vec<GpuState> = gpus.iter().cloned().map(GpuState::idle).collect();
        // What the kubelet does not offer is in use, unhealthy or on another NUMA node: not ours to give.
        for (g, gpu) in gpus.iter().enumerate() {
            for (offer, of) in gpu.kind.offers_of(ask.resource) {
                let free = free.iter().filter(|free| free.place == Chosen { gpu: g, offer }).count();
                (free..of.device_count() as usize).for_each(|_| states[g].occupancy.take(offer));
            }
        }
        for held in self.held.iter().filter(|held| &held.resource != ask.resource) {
            let places = self.places(&held.resource, &held.device_ids);
            places.iter().for_each(|place| states[place.gpu].occupancy.take(place.offer));
        }
        let mut guarded = states.clone();
        promised(askers).iter().for_each(|place| guarded[place.gpu].occupancy.take(place.offer));

        let demand = Demand::from([(ask.resource.clone(), u32::try_from(missing).ok()?)]);
        let mix = Mix::prior(gpus.iter().map(|gpu| &**gpu));
        let placement =
            pack::place(&guarded, &demand, &mix).or_else(|_| pack::place(&states, &demand, &mix)).ok()?;
        let chosen: Vec<Chosen> = placement.devices.into_values().flatten().collect();
        let ids = available_at(&chosen, free, missing);
        (ids.len() == missing).then_some(ids)
    }
}

/// The first `most` of these places that have an available device, as device ids.
fn available_at(places: &[Chosen], free: &[Free<'_>], most: usize) -> Vec<String> {
    let mut ids: Vec<String> = Vec::new();
    for place in places {
        if ids.len() == most {
            break;
        }
        let mut here = free.iter().filter(|free| &free.place == place);
        ids.extend(here.find(|free| !ids.contains(free.id)).map(|free| free.id.clone()));
    }
    ids
}
