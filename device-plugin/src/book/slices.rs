//! Which slice each token stands for.
//!
//! To the kubelet a token is a device like any other. Which slice of its GPU it means is decided when it is handed
//! out: the one that the plan of such a pod names, else the one where the packing core loses least. A token that
//! comes while there is no room, because a list of ours was still on its way to the kubelet, waits without a slice:
//! it is the kubelet's fact that a pod has it, and the next pod that ends may leave the room.

use std::collections::BTreeSet;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use stowage_shared::device_id::DeviceId;
use stowage_shared::gpu::{Gpu, GpuUuid, Part, locate, locate_leftover};
use stowage_shared::listing::{self, Listed};
use stowage_shared::mig::MigSlice;
use stowage_shared::occupancy::GpuState;
use stowage_shared::pack::{self, Chosen, Demand, Mix};
use stowage_shared::resource::ResourceName;

use super::calls::{expected, promised};
use super::{Book, Holding};
use crate::inventory::ListedDevice;

/// The slice that was booked for a token.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Booking {
    /// On which GPU.
    pub gpu: GpuUuid,
    /// Which slice of it.
    pub slice: MigSlice,
}

impl Book {
    /// The GPUs, each with the tokens that its slices are booked for.
    pub fn gpus(&self) -> &[Arc<Gpu>] {
        &self.gpus
    }

    /// Whether a device id is a token of this resource.
    pub fn knows_token(&self, resource: &ResourceName, id: &str) -> bool {
        id.parse().is_ok_and(|id| self.gpu_of_token(resource, &id).is_some())
    }

    /// The slice that was booked for a token.
    pub fn booking(&self, token: &str) -> Option<&Booking> {
        self.bookings.get(token)
    }

    /// All bookings, by token.
    pub fn bookings(&self) -> impl Iterator<Item = (&str, &Booking)> {
        self.bookings.iter().map(|(token, booking)| (token.as_str(), booking))
    }

    /// The devices of a resource, as the kubelet should see them: healthy is what is in use or could be handed out
    /// now, unless it is ill. While nothing is known of the GPUs, what is in use is left as it is.
    pub fn listed(&self, resource: &ResourceName) -> Vec<ListedDevice> {
        let in_use = self.ids_in_use(resource);
        let unknown = self.inventory.why_unknown().is_some();
        let mut devices = Vec::new();
        for state in self.states() {
            let gpu = &*state.gpu;
            let mut device = |id: String, has_room: bool| {
                let is_in_use = in_use.contains(&id);
                let is_well = self.inventory.why_sick_device(&id).is_none()
                    && if unknown { is_in_use } else { gpu.unhealthy.is_none() };
                let healthy = is_well && (is_in_use || has_room);
                devices.push(ListedDevice { id, healthy, numa_node: gpu.numa_node });
            };
            let listed = listing::listed(&state, resource);
            // Others may have built something since, so that there could be fewer slices than there are.
            let is_listed = |id: &String| listed.iter().any(|device| device.id.to_string() == *id);
            let of_gpu = |id: &&String| {
                let token = id.parse().ok();
                token.is_some_and(|id| {
                    self.gpu_of_token(resource, &id).is_some_and(|at| self.gpus[at].uuid == gpu.uuid)
                })
            };
            let unlisted: Vec<String> =
                in_use.iter().filter(of_gpu).filter(|id| !is_listed(id)).cloned().collect();
            listed.into_iter().for_each(|Listed { id, healthy }| device(id.to_string(), healthy));
            unlisted.into_iter().for_each(|id| device(id, false));
        }
        devices
    }

    /// Books a slice for each of these ids that is a token and has none yet, as far as there is room.
    pub(super) fn book_slices(&mut self, resource: &ResourceName, ids: &[String]) {
        for text in ids {
            if self.bookings.contains_key(text) {
                continue;
            }
            if let Some(Chosen { gpu, offer }) = self.slice_for(resource, text, ids) {
                let gpu = &self.gpus[gpu];
                if let Part::Slice(slice) = &gpu.kind.offers()[offer].part {
                    let booking = Booking { gpu: gpu.uuid.clone(), slice: slice.clone() };
                    self.bookings.insert(text.clone(), booking);
                    self.set_gpus();
                }
            }
        }
    }

    /// Books slices for the tokens that somebody is seen to hold without one: an earlier process gave them out and did
    /// not live to build their slices, or there was no room. Those that a plan speaks of come first, and nobody before
    /// the plans are known.
    pub(super) fn book_held(&mut self) {
        if !self.knows_pods || !self.knows_holders {
            return;
        }
        let lacks = |held: &&Holding| {
            held.device_ids
                .iter()
                .any(|id| !self.bookings.contains_key(id) && self.knows_token(&held.resource, id))
        };
        let has_plan = |held: &Holding| {
            self.owner(held).and_then(|uid| self.pods.get(uid)).is_some_and(|pod| pod.plan.is_some())
        };
        let mut unbooked: Vec<&Holding> = self.held.iter().filter(lacks).collect();
        unbooked.sort_by_key(|held| !has_plan(held));
        let unbooked: Vec<_> =
            unbooked.into_iter().map(|held| (held.resource.clone(), held.device_ids.clone())).collect();
        unbooked.iter().for_each(|(resource, ids)| self.book_slices(resource, ids));
    }

