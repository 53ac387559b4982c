//! Arrivals, one after another, placed by a policy.

use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use stowage_shared::pack::fleet::{Shape, Weights};

use super::departures::Departures;
use super::policy::{NodeState, Policy};
use super::report::{Placed, Run};
use super::stowage::Stowage;
use super::ties::Ties;
use super::trace::Trace;

/// Who chooses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PolicyName {
    /// The packing core.
    Stowage,
    /// Fragmentation gradient descent.
    Fgd,
    /// The node that is left with least.
    BestFit,
    /// Shared GPUs first.
    GpuPacking,
    /// Pods of one kind together.
    GpuClustering,
    /// The smallest dot product of idle and asked.
    DotProduct,
    /// Any node and any GPU.
    Random,
    /// kube-scheduler's default.
    LeastAllocated,
    /// kube-scheduler's bin packing.
    MostAllocated,
}

/// How the packing core knows what is to come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MixKind {
    /// It knows the whole trace, but not the order.
    Trace,
    /// It learns from the pods that came.
    Learned,
}

/// One replay to be made.
#[derive(Debug, Clone)]
pub struct Replay<'a> {
    /// Nodes and pods.
    pub trace: &'a Trace,
    /// Rows of the trace, as they arrive.
    pub order: &'a [usize],
    /// Who chooses the node.
    pub policy: PolicyName,
    /// Who chooses among equal nodes.
    pub ties: Ties,
    /// For the packing core.
    pub mix: MixKind,
    /// For the packing core.
    pub weights: Weights,
    /// Pods leave again, so that on average so many times all GPUs are asked for at once.
    pub departures: Option<f64>,
    /// For the policy that chooses at random, and for how long pods stay.
    pub seed: u64,
}

impl<'a> Replay<'a> {
    /// A replay as kube-scheduler would be, with the mix of the trace known.
    pub fn new(trace: &'a Trace, order: &'a [usize], policy: PolicyName) -> Self {
        let (mix, weights) = (MixKind::Trace, Weights::default());
        Self { trace, order, policy, ties: Ties::random(0), mix, weights, departures: None, seed: 0 }
    }
}

/// Replays a trace. `progress` is called with each arrival before it is placed.
///
/// Rows that the trace does not have are skipped; [`Trace::read_order`] lets none through.
pub fn replay(what: Replay<'_>, mut progress: impl FnMut(usize)) -> Run {
    let Replay { trace, order, policy, mut ties, mix, weights, departures, seed } = what;
    let mut placer = match Policy::new(policy, trace) {
        None => Placer::Stowage(Box::new(Stowage::new(trace, mix, weights))),
        Some(policy) => Placer::Scored(Box::new(Scored::new(policy, trace, seed))),
    };
    let mut run = Run { capacity_milli: trace.capacity_milli(), ..Run::default() };
    let (mut asked, mut allocated) = (0, 0);
    let mut leaving = departures.map(|load| Departures::new(trace, order, load, seed));
    for (arrival, &row) in order.iter().filter(|&&row| row < trace.pods.len()).enumerate() {
        progress(arrival);
        while let Some(gone) = leaving.as_mut().and_then(|leaving| leaving.next_before(arrival)) {
            let Some(Placed { row, node, gpus }) = run.arrivals.get(gone) else { continue };
            let shape = &trace.kinds[trace.pods[*row]].shape;
            asked -= shape.total_gpu_milli();
            if let Some(node) = *node {
                allocated -= shape.total_gpu_milli();
                placer.give_back(node, shape, gpus);
            }
        }
        leaving.iter_mut().for_each(|leaving| leaving.arrive(arrival));
        let kind = trace.pods[row];
        let shape = &trace.kinds[kind].shape;
        let placed = match &mut placer {
            Placer::Stowage(stowage) => stowage.place(shape, &mut ties),
            Placer::Scored(scored) => scored.place(trace, kind, &mut ties),
        };
        asked += shape.total_gpu_milli();
        if placed.is_some() {
            allocated += shape.total_gpu_milli();
        }
        let (node, gpus) = placed.map_or((None, Vec::new()), |(node, gpus)| (Some(node), gpus));
        run.arrivals.push(Placed { row, node, gpus });
        run.milli.push((asked, allocated));
    }
    run
}

