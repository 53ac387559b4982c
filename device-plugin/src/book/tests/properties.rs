//! Whatever happens in whatever order.

use proptest::prelude::*;

use super::*;

const SHAPES: [&str; 8] = [
    "gpu=1",
    "gpu=2",
    "mig-1g.5gb=1",
    "mig-1g.5gb=2",
    "mig-3g.20gb=1",
    "mig-1g.5gb=1, mig-2g.10gb=1",
    "init mig-1g.5gb=1, mig-1g.5gb=1",
    "init mig-1g.5gb=2, sidecar mig-1g.5gb=1, mig-1g.5gb=1",
];
const SHARES: [&str; 4] =
    ["gpu.shared=1", "gpu.shared=2", "gpu.shared=1, gpu.shared=1", "init gpu.shared=2, gpu.shared=1"];

#[derive(Debug, Clone)]
enum Step {
    Bind { shape: usize, planned: bool },
    Admit { which: usize, pick: usize },
    Tell { which: usize },
    End { which: usize },
    List,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        4 => (0..8_usize, prop::bool::weighted(0.8)).prop_map(|(shape, planned)| Step::Bind { shape, planned }),
        4 => (0..8_usize, 0..8_usize).prop_map(|(which, pick)| Step::Admit { which, pick }),
        2 => (0..8_usize).prop_map(|which| Step::Tell { which }),
        2 => (0..8_usize).prop_map(|which| Step::End { which }),
        1 => Just(Step::List),
    ];
    prop::collection::vec(step, 1..60)
}

fn shape(shared: bool, number: usize) -> &'static str {
    if shared { SHARES[number % SHARES.len()] } else { SHAPES[number % SHAPES.len()] }
}

/// The pods that wait, and of them the one that is meant.
fn waiting(world: &World, which: usize) -> Option<usize> {
    let waiting: Vec<usize> = (0..world.pods.len()).filter(|&pod| !world.pods[pod].admitted).collect();
    (!waiting.is_empty()).then(|| waiting[which % waiting.len()])
}

proptest! {
    /// The kubelet admits in the order of binding, and the book knows each pod in time: what runs is what was
    /// planned, whatever the mix of shapes, and no device is used twice.
    #[test]
    fn what_was_planned_is_what_runs(shared in any::<bool>(), steps in steps()) {
        let mut world = World::new(shared);
        for step in steps {
            match step {
                Step::Bind { shape: number, .. } => {
                    if let Some(pod) = world.bind(shape(shared, number), true) {
                        world.tell(pod);
                    }
                }
                Step::Admit { pick, .. } => {
                    if let Some(pod) = waiting(&world, 0) {
                        world.admit(pod, pick);
                    }
                }
                Step::End { which } if !world.pods.is_empty() => world.end(which % world.pods.len()),
                Step::Tell { .. } | Step::End { .. } => {}
                Step::List => world.list(),
            }
        }
        prop_assert_eq!(world.findings(), []);
    }

    /// The same when the kubelet takes pods in any order, for pods of one container: plans swap within a shape,
    /// and taken together they are kept.
    #[test]
    fn the_order_in_which_the_kubelet_comes_does_not_matter(shared in any::<bool>(), steps in steps()) {
        let mut world = World::new(shared);
        for step in steps {
            match step {
                Step::Bind { shape: number, .. } => {
                    if let Some(pod) = world.bind(shape(shared, number % if shared { 2 } else { 5 }), true) {
                        world.tell(pod);
                    }
                }
                Step::Admit { which, pick } => {
                    if let Some(pod) = waiting(&world, which) {
                        world.admit(pod, pick);
                    }
                }
                Step::List => world.list(),
                Step::Tell { .. } | Step::End { .. } => {}
            }
        }
        prop_assert_eq!(world.findings(), []);
    }

    /// Whatever comes late, out of order or without a plan: each answer keeps its contract (checked in
    /// [`World::choose`]), and no device is used twice.
    #[test]
    fn in_any_confusion_no_device_is_used_twice(shared in any::<bool>(), steps in steps()) {
        let mut world = World::new(shared);
        for step in steps {
            match step {
                Step::Bind { shape: number, planned } => drop(world.bind(shape(shared, number), planned)),
                Step::Admit { which, pick } => {
                    if let Some(pod) = waiting(&world, which) {
                        world.admit(pod, pick);
                    }
                }
                Step::Tell { which } if !world.pods.is_empty() => world.tell(which % world.pods.len()),
                Step::End { which } if !world.pods.is_empty() => world.end(which % world.pods.len()),
                Step::Tell { .. } | Step::End { .. } => {}
                Step::List => world.list(),
            }
        }
        let bad: Vec<Kind> = world.findings().into_iter()
            .filter(|kind| matches!(
                kind,
                Kind::DoubleUse | Kind::Overlap | Kind::UnknownDevice | Kind::Leftover
            )).collect();
        prop_assert_eq!(bad, []);
    }
}
