//! Fragmentation gradient descent: the node whose fragments grow least.

use std::cell::RefCell;
use std::collections::{BTreeMap, HashMap};

use stowage_shared::pack::fleet::{GPU_MILLI, Models, Node, Shape};

use super::{NodeState, Score};
use crate::openb::trace::{PodKind, Trace};

/// Shapes of pods are typical until so much of the trace is covered, in percent.
const TYPICAL_PERCENT: f64 = 95.0;

/// Nodes in a state seen before are not measured again; at most so many states are remembered.
const MEMO_MAX: usize = 1 << 16;

/// The published policy, with its score truncated to whole numbers from 0 to 100.
pub(in crate::openb) struct Fgd {
    typical: Vec<Typical>,
    /// The fragments of states that were measured.
    memo: RefCell<HashMap<State, f64>>,
}

/// Idle CPU, the GPU model, and what each GPU has idle, ascending.
type State = (u64, u8, Vec<u16>);

struct Typical {
    cpu_milli: u64,
    gpu_milli: u16,
    gpus: usize,
    models: Models,
    frequency: f64,
}

impl Fgd {
    pub fn new(trace: &Trace) -> Self {
        // Memory is no part of a typical pod.
        let mut counts: BTreeMap<(u64, u16, u16, &str), (u32, Models)> = BTreeMap::new();
        for &kind in &trace.pods {
            let PodKind { shape, gpu_spec } = &trace.kinds[kind];
            let key = (shape.cpu_milli, shape.gpu_milli, shape.gpus, gpu_spec.as_str());
            counts.entry(key).or_insert((0, shape.models)).0 += 1;
        }
        let mut shapes: Vec<_> = counts.into_iter().collect();
        shapes.sort_by(|(a, (times_a, _)), (b, (times_b, _))| (times_b, b).cmp(&(times_a, a)));
        let total = trace.pods.len() as f64;
        let (mut covered, mut typical) = (0.0, Vec::new());
        for ((cpu_milli, gpu_milli, gpus, _), (times, models)) in shapes {
            if covered >= TYPICAL_PERCENT * total / 100.0 {
                break;
            }
            covered += f64::from(times);
            let frequency = f64::from(times) / total;
            typical.push(Typical { cpu_milli, gpu_milli, gpus: usize::from(gpus), models, frequency });
        }
        typical.iter_mut().for_each(|shape| shape.frequency /= covered / total);
        Self { typical, memo: RefCell::default() }
    }

    pub fn score(&self, node: &NodeState, shape: &Shape) -> Score {
        let before = self.fragments(&node.idle);
        let score = |gpus: &[u16]| {
            let mut after = node.idle.clone();
            after.take(shape, gpus);
            let gain = (before - self.fragments(&after)) / 1000.0;
            // In this order: a product of 50 exactly is "no change".
            (1.0 / (1.0 + (-gain).exp()) * 100.0) as i64
        };
        if shape.gpus != 1 || shape.gpu_milli == GPU_MILLI {
            let gpus = node.idle.tightest(shape.gpu_milli, shape.gpus).unwrap_or_default();
            return score(&gpus).into();
        }
        let mut best = Score { score: i64::MIN, gpu: None };
        for (gpu, _) in (0..).zip(&node.idle.idle).filter(|&(_, &idle)| idle >= shape.gpu_milli) {
            let score = score(&[gpu]);
            if score > best.score {
                best = Score { score, gpu: Some(gpu) };
            }
        }
        best
    }

    fn fragments(&self, node: &Node) -> f64 {
        let mut idle = node.idle.clone();
        idle.sort_unstable();
        let key = (node.cpu_milli, node.model, idle);
        if let Some(&known) = self.memo.borrow().get(&key) {
            return known;
        }
        let measured = self.measure(node);
        let mut memo = self.memo.borrow_mut();
        if memo.len() >= MEMO_MAX {
            memo.clear();
        }
        memo.insert(key, measured);
        measured
    }

    /// What of a node is a fragment to the typical pods. Summed up by cause, and then in the causes' order: scores are
    /// truncated at "no change", where the last digit of a sum decides.
    fn measure(&self, node: &Node) -> f64 {
        let all: u64 = node.idle.iter().map(|&idle| u64::from(idle)).sum();
        let [mut lacks_both, mut lacks_gpu, mut lacks_cpu] = [0.0; 3];
        let [mut cpu_only, mut cpu_only_lacks, mut wrong_model] = [0.0; 3];
        for shape in &self.typical {
            let enough_cpu = node.cpu_milli >= shape.cpu_milli;
            let fit = node.idle.iter().filter(|&&idle| idle >= shape.gpu_milli).count();
            let enough_gpu = fit > 0 && fit >= shape.gpus;
            let amount = shape.frequency * all as f64;
            match (shape.gpu_milli, enough_gpu, enough_cpu) {
                (0, _, true) => cpu_only += amount,
                (0, _, false) => cpu_only_lacks += amount,
                _ if !shape.models.contains(node.model) => wrong_model += amount,
                (_, false, false) => lacks_both += amount,
                (_, false, true) => lacks_gpu += amount,
                (_, true, false) => lacks_cpu += amount,
                (milli, true, true) => {
                    let small: u64 =
                        node.idle.iter().filter(|&&idle| idle < milli).map(|&idle| u64::from(idle)).sum();
                    lacks_gpu += shape.frequency * small as f64;
                }
            }
        }
        [lacks_both, lacks_gpu, lacks_cpu, cpu_only, cpu_only_lacks, wrong_model].iter().sum()
    }
}
