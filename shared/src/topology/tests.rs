use std::collections::BTreeMap;
use std::sync::Arc;

use proptest::prelude::*;

use super::*;
use crate::gpu::{GpuKind, Offer};
use crate::pack::{Demand, Mix, place};
use crate::resource::ResourceName;
use crate::units::MemoryMib;

/// Whole GPUs so near to each other: the scores of every pair, `(0, 1)`, `(0, 2)`, `(1, 2)`, `(0, 3)` and so on.
fn gpus(count: usize, scores: impl IntoIterator<Item = u16>) -> Vec<GpuState> {
    let offer = Offer {
        resource: ResourceName::gpu(),
        part: Part::Whole,
        replicas: None,
        distinct: false,
        capped: false,
    };
    let kind = Arc::new(GpuKind::new("M", MemoryMib(1), vec![offer]).unwrap());
    let mut scores = scores.into_iter();
    let gpu = |index: usize| {
        let uuid = format!("GPU-{index}");
        GpuState::idle(Arc::new(Gpu {
            uuid: uuid.parse().unwrap(),
            index: index as u32,
            numa_node: None,
            near: scores.by_ref().take(index).collect(),
            kind: kind.clone(),
            part_uuids: vec![uuid],
            foreign: Vec::new(),
            unhealthy: None,
            sick: BTreeMap::new(),
        }))
    };
    (0..count).map(gpu).collect()
}

/// Eight V100s of a DGX-1: two squares with their diagonals, and each GPU linked to its like; two sockets.
fn dgx_1() -> Vec<GpuState> {
    let double = [(0, 3), (0, 4), (1, 2), (1, 5), (2, 3), (4, 7), (5, 6), (6, 7)];
    let single = [(0, 1), (0, 2), (1, 3), (2, 6), (3, 7), (4, 5), (4, 6), (5, 7)];
    gpus(
        8,
        pairs(8).map(|pair| {
            let links = if double.contains(&pair) {
                200
            } else if single.contains(&pair) {
                100
            } else {
                0
            };
            links + if pair.0 / 4 == pair.1 / 4 { 30 } else { 10 }
        }),
    )
}

fn pairs(count: usize) -> impl Iterator<Item = (usize, usize)> {
    (0..count).flat_map(|high| (0..high).map(move |low| (low, high)))
}

fn best(gpus: &[&GpuState], required: usize, size: usize) -> Option<Vec<usize>> {
    Near::between(&gpus.iter().map(|gpu| &*gpu.gpu).collect::<Vec<_>>()).best_set(required, size)
}

/// What the core chooses once `used` are in use and `given` are the pod's own, by GPU.
#[track_caller]
fn check(mut gpus: Vec<GpuState>, used: &[usize], given: &[usize], count: u32, want: &[usize]) {
    used.iter().chain(given).for_each(|&g| gpus[g].occupancy.take(0));
    let demand = Demand::from([(ResourceName::gpu(), count)]);
    let mut placement = place(&gpus, &demand, &Mix::prior(gpus.iter().map(|gpu| &*gpu.gpu))).unwrap();
    let cost = placement.cost;
    draw_together(&mut placement, &gpus, given);
    let got: Vec<usize> = placement.devices[&ResourceName::gpu()].iter().map(|chosen| chosen.gpu).collect();
    assert_eq!((got.as_slice(), placement.cost), (want, cost));
}

#[test]
fn several_gpus_are_those_that_are_linked() {
    check(dgx_1(), &[], &[], 2, &[0, 3]);
    check(dgx_1(), &[], &[], 4, &[0, 1, 2, 3]);
    check(dgx_1(), &[0], &[], 4, &[4, 5, 6, 7]);
    check(dgx_1(), &[0, 1, 2, 3, 4, 5], &[], 2, &[6, 7]);
}

#[test]
fn a_single_gpu_is_one_that_the_others_miss_least() {
    // 0 and 1 are linked, 2 is alone.
    check(gpus(3, [400, 10, 10]), &[], &[], 1, &[2]);
    check(gpus(3, [400, 10, 10]), &[2], &[], 1, &[0]);
}

#[test]
fn what_is_left_goes_together_too() {
    // 0-1 and 2-3 are pairs. 1-2 is nearer still, and would leave 0 and 3 with nothing.
    check(gpus(4, [400, 0, 500, 0, 0, 400]), &[], &[], 2, &[0, 1]);
}

#[test]
fn what_a_pod_has_already_is_counted_in() {
    check(dgx_1(), &[], &[6], 1, &[5]);
    check(dgx_1(), &[5], &[6], 1, &[7]);
}

