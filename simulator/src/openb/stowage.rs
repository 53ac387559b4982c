//! Stowage's own packing core, replaying a trace.

use stowage_shared::pack::fleet::{Fleet, GPU_MILLI, Learner, Mix, Models, Shape, Supply, Value, Weights};

use super::replay::MixKind;
use super::ties::Ties;
use super::trace::Trace;

/// The prior counts like so many pods: soon what came counts for more.
const PRIOR_PODS: u32 = 4;

/// The packing core over the trace's nodes, and what it knows of the pods to come.
pub(super) struct Stowage {
    fleet: Fleet,
    supply: Supply,
    weights: Weights,
    learner: Option<Learner>,
}

impl Stowage {
    pub fn new(trace: &Trace, mix: MixKind, weights: Weights) -> Self {
        let supply = trace.supply();
        let (mix, learner) = match mix {
            MixKind::Trace => (trace.mix(), None),
            MixKind::Learned => (prior(), Some(Learner::new(&prior(), PRIOR_PODS))),
        };
        let nodes = trace.nodes.iter().map(|node| node.empty.clone()).collect();
        let fleet = Fleet::new(Value::new(&mix, &supply, weights), nodes);
        Self { fleet, supply, weights, learner }
    }

    /// Places one pod: its node and GPUs, or none where it fits nowhere.
    pub fn place(&mut self, shape: &Shape, ties: &mut Ties) -> Option<(usize, Vec<u16>)> {
        if let Some(learner) = &mut self.learner {
            learner.see(shape);
            if let Some(mix) = learner.news() {
                self.fleet.revalue(Value::new(&mix, &self.supply, self.weights));
            }
        }
        let best = self.fleet.best(shape)?;
        let nodes: Vec<usize> = best.places().map(|(place, _)| place).collect();
        let node = ties.choose(&nodes)?;
        let (_, spot) = best.places().find(|&(place, _)| place == node)?;
        let gpus = spot.gpus(&self.fleet.nodes()[node], shape)?;
        self.fleet.take(node, shape, &gpus);
        Some((node, gpus))
    }

    /// A pod leaves.
    pub fn give_back(&mut self, node: usize, shape: &Shape, gpus: &[u16]) {
        self.fleet.give_back(node, shape, gpus);
    }
}

/// What to expect while nothing is known: whole GPUs, alone and together, halves and quarters, that any node could run.
fn prior() -> Mix {
    let (cpu_milli, memory_mib, models) = (0, 0, Models::ANY);
    let shape = |gpu_milli, gpus| Shape { cpu_milli, memory_mib, gpu_milli, gpus, slice: false, models };
    let whole = [1, 2, 4, 8].map(|gpus| (shape(GPU_MILLI, gpus), 1));
    let shares = [2, 4].map(|parts| (shape(GPU_MILLI / parts, 1), 1));
    Mix::new(whole.into_iter().chain(shares))
}
