//! How much of GPUs is in use, free and stranded, as amounts that add up.
//!
//! A count of devices says little where the same GPU is offered in several forms. So each GPU is looked at by its
//! memory slices (one where it is not cut), and each slice is in use, free (something that is offered now could
//! still take it), ill, or **stranded**: idle, and nothing that is offered could take it as things are.

use crate::gpu::{Gpu, Part};
use crate::occupancy::GpuState;

/// Amounts in thousandths of a GPU; together they are all of the GPUs.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub struct Tally {
    /// In use or promised; of a shared part, as much as its replicas that are. All of what somebody has in a form that is
    /// not offered any more.
    pub in_use: u64,
    /// Idle and to be had.
    pub free: u64,
    /// Idle, and to be had by nobody while the rest is as it is.
    pub stranded: u64,
    /// Idle and unhealthy.
    pub unhealthy: u64,
    /// MIG instances that Stowage did not build.
    pub foreign: u64,
}

/// Thousandths of a GPU.
const WHOLE: u64 = 1000;

impl Tally {
    /// Adds up some GPUs.
    pub fn of<'a>(gpus: impl IntoIterator<Item = &'a GpuState>) -> Self {
        gpus.into_iter().map(one).fold(Self::default(), |sum, one| Self {
            in_use: sum.in_use + one.in_use,
            free: sum.free + one.free,
            stranded: sum.stranded + one.stranded,
            unhealthy: sum.unhealthy + one.unhealthy,
            foreign: sum.foreign + one.foreign,
        })
    }
}

/// The memory slices of a GPU: the end of the last one that something is offered or built on.
fn grid(gpu: &Gpu) -> u32 {
    let offered = gpu.kind.offers().iter().filter_map(|offer| match &offer.part {
        Part::Whole => None,
        Part::Slice(slice) => Some(slice),
    });
    let ends = offered.chain(&gpu.foreign).map(|slice| u32::from(slice.start) + u32::from(slice.size));
    ends.max().unwrap_or(1).clamp(1, u32::BITS)
}

/// What is in use, free, stranded and so on of each memory slice of a GPU, in thousandths of that slice: what a picture of it
/// shows. A GPU that is not cut has one.
pub fn slices(state: &GpuState) -> Vec<Tally> {
    let grid = grid(&state.gpu);
    let all = u32::MAX >> (u32::BITS - grid);
    let offers = state.gpu.kind.offers();
    let mask = |part: &Part| match part {
        Part::Whole => all,
        Part::Slice(slice) => slice.mask(),
    };
    let foreign = state.gpu.foreign.iter().fold(0, |mask, slice| mask | slice.mask());
    let slice = |bit: u32| -> Tally {
        let on = |offer: &usize| mask(&offers[*offer].part) & (1 << bit) != 0;
        let here: Vec<usize> = (0..offers.len()).filter(on).collect();
        let shares = |offer: usize| {
            let of = u64::from(offers[offer].device_count().max(1));
            (u64::from(state.occupancy.in_use(offer)) * WHOLE / of).min(WHOLE)
        };
        // What excludes each other is in use together only by mistake, and then not more than all of it is.
        let is_barred = here.iter().any(|&offer| state.occupancy.is_barred(offer));
        let counted = here.iter().map(|&offer| shares(offer)).sum::<u64>().min(WHOLE);
        let in_use = if is_barred { WHOLE } else { counted };
        let idle = WHOLE - in_use;
        let mut tally = Tally { in_use, ..Tally::default() };
        if foreign & (1 << bit) != 0 && in_use == 0 {
            tally.foreign = idle;
        } else if here.iter().any(|&offer| state.room(offer) > 0) {
            tally.free = idle;
        } else if state.gpu.unhealthy.is_some() || here.iter().any(|&o| state.gpu.why_not(o).is_some()) {
            tally.unhealthy = idle;
        } else {
            tally.stranded = idle;
        }
        tally
    };
    (0..grid).map(slice).collect()
}