    /// Gives up the bookings of tokens that nobody holds any more.
    pub(super) fn drop_free_bookings(&mut self) {
        if self.bookings.is_empty() {
            return;
        }
        let held = self.held.iter().flat_map(|held| &held.device_ids);
        let in_use: BTreeSet<&String> = held.chain(self.grants.iter().flat_map(|grant| &grant.ids)).collect();
        let before = self.bookings.len();
        self.bookings.retain(|token, _| in_use.contains(token) || self.restored.contains(token));
        if self.bookings.len() != before {
            self.set_gpus();
        }
    }

    /// Writes the bookings into the inventory's GPUs.
    pub(super) fn set_gpus(&mut self) {
        let with_bookings = |gpu: &Arc<Gpu>| {
            let mut booked = self.bookings.iter().filter(|(_, booking)| booking.gpu == gpu.uuid).peekable();
            if booked.peek().is_none() {
                return gpu.clone();
            }
            let mut gpu = (**gpu).clone();
            for (token, Booking { slice, .. }) in booked {
                let same = |i: &usize| {
                    gpu.is_on_demand(*i) && gpu.kind.offers()[*i].part == Part::Slice(slice.clone())
                };
                if let Some(offer) = (0..gpu.part_uuids.len()).find(same) {
                    gpu.part_uuids[offer].clone_from(token);
                    if let Some(why) = self.inventory.why_sick(token) {
                        gpu.sick.insert(offer, why.to_owned());
                    }
                }
            }
            Arc::new(gpu)
        };
        self.gpus = self.inventory.gpus().iter().map(with_bookings).collect();
    }

    /// What of each GPU is in use: held, handed out, or booked.
    pub(super) fn states(&self) -> Vec<GpuState> {
        self.states_without(&BTreeSet::new())
    }

    /// The same where the kubelet says that these devices are free, whatever we remember of them.
    pub(super) fn states_without(&self, free: &BTreeSet<(&ResourceName, &String)>) -> Vec<GpuState> {
        let mut states: Vec<GpuState> = self.gpus.iter().cloned().map(GpuState::idle).collect();
        let mut taken = free.clone();
        let held = self.held.iter().map(|held| (&held.resource, &held.device_ids, self.owner(held)));
        let granted = self
            .grants
            .iter()
            .map(|grant| (&grant.resource, &grant.ids, grant.call.as_ref().map(|(uid, _)| uid.as_str())));
        for (resource, ids, uid) in held.chain(granted) {
            let share = self.share_of(uid);
            for id in ids {
                if !taken.insert((resource, id)) {
                    continue;
                }
                let Ok(parsed) = id.parse::<DeviceId>() else { continue };
                let gpus = || self.gpus.iter().map(|gpu| &**gpu);
                if let Some((gpu, offer)) = locate(gpus(), resource, &parsed) {
                    states[gpu].take(offer, share);
                } else if let Some((gpu, leftover)) = locate_leftover(gpus(), resource, &parsed) {
                    states[gpu].keep(leftover, share);
                }
            }
        }
        for (token, booking) in &self.bookings {
            let resource = ResourceName::mig(&booking.slice.profile);
            if !taken.contains(&(&resource, token)) {
                let places = self.places(&resource, [token]);
                places.iter().for_each(|place| states[place.gpu].occupancy.take(place.offer));
            }
        }
        states
    }

    /// The GPU that a token is for.
    pub(super) fn gpu_of_token(&self, resource: &ResourceName, id: &DeviceId) -> Option<usize> {
        let (gpu, profile) = id.token_of()?;
        let at = self.gpus.iter().position(|known| known.uuid.as_str() == gpu)?;
        let is_offered = self.gpus[at].kind.offers_of(resource).any(|(i, offer)| {
            let same = |slice: &MigSlice| slice.profile.as_str() == profile;
            self.gpus[at].is_on_demand(i) && matches!(&offer.part, Part::Slice(slice) if same(slice))
        });
        is_offered.then_some(at)
    }

    /// The best free slice for a token that was handed out as one of `ids`.
    fn slice_for(&self, resource: &ResourceName, token: &str, ids: &[String]) -> Option<Chosen> {
        let gpu = self.gpu_of_token(resource, &token.parse().ok()?)?;
        let states = self.states();
        let fits = |place: &Chosen| {
            place.gpu == gpu && states[gpu].occupancy.room(&self.gpus[gpu].kind, place.offer) > 0
        };
        let askers = self.askers(resource);
        let planned: Vec<Chosen> = match askers.iter().find(|asker| asker.has(token)) {
            Some(holder) => holder.candidates(&askers),
            None => {
                let given = self.places(resource, ids);
                let calls = expected(&askers, ids.len(), ids);
                let planned = calls.iter().filter(|call| call.is_planned());
                planned.flat_map(|call| call.candidates(&askers, &given)).collect()
            }
        };
        if let Some(place) = planned.into_iter().find(fits) {
            return Some(place);
        }
        let mut guarded = states.clone();
        promised(&askers).iter().for_each(|promise| promise.take(&mut guarded));
        let demand = Demand::from([(resource.clone(), 1)]);
        let mix = Mix::prior(self.gpus.iter().map(|gpu| &**gpu));
        // Where the GPU is sick the pod has the token all the same: a slice is found as if it were well.
        let alone = |states: &[GpuState]| {
            let mut state = states[gpu].clone();
            state.gpu = Arc::new(Gpu { unhealthy: None, ..(*state.gpu).clone() });
            pack::place(&[state], &demand, &mix).ok()
        };
        let placement = alone(&guarded).or_else(|| alone(&states))?;
        placement.devices.into_values().flatten().next().map(|chosen| Chosen { gpu, ..chosen })
    }
}
