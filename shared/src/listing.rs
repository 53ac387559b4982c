//! Which devices of a GPU the kubelet should count, and which of them it may hand out now.
//!
//! A device is *healthy* to the kubelet where it is in use or could be handed out this moment; so what it counts
//! as free of a resource is what is really possible, each resource by itself. What is in use stays healthy
//! whatever else happens on the GPU: an in-use device that is called unhealthy makes the kubelet count one
//! device less than there is, and keeps its container from starting again.
//!
//! For slices that are built on demand the devices are tokens: as many of a profile as could be there at once.
//! Booked ones stand for their slice; of the rest, as many are healthy as slices could still be built.

use crate::device_id::DeviceId;
use crate::gpu::{Gpu, Part};
use crate::mig::ProfileName;
use crate::occupancy::{GpuState, Occupancy};
use crate::resource::ResourceName;

/// A device as the kubelet should see it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Listed {
    /// Its id.
    pub id: DeviceId,
    /// Whether it is in use or may be handed out.
    pub healthy: bool,
}

/// The devices of `resource` on a GPU, in a fixed order, as if nothing of it were ill.
pub fn listed(state: &GpuState, resource: &ResourceName) -> Vec<Listed> {
    let mut listed = fixed(state, resource);
    listed.extend(tokens(state, resource));
    listed
}

/// Devices of parts that are there whether or not somebody uses them.
fn fixed(state: &GpuState, resource: &ResourceName) -> Vec<Listed> {
    let (gpu, occupancy) = (&*state.gpu, &state.occupancy);
    let offers = gpu.kind.offers_of(resource).map(|(i, _)| i).filter(|&i| !gpu.is_on_demand(i));
    let devices = offers.flat_map(|offer| {
        let is_used = occupancy.in_use(offer) > 0 && !occupancy.is_barred(offer);
        let healthy = is_used || occupancy.room(&gpu.kind, offer) > 0;
        gpu.device_ids(offer).map(move |id| Listed { id, healthy })
    });
    devices.collect()
}

fn tokens(state: &GpuState, resource: &ResourceName) -> Vec<Listed> {
    let (gpu, occupancy) = (&*state.gpu, &state.occupancy);
    let Some(profile) = profile_on_demand(gpu, resource) else { return Vec::new() };
    let booked: Vec<DeviceId> = gpu
        .kind
        .offers_of(resource)
        .filter(|&(offer, _)| gpu.is_on_demand(offer))
        .flat_map(|(offer, _)| gpu.device_ids(offer))
        .collect();
    let most = Occupancy::idle(&gpu.kind).copies(&gpu.kind, resource);
    let mut creatable = occupancy.copies(&gpu.kind, resource);
    let mut token = |n| {
        let id = DeviceId::token(&gpu.uuid, profile, n)?;
        let is_booked = booked.contains(&id);
        let healthy = is_booked || creatable > 0;
        if !is_booked {
            creatable = creatable.saturating_sub(1);
        }
        Some(Listed { id, healthy })
    };
    (0..most).filter_map(&mut token).collect()
}