#[test]
fn a_gpu_that_is_unhealthy_or_unlike_is_left_alone() {
    let mut broken = dgx_1();
    broken[3].gpu = Arc::new(Gpu { unhealthy: Some("XID 79".into()), ..(*broken[3].gpu).clone() });
    check(broken, &[1, 5, 6, 7], &[], 2, &[0, 4]);
    let mut other = dgx_1();
    check(other.clone(), &[3], &[], 2, &[1, 2]);
    let offers = other[0].gpu.kind.offers().to_vec();
    let kind = Arc::new(GpuKind::new("other", MemoryMib(1), offers).unwrap());
    other[0].gpu = Arc::new(Gpu { kind, ..(*other[0].gpu).clone() });
    check(other, &[3], &[], 2, &[0, 1]);
}

#[test]
fn without_links_the_core_chooses_alone() {
    check(gpus(4, []), &[0], &[], 2, &[1, 2]);
}

#[test]
fn gpus_that_are_nowhere_near_are_near_by_zero() {
    let (far, near) = (gpus(2, []), gpus(2, [7]));
    assert_eq!((nearness(&far[0].gpu, &far[1].gpu), nearness(&near[1].gpu, &near[0].gpu)), (0, 7));
    // Two of the same index: one is lost, and another one has taken its place.
    assert_eq!(nearness(&near[1].gpu, &near[1].gpu), 0);
}

#[test]
fn many_gpus_are_not_divided_and_still_go_together() {
    let linked = |(low, high): (usize, usize)| if low / 8 == high / 8 { 1200 } else { 10 };
    check(gpus(64, pairs(64).map(linked)), &[0, 1, 9], &[], 8, &[16, 17, 18, 19, 20, 21, 22, 23]);
    check(gpus(13, pairs(13).map(linked)), &[], &[9], 2, &[8, 10]);
}

/// Every way to label GPUs with sets, kept where all sets are full but one that takes the rest.
fn divisions(count: usize, size: usize) -> Vec<Vec<Vec<usize>>> {
    let sets = count.div_ceil(size);
    let labels = (0..sets.pow(count as u32)).map(|mut number| {
        let mut divided = vec![Vec::new(); sets];
        for gpu in 0..count {
            divided[number % sets].push(gpu);
            number /= sets;
        }
        divided
    });
    labels
        .filter(|sets| sets.iter().filter(|set| set.len() != size).all(|set| set.len() == count % size))
        .collect()
}

fn of_set(gpus: &[GpuState], set: &[usize]) -> u32 {
    let near = |i: usize, j: usize| u32::from(nearness(&gpus[set[i]].gpu, &gpus[set[j]].gpu));
    pairs(set.len()).map(|(i, j)| near(i, j)).sum()
}

proptest! {
    /// NVIDIA's rule, by looking at every way to divide the GPUs.
    #[test]
    fn the_set_is_the_best_one_of_the_best_division(
        (count, scores) in (1_usize..7).prop_flat_map(|n| (Just(n), prop::collection::vec(0_u16..5, n * (n - 1) / 2))),
        size in 1_usize..7,
        required in 0_usize..3,
    ) {
        let gpus = gpus(count, scores);
        let got = best(&gpus.iter().collect::<Vec<_>>(), required, size);
        if size > count || required > size {
            prop_assert_eq!(got, None);
            return Ok(());
        }
        let mut got = got.unwrap();
        got.sort_unstable();
        let total = |sets: &Vec<Vec<usize>>| sets.iter().map(|set| of_set(&gpus, set)).sum::<u32>();
        let serves = |set: &&Vec<usize>| set.len() == size && (0..required).all(|gpu| set.contains(&gpu));
        let divisions: Vec<_> =
            divisions(count, size).into_iter().filter(|sets| sets.iter().any(|set| serves(&set))).collect();
        let most = divisions.iter().map(total).max().unwrap();
        let best = || divisions.iter().filter(|sets| total(sets) == most).flatten().filter(serves);
        prop_assert!(best().any(|set| *set == got), "{got:?}");
        prop_assert_eq!(of_set(&gpus, &got), best().map(|set| of_set(&gpus, set)).max().unwrap());
    }

    #[test]
    fn of_many_gpus_it_is_a_set_of_that_size_with_what_is_required(count in 13_usize..65, size in 1_usize..20, required in 0_usize..3) {
        let near = gpus(count, pairs(count).map(|(low, high)| ((low * 7 + high * 13) % 5) as u16));
        let got = best(&near.iter().collect::<Vec<_>>(), required, size);
        if size > count || required > size {
            prop_assert_eq!(got, None);
        } else {
            let mut got = got.unwrap();
            prop_assert!(got.starts_with(&(0..required).collect::<Vec<_>>()));
            got.sort_unstable();
            got.dedup();
            prop_assert_eq!(got.len(), size);
        }
    }
}
