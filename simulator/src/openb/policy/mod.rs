//! The policies that Stowage is compared to. Each scores a node for a pod, higher is better, as whole numbers from 0 to
//! 100: what they were published with, or what kube-scheduler does.
//!
//! Written anew from the published descriptions and results. What looks arbitrary (truncated scores, the order
//! of a sum) is needed to reproduce the published figures.

mod fgd;
mod kube;
mod published;

use stowage_shared::pack::fleet::{GPU_MILLI, Node, Shape};

use super::replay::PolicyName;
use super::trace::{PodKind, Trace};

/// A kubelet's limit on pods, with one to spare, as the published runs had it.
const PODS_MAX: u32 = 1001;

/// A node as it is, and as it was when empty.
#[derive(Debug, Clone)]
pub(super) struct NodeState {
    pub idle: Node,
    pub empty: Node,
    pub pods: u32,
    /// Pods here that share a GPU (0), and that have so many GPUs whole.
    pub tags: Vec<(u16, u32)>,
    /// Told apart from what it was before each change.
    pub version: u32,
}

impl NodeState {
    pub fn new(empty: &Node) -> Self {
        Self { idle: empty.clone(), empty: empty.clone(), pods: 0, tags: Vec::new(), version: 1 }
    }

    /// Whether a pod fits.
    pub fn fits(&self, shape: &Shape) -> bool {
        let fit = self.idle.idle.iter().filter(|&&idle| idle >= shape.gpu_milli).count();
        self.pods < PODS_MAX
            && self.idle.cpu_milli >= shape.cpu_milli
            && self.idle.memory_mib >= shape.memory_mib
            && (!shape.wants_gpu()
                || shape.models.contains(self.idle.model) && fit >= usize::from(shape.gpus))
    }

    pub fn take(&mut self, shape: &Shape, gpus: &[u16]) {
        self.idle.take(shape, gpus);
        self.pods += 1;
        self.version += 1;
        if let Some(tag) = tag(shape) {
            match self.tags.iter_mut().find(|(known, _)| *known == tag) {
                Some((_, count)) => *count += 1,
                None => self.tags.push((tag, 1)),
            }
        }
    }

    /// Gives back what [`NodeState::take`] took.
    pub fn give_back(&mut self, shape: &Shape, gpus: &[u16]) {
        self.idle.give_back(shape, gpus);
        self.pods -= 1;
        self.version += 1;
        let tag = tag(shape);
        self.tags.iter_mut().filter(|(known, _)| Some(*known) == tag).for_each(|(_, count)| *count -= 1);
        self.tags.retain(|(_, count)| *count > 0);
    }

    /// All that its GPUs have idle.
    pub fn idle_milli(&self) -> u64 {
        self.idle.idle.iter().map(|&idle| u64::from(idle)).sum()
    }
}

/// What kind of GPU user a pod is: a share (0), or so many whole GPUs.
pub(super) fn tag(shape: &Shape) -> Option<u16> {
    let share = shape.gpus == 1 && shape.gpu_milli < GPU_MILLI;
    shape.wants_gpu().then_some(if share { 0 } else { shape.gpus })
}

/// A node's score for a pod that fits it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Score {
    pub score: i64,
    /// The GPU for a pod that wants one, where the policy has chosen it with the score.
    pub gpu: Option<u16>,
}

impl From<i64> for Score {
    fn from(score: i64) -> Self {
        Self { score, gpu: None }
    }
}

/// A way to score nodes.
pub(super) enum Policy {
    Fgd(fgd::Fgd),
    Plain(fn(&NodeState, &Shape) -> i64),
    /// Any node that fits, and on it any GPU.
    Random,
}

impl Policy {
    /// The policy of that name; none for Stowage, which scores a whole cluster.
    pub fn new(name: PolicyName, trace: &Trace) -> Option<Self> {
        Some(match name {
            PolicyName::Stowage => return None,
            PolicyName::Fgd => Self::Fgd(fgd::Fgd::new(trace)),
            PolicyName::BestFit => Self::Plain(published::best_fit),
            PolicyName::GpuPacking => Self::Plain(published::gpu_packing),
            PolicyName::GpuClustering => Self::Plain(published::gpu_clustering),
            PolicyName::DotProduct => Self::Plain(published::dot_product),
            PolicyName::LeastAllocated => Self::Plain(kube::least_allocated),
            PolicyName::MostAllocated => Self::Plain(kube::most_allocated),
            PolicyName::Random => Self::Random,
        })
    }

    pub fn score(&self, node: &NodeState, kind: &PodKind) -> Score {
        match self {
            Self::Fgd(fgd) => fgd.score(node, &kind.shape),
            Self::Plain(score) => score(node, &kind.shape).into(),
            Self::Random => 0.into(),
        }
    }
}