/// The profile whose slices a resource names on a GPU that builds them on demand.
fn profile_on_demand<'a>(gpu: &'a Gpu, resource: &ResourceName) -> Option<&'a ProfileName> {
    gpu.kind.offers_of(resource).find_map(|(i, offer)| match &offer.part {
        Part::Slice(slice) if gpu.is_on_demand(i) => Some(&slice.profile),
        _ => None,
    })
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use proptest::prelude::*;

    use super::*;
    use crate::gpu::{GpuKind, Offer};
    use crate::models::Model;
    use crate::units::MemoryMib;

    fn state(offers: Vec<Offer>, part: &str) -> GpuState {
        let part_uuids = vec![part.to_owned(); offers.len()];
        let kind = Arc::new(GpuKind::new("M", MemoryMib(1), offers).unwrap());
        let uuid = "GPU-a".parse().unwrap();
        GpuState::idle(Arc::new(Gpu {
            uuid,
            index: 0,
            numa_node: None,
            near: Vec::new(),
            kind,
            part_uuids,
            foreign: Vec::new(),
            unhealthy: None,
            sick: Default::default(),
        }))
    }

    fn on_demand(model: &str) -> GpuState {
        let geometry = Model::by_key(model).and_then(Model::geometry).unwrap();
        state(Offer::on_demand(geometry.slices(), &[]), "")
    }

    fn offer(resource: &str, replicas: Option<u32>) -> Offer {
        Offer {
            resource: resource.parse().unwrap(),
            part: Part::Whole,
            replicas,
            distinct: false,
            capped: false,
        }
    }

    /// How many devices of a resource are healthy, and how many there are.
    fn counts(state: &GpuState, resource: &str) -> (usize, usize) {
        let listed = listed(state, &resource.parse().unwrap());
        (listed.iter().filter(|device| device.healthy).count(), listed.len())
    }

    /// Books a slice for the first healthy token of its profile, as a plugin does.
    fn book(state: &mut GpuState, offer: usize) {
        let resource = state.gpu.kind.offers()[offer].resource.clone();
        let booked: Vec<&String> = state.gpu.part_uuids.iter().filter(|id| !id.is_empty()).collect();
        let token = listed(state, &resource)
            .into_iter()
            .map(|device| device.id.to_string())
            .find(|id| !booked.contains(&id))
            .unwrap();
        let mut gpu = (*state.gpu).clone();
        gpu.part_uuids[offer] = token;
        state.gpu = Arc::new(gpu);
        state.occupancy.take(offer);
    }

    #[test]
    fn a_gpu_offered_whole_and_as_shares_is_what_its_first_user_makes_it() {
        let mut gpu =
            state(vec![offer("nvidia.com/gpu", None), offer("nvidia.com/gpu.shared", Some(4))], "GPU-a");
        assert_eq!((counts(&gpu, "nvidia.com/gpu"), counts(&gpu, "nvidia.com/gpu.shared")), ((1, 1), (4, 4)));
        gpu.occupancy.take(1);
        assert_eq!((counts(&gpu, "nvidia.com/gpu"), counts(&gpu, "nvidia.com/gpu.shared")), ((0, 1), (4, 4)));
        gpu.occupancy.give_back(1);
        gpu.occupancy.take(0);
        assert_eq!((counts(&gpu, "nvidia.com/gpu"), counts(&gpu, "nvidia.com/gpu.shared")), ((1, 1), (0, 4)));
    }

    #[test]
    fn an_idle_a100_counts_every_profile_at_its_most() {
        let gpu = on_demand("a100-40gb");
        for (resource, most) in [
            ("1g.5gb", 7),
            ("1g.5gb.me", 1),
            ("1g.10gb", 4),
            ("2g.10gb", 3),
            ("3g.20gb", 2),
            ("4g.20gb", 1),
            ("7g.40gb", 1),
        ] {
            assert_eq!(counts(&gpu, &format!("nvidia.com/mig-{resource}")), (most, most), "{resource}");
        }
    }

    #[test]
    fn a_booked_slice_leaves_what_can_still_be_built() {
        let mut gpu = on_demand("a100-40gb");
        let high = gpu.gpu.kind.offers().iter().position(|offer| {
            matches!(&offer.part, Part::Slice(slice) if slice.profile.as_str() == "3g.20gb" && slice.start == 4)
        });
        book(&mut gpu, high.unwrap());
        assert_eq!(counts(&gpu, "nvidia.com/mig-3g.20gb"), (2, 2));
        assert_eq!(counts(&gpu, "nvidia.com/mig-1g.5gb"), (4, 7));
        assert_eq!(counts(&gpu, "nvidia.com/mig-7g.40gb"), (0, 1));
    }

    #[test]
    fn what_others_built_leaves_its_place_out() {
        let geometry = Model::by_key("a100-40gb").and_then(Model::geometry).unwrap();
        let foreign: Vec<_> =
            geometry.slices().filter(|s| s.profile.as_str() == "3g.20gb" && s.start == 0).collect();
        let gpu = state(Offer::on_demand(geometry.slices(), &foreign), "");
        assert_eq!(counts(&gpu, "nvidia.com/mig-1g.5gb"), (3, 3));
        assert_eq!(counts(&gpu, "nvidia.com/mig-7g.40gb"), (0, 0));
    }

    proptest! {
        /// Whatever was booked in whatever order: each profile's free tokens are as many as slices of it could be
        /// added one after another, and booked ones stay.
        #[test]
        fn free_tokens_are_what_could_be_built(
            model in prop::sample::select(vec!["a100-40gb", "a30", "rtx-pro-6000"]),
            picks in prop::collection::vec(0_usize..64, 0..10),
        ) {
            let mut gpu = on_demand(model);
            for pick in picks {
                let open: Vec<usize> =
                    (0..gpu.gpu.kind.offers().len()).filter(|&offer| gpu.room(offer) > 0).collect();
                if !open.is_empty() {
                    book(&mut gpu, open[pick % open.len()]);
                }
            }
            for resource in gpu.gpu.kind.offers().iter().map(|offer| &offer.resource) {
                let mut grown = gpu.clone();
                let mut built = 0;
                // Greedily from the low end: the other end from the one that the count goes by.
                for (offer, _) in gpu.gpu.kind.offers_of(resource) {
                    if grown.room(offer) > 0 {
                        grown.occupancy.take(offer);
                        built += 1;
                    }
                }
                let booked = gpu.gpu.kind.offers_of(resource).filter(|&(i, _)| gpu.occupancy.in_use(i) > 0).count();
                prop_assert_eq!(counts(&gpu, resource.as_str()).0, booked + built, "{}", resource);
            }
        }
    }
}
