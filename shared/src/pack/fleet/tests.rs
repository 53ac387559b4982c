//! What holds for every fleet, compared with dumber code.
#![allow(clippy::unwrap_used)]

use proptest::prelude::*;

use super::*;

fn shape(cpu_milli: u64, gpu_milli: u16, gpus: u16) -> Shape {
    Shape { cpu_milli, memory_mib: 1, gpu_milli, gpus, slice: false, models: Models::ANY }
}

fn node(cpu_milli: u64, idle: &[u16]) -> Node {
    Node { cpu_milli, memory_mib: 1000, model: 0, idle: idle.to_vec() }
}

/// Where the fleet of these nodes puts the shape, while this mix is to come: `node: GPUs`, one of each tie.
#[track_caller]
fn check(mix: &[(Shape, u64)], nodes: &[Node], shape: Shape, expect: &[&str]) {
    let supply = Supply::new(nodes.iter().map(|node| (node.model, node.idle.len() as u64)));
    let value = Value::new(&Mix::new(mix.iter().copied()), &supply, Weights::default());
    let mut fleet = Fleet::new(value, nodes.to_vec());
    let mut found: Vec<String> = match fleet.best(&shape) {
        None => Vec::new(),
        Some(best) => best
            .places()
            .map(|(place, spot)| format!("{place}: {:?}", spot.gpus(&nodes[place], &shape).unwrap()))
            .collect(),
    };
    found.sort();
    assert_eq!(found, expect);
}

#[test]
fn a_share_fills_the_gap_that_it_fits_exactly() {
    let mix = [(shape(1, 1000, 1), 1), (shape(1, 300, 1), 1), (shape(1, 700, 1), 1)];
    let nodes = [node(100, &[1000, 1000]), node(100, &[500, 1000]), node(100, &[1000, 300])];
    check(&mix, &nodes, shape(1, 300, 1), &["2: [1]"]);
}

#[test]
fn a_pod_without_gpu_stays_off_the_cpu_that_gpus_need() {
    let mix = [(shape(10, 1000, 1), 1)];
    check(&mix, &[node(20, &[1000, 1000]), node(5, &[0, 0])], shape(5, 0, 0), &["1: []"]);
    check(&mix, &[node(20, &[1000, 1000]), node(15, &[0, 1000])], shape(5, 0, 0), &["1: []"]);
}

#[test]
fn a_share_leaves_the_last_cpu_to_who_needs_a_whole_gpu() {
    // The second node has CPU for one more pod: if a share takes it, a whole GPU lies idle.
    let mix = [(shape(10, 1000, 1), 4), (shape(10, 500, 1), 4)];
    let nodes = [node(30, &[1000, 1000]), node(10, &[1000, 500])];
    check(&mix, &nodes, shape(10, 500, 1), &["0: [0]"]);
}

#[test]
fn who_may_go_anywhere_leaves_the_model_that_others_need() {
    let tied = Shape { models: Models::only([1]), ..shape(1, 1000, 1) };
    let mix = [(shape(1, 1000, 1), 1), (tied, 1)];
    let nodes = [Node { model: 1, ..node(100, &[1000]) }, node(100, &[1000]), node(100, &[1000])];
    check(&mix, &nodes, shape(1, 1000, 1), &["1: [0]", "2: [0]"]);
    check(&mix, &nodes, tied, &["0: [0]"]);
}

#[test]
fn a_gpu_is_kept_for_slices_while_nobody_uses_it() {
    let slice = Shape { slice: true, ..shape(1, 250, 1) };
    let cost = |slices, idle: &[u16]| {
        let mix = Mix::new([(shape(1, 500, 1), 4), (slice, slices)]);
        let value = Value::new(&mix, &Supply::new([(0, 10)]), Weights::default());
        assert_eq!(value.spot(&node(100, idle), &slice), None, "where it would go is not known here");
        value.spot(&node(100, idle), &shape(1, 500, 1)).unwrap().cost.0
    };
    assert!(cost(4, &[1000]) - cost(4, &[500]) > cost(0, &[1000]) - cost(0, &[500]));
}