enum Placer {
    Stowage(Box<Stowage>),
    Scored(Box<Scored>),
}

impl Placer {
    /// A pod leaves.
    fn give_back(&mut self, node: usize, shape: &Shape, gpus: &[u16]) {
        match self {
            Self::Stowage(stowage) => stowage.give_back(node, shape, gpus),
            Self::Scored(scored) => scored.nodes[node].give_back(shape, gpus),
        }
    }
}

/// A policy that scores node by node, with the scores of nodes that have not changed since.
struct Scored {
    policy: Policy,
    nodes: Vec<NodeState>,
    /// By kind of pod, by node.
    scores: Vec<Vec<Known>>,
    /// Nodes with the best score.
    best: Vec<usize>,
    random: ChaCha8Rng,
}

/// The score of a node when it had that version; none where the pod did not fit.
#[derive(Clone, Copy, Default)]
struct Known {
    version: u32,
    score: Option<(i64, Option<u16>)>,
}

impl Scored {
    fn new(policy: Policy, trace: &Trace, seed: u64) -> Self {
        Self {
            policy,
            nodes: trace.nodes.iter().map(|node| NodeState::new(&node.empty)).collect(),
            scores: vec![Vec::new(); trace.kinds.len()],
            best: Vec::new(),
            random: ChaCha8Rng::seed_from_u64(seed),
        }
    }

    fn place(&mut self, trace: &Trace, kind: usize, ties: &mut Ties) -> Option<(usize, Vec<u16>)> {
        let pod = &trace.kinds[kind];
        let scores = &mut self.scores[kind];
        scores.resize(self.nodes.len(), Known::default());
        let mut best = i64::MIN;
        self.best.clear();
        for (place, (node, known)) in self.nodes.iter().zip(scores.iter_mut()).enumerate() {
            if known.version != node.version {
                let score = node.fits(&pod.shape).then(|| self.policy.score(node, pod));
                *known = Known { version: node.version, score: score.map(|score| (score.score, score.gpu)) };
            }
            let Some((score, _)) = known.score else { continue };
            if score > best {
                best = score;
                self.best.clear();
            }
            if score == best {
                self.best.push(place);
            }
        }
        let (node, gpus) = if matches!(self.policy, Policy::Random) {
            let node = *self.best.get(self.random.random_range(0..self.best.len().max(1)))?;
            (node, self.any_gpus(node, &pod.shape)?)
        } else {
            let node = ties.choose(&self.best)?;
            let gpus = match scores[node].score? {
                (_, Some(gpu)) => vec![gpu],
                _ if pod.shape.wants_gpu() => {
                    self.nodes[node].idle.tightest(pod.shape.gpu_milli, pod.shape.gpus)?
                }
                _ => Vec::new(),
            };
            (node, gpus)
        };
        self.nodes[node].take(&pod.shape, &gpus);
        Some((node, gpus))
    }

    fn any_gpus(&mut self, node: usize, shape: &Shape) -> Option<Vec<u16>> {
        let idle = &self.nodes[node].idle;
        if !shape.wants_gpu() || shape.gpus > 1 {
            return idle.tightest(shape.gpu_milli, shape.gpus);
        }
        let fit: Vec<u16> =
            (0..).zip(&idle.idle).filter(|&(_, &idle)| idle >= shape.gpu_milli).map(|(gpu, _)| gpu).collect();
        let gpu = fit.get(self.random.random_range(0..fit.len().max(1)))?;
        Some(vec![*gpu])
    }
}