fn one(state: &GpuState) -> Tally {
    let slices = slices(state);
    let grid = u64::try_from(slices.len()).unwrap_or(1).max(1);
    let mean = |amount: fn(&Tally) -> u64| slices.iter().map(amount).sum::<u64>() / grid;
    let (free, stranded) = (mean(|s| s.free), mean(|s| s.stranded));
    let (unhealthy, foreign) = (mean(|s| s.unhealthy), mean(|s| s.foreign));
    let in_use = mean(|s| s.in_use);
    // Sevenths do not add up to a thousand: what is missing belongs to the largest.
    let missing = WHOLE - (in_use + free + stranded + unhealthy + foreign);
    let mut tally = Tally { in_use, free, stranded, unhealthy, foreign };
    let most = [in_use, free, stranded, unhealthy, foreign].into_iter().max().unwrap_or_default();
    let slot = match most {
        n if n == in_use => &mut tally.in_use,
        n if n == free => &mut tally.free,
        n if n == stranded => &mut tally.stranded,
        n if n == unhealthy => &mut tally.unhealthy,
        _ => &mut tally.foreign,
    };
    *slot += missing;
    tally
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::sync::Arc;

    use proptest::prelude::*;

    use super::*;
    use crate::gpu::{GpuKind, Offer};
    use crate::models::Model;
    use crate::resource::ResourceName;
    use crate::units::MemoryMib;

    /// An A100 that is offered whole, in four shares, in every slice, or in some instances: `3g.20gb@4 1g.5gb@0`.
    fn gpu(what: &str) -> GpuState {
        let geometry = Model::by_key("a100-40gb").and_then(Model::geometry).unwrap();
        let offer =
            |resource, part, replicas| Offer { resource, part, replicas, distinct: false, capped: false };
        let whole = || offer(ResourceName::gpu(), Part::Whole, None);
        let shares = || offer(ResourceName::gpu().shared(), Part::Whole, Some(4));
        let mig =
            |slice: crate::mig::MigSlice| offer(ResourceName::mig(&slice.profile), Part::Slice(slice), None);
        let offers: Vec<Offer> = match what {
            "whole" => vec![whole()],
            "shares" => vec![shares()],
            "elastic" => [whole(), shares()].into_iter().chain(geometry.slices().map(mig)).collect(),
            list => {
                let named = |text: &str| {
                    geometry.slices().find(|s| format!("{}@{}", s.profile, s.start) == text).unwrap()
                };
                list.split(' ').map(named).map(mig).collect()
            }
        };
        let gpu = Gpu {
            uuid: "GPU-0".parse().unwrap(),
            index: 0,
            numa_node: None,
            near: Vec::new(),
            part_uuids: offers.iter().map(|_| "GPU-0".to_owned()).collect(),
            kind: Arc::new(GpuKind::new("M", MemoryMib(40_960), offers).unwrap()),
            foreign: Vec::new(),
            unhealthy: None,
            sick: BTreeMap::new(),
        };
        GpuState::idle(Arc::new(gpu))
    }

    fn take(state: &mut GpuState, what: &str) {
        let offers = state.gpu.kind.offers();
        let named = |offer: &Offer| match &offer.part {
            Part::Whole => offer.resource.short() == what,
            Part::Slice(slice) => format!("{}@{}", slice.profile, slice.start) == what,
        };
        let at = offers.iter().position(named).unwrap();
        state.occupancy.take(at);
    }

    /// What is offered, what is taken of it; in use, free, stranded.
    #[track_caller]
    fn check(what: &str, taken: &[&str], want: [u64; 3]) {
        let mut state = gpu(what);
        taken.iter().for_each(|one| take(&mut state, one));
        let Tally { in_use, free, stranded, .. } = Tally::of([&state]);
        assert_eq!([in_use, free, stranded], want);
    }

    #[test]
    fn a_gpu_in_use_is_no_room_whatever_it_is_offered_as() {
        check("whole", &[], [0, 1000, 0]);
        check("whole", &["gpu"], [1000, 0, 0]);
        check("shares", &["gpu.shared"], [250, 750, 0]);
        check("elastic", &["gpu.shared", "gpu.shared"], [500, 500, 0]);
        check("elastic", &["gpu"], [1000, 0, 0]);
    }

    #[test]
    fn a_slice_that_nothing_can_take_is_stranded() {
        check("elastic", &["1g.5gb@0"], [125, 875, 0]);
        check("elastic", &["1g.5gb@6"], [125, 750, 125]);
        check("3g.20gb@4 1g.5gb@0", &[], [0, 625, 375]);
        check("3g.20gb@4 1g.5gb@0", &["3g.20gb@4"], [500, 125, 375]);
    }

    #[test]
    fn what_is_ill_or_built_by_others_is_told_apart() {
        let mut state = gpu("elastic");
        state.gpu = Arc::new(Gpu { unhealthy: Some("XID 79".into()), ..(*state.gpu).clone() });
        take(&mut state, "1g.5gb@0");
        assert_eq!(Tally::of([&state]), Tally { in_use: 125, unhealthy: 875, ..Tally::default() });
        let mut other = gpu("1g.5gb@0");
        let slice = gpu("3g.20gb@4").gpu.kind.offers()[0].part.clone();
        let Part::Slice(slice) = slice else { panic!("a slice") };
        other.gpu = Arc::new(Gpu { foreign: vec![slice], ..(*other.gpu).clone() });
        assert_eq!(Tally::of([&other]), Tally { free: 125, stranded: 375, foreign: 500, ..Tally::default() });
    }

    proptest! {
        #[test]
        fn amounts_add_up_to_the_gpus(takes in prop::collection::vec(0_usize..20, 0..6), kind in 0_usize..4) {
            let mut state = gpu(["whole", "shares", "elastic", "3g.20gb@4 1g.5gb@0 1g.5gb@1"][kind]);
            for pick in takes {
                let offer = pick % state.gpu.kind.offers().len();
                if state.room(offer) > 0 {
                    state.occupancy.take(offer);
                }
            }
            let t = Tally::of([&state]);
            prop_assert_eq!(t.in_use + t.free + t.stranded + t.unhealthy + t.foreign, 1000);
        }
    }
}