#[test]
fn several_gpus_are_different_ones() {
    let mix = [(shape(1, 1000, 1), 1)];
    check(&mix, &[node(100, &[1000, 0, 1000])], shape(1, 1000, 2), &["0: [0, 2]"]);
    check(&mix, &[node(100, &[1000, 0, 999])], shape(1, 1000, 2), &[]);
    check(&mix, &[node(100, &[1000, 400, 500])], shape(1, 400, 2), &["0: [1, 2]"]);
}

#[test]
fn what_does_not_fit_is_refused() {
    let mix = [(shape(1, 500, 1), 1)];
    let full =
        [node(100, &[499]), node(0, &[1000]), Node { memory_mib: 0, ..node(100, &[1000]) }, node(100, &[])];
    check(&mix, &full, shape(1, 500, 1), &[]);
    let other = Shape { models: Models::only([7]), ..shape(1, 500, 1) };
    check(&mix, &[node(100, &[1000])], other, &[]);
}

#[test]
fn without_a_mix_everything_that_fits_is_as_good() {
    check(&[], &[node(9, &[1000]), node(9, &[500])], shape(1, 500, 1), &["0: [0]", "1: [0]"]);
}

#[test]
fn absurd_numbers_are_no_panic() {
    let huge = Shape {
        cpu_milli: u64::MAX,
        memory_mib: u64::MAX,
        gpu_milli: u16::MAX,
        gpus: u16::MAX,
        slice: false,
        models: Models::ANY,
    };
    let tiny =
        Shape { cpu_milli: 1, memory_mib: 1, gpu_milli: 1, gpus: 1, slice: false, models: Models::ANY };
    let node = Node { cpu_milli: u64::MAX, memory_mib: u64::MAX, model: 200, idle: vec![u16::MAX, 1000, 0] };
    let mix = Mix::new([(huge, u64::MAX), (tiny, u64::MAX)]);
    for model in [0, 63, 200] {
        let node = Node { model, ..node.clone() };
        let value = Value::new(&mix, &Supply::new([(model, u64::MAX)]), Weights::default());
        let mut fleet = Fleet::new(value, vec![node]);
        assert!(fleet.best(&huge).is_none());
        fleet.best(&tiny);
        fleet.give_back(0, &huge, &[0, 9]);
        fleet.take(0, &huge, &[0, 9]);
        fleet.take(7, &huge, &[0]);
    }
}

#[test]
fn the_mix_is_what_came() {
    let (often, seldom) = (shape(1, 500, 1), shape(2, 1000, 1));
    let mut learner = Learner::new(&Mix::new([(shape(0, 250, 1), 1)]), 10);
    for pod in 0..1000 {
        learner.see(if pod % 10 == 0 { &seldom } else { &often });
    }
    let mix = learner.mix();
    let share = |shape: &Shape| {
        mix.shapes().find(|(known, _)| *known == shape).unwrap().1 as f64 / mix.total() as f64
    };
    assert!((share(&often) - 0.9).abs() < 0.02, "{}", share(&often));
    assert!((share(&seldom) - 0.1).abs() < 0.02, "{}", share(&seldom));
}

#[test]
fn what_no_longer_comes_fades() {
    let (old, new) = (shape(1, 500, 1), shape(2, 500, 1));
    let mut learner = Learner::new(&Mix::default(), 0);
    for shape in [old, new] {
        (0..40_000).for_each(|_| learner.see(&shape));
    }
    let weights: Vec<(Shape, u64)> = learner.mix().shapes().map(|(shape, weight)| (*shape, weight)).collect();
    assert_eq!(weights.len(), 2);
    assert!(weights[0].1 * 4 < weights[1].1, "{weights:?}");
}

#[test]
fn a_flood_of_shapes_is_not_remembered() {
    let mut learner = Learner::new(&Mix::default(), 0);
    (0..10_000).for_each(|cpu| learner.see(&shape(cpu, 500, 1)));
    assert!(learner.mix().shapes().count() <= 512);
}

#[test]
fn the_mix_is_told_when_it_has_changed() {
    let mut learner = Learner::new(&Mix::new([(shape(0, 500, 1), 1)]), 80);
    (0..12).for_each(|_| learner.see(&shape(1, 500, 1)));
    assert!(learner.news().is_some());
    assert_eq!(learner.news(), None);
    (0..10).for_each(|_| learner.see(&shape(1, 500, 1)));
    assert_eq!(learner.news(), None);
}

fn shapes() -> impl Strategy<Value = Shape> {
    let gpu_milli = prop_oneof![Just(1000u16), 1..=9u16].prop_map(|x| if x == 1000 { x } else { x * 100 });
    let models = prop_oneof![Just(Models::ANY), Just(Models::only([0])), Just(Models::only([1]))];
    (0..6u64, 0..6u64, gpu_milli, 0..=4u16, models).prop_map(
        |(cpu_milli, memory_mib, gpu_milli, gpus, models)| Shape {
            cpu_milli,
            memory_mib,
            gpu_milli: if gpus == 0 { 0 } else { gpu_milli },
            gpus,
            slice: false,
            models,
        },
    )
}

fn nodes() -> impl Strategy<Value = Node> {
    let idle = proptest::collection::vec((0..=10u16).prop_map(|tenths| tenths * 100), 0..5);
    (0..20u64, 0..20u64, 0..2u8, idle).prop_map(|(cpu_milli, memory_mib, model, idle)| Node {
        cpu_milli,
        memory_mib,
        model,
        idle,
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// However the fleet came to its state, it answers like somebody who looks at each node by itself; and it never
    /// takes what is not there.
    #[test]
    fn a_fleet_answers_like_a_look_at_every_node(
        mix in proptest::collection::vec((shapes(), 1..100u64), 0..6),
        start in proptest::collection::vec(nodes(), 1..8),
        asked in proptest::collection::vec((shapes(), any::<prop::sample::Index>(), any::<bool>()), 1..20),
    ) {
        let supply = Supply::new(start.iter().map(|node| (node.model, node.idle.len() as u64)));
        let value = Value::new(&Mix::new(mix), &supply, Weights::default());
        let mut fleet = Fleet::new(value.clone(), start.clone());
        let mut placed: Vec<(usize, Shape, Vec<u16>)> = Vec::new();
        for (shape, which, leaves) in asked {
            let each: Vec<_> = fleet.nodes().iter().map(|node| value.spot(node, &shape)).collect();
            let least = each.iter().flatten().map(|spot| spot.cost).min();
            let mut want: Vec<usize> =
                (0..each.len()).filter(|&place| least.is_some() && each[place].map(|spot| spot.cost) == least).collect();
            want.sort_unstable();
            let best = fleet.best(&shape);
            prop_assert_eq!(best.as_ref().map(Best::cost), least);
            let mut found: Vec<(usize, Spot)> = best.iter().flat_map(Best::places).collect();
            prop_assert_eq!(best.as_ref().map_or(0, Best::count), found.len());
            found.sort_by_key(|found| found.0);
            prop_assert_eq!(found.iter().map(|found| found.0).collect::<Vec<_>>(), want);
            if found.is_empty() { continue }
            let (place, spot) = found[which.index(found.len())];
            let before = fleet.nodes()[place].clone();
            let gpus = spot.gpus(&before, &shape).unwrap();
            prop_assert_eq!(gpus.len(), usize::from(shape.gpus));
            prop_assert!(gpus.iter().all(|&gpu| before.idle[usize::from(gpu)] >= shape.gpu_milli));
            prop_assert!(shape.gpus == 0 || shape.models.contains(before.model));
            prop_assert!(before.cpu_milli >= shape.cpu_milli && before.memory_mib >= shape.memory_mib);
            fleet.take(place, &shape, &gpus);
            placed.push((place, shape, gpus));
            if leaves {
                let (place, shape, gpus) = placed.swap_remove(which.index(placed.len()));
                fleet.give_back(place, &shape, &gpus);
            }
        }
        for (place, shape, gpus) in placed {
            fleet.give_back(place, &shape, &gpus);
        }
        prop_assert_eq!(fleet.nodes(), &start[..]);
    }

    /// What a GPU's index is does not matter, nor the order of nodes.
    #[test]
    fn a_cost_is_the_same_in_any_order(
        mix in proptest::collection::vec((shapes(), 1..100u64), 0..6),
        node in nodes(),
        shape in shapes(),
    ) {
        let supply = Supply::new([(0, 5), (1, 5)]);
        let value = Value::new(&Mix::new(mix), &supply, Weights::default());
        let mut turned = node.clone();
        turned.idle.reverse();
        prop_assert_eq!(value.spot(&node, &shape).map(|spot| spot.cost), value.spot(&turned, &shape).map(|spot| spot.cost));
    }
}
