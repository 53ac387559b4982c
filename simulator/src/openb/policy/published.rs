//! The policies that FGD was published beside, other than itself.

use stowage_shared::pack::fleet::{GPU_MILLI, Shape};

use super::{NodeState, tag};

/// The largest node of the trace: scores are in parts of it.
const LARGEST_CPU_MILLI: f64 = 128_000.0;
const LARGEST_GPU_MILLI: u64 = 8_000;

/// The node that is left with least CPU and GPU.
pub(super) fn best_fit(node: &NodeState, shape: &Shape) -> i64 {
    let left = |idle: u64, asked: u64| idle.saturating_sub(asked) as f64;
    let cpu = left(node.idle.cpu_milli, shape.cpu_milli) / LARGEST_CPU_MILLI * 0.5;
    let gpu = left(node.idle_milli(), shape.total_gpu_milli()) / LARGEST_GPU_MILLI as f64 * 0.5;
    ((1.0 - (cpu + gpu)) * 100.0) as i64
}

/// The node whose idle resources point least in the direction of what is asked for.
pub(super) fn dot_product(node: &NodeState, shape: &Shape) -> i64 {
    let largest_gpu = LARGEST_GPU_MILLI as f64;
    let cpu = (node.idle.cpu_milli as f64 / LARGEST_CPU_MILLI) * (shape.cpu_milli as f64 / LARGEST_CPU_MILLI);
    let gpu = (node.idle_milli() as f64 / largest_gpu) * (shape.total_gpu_milli() as f64 / largest_gpu);
    ((1.0 - (cpu + gpu) / 2.0) * 100.0) as i64
}

/// Shared GPUs before idle ones, and used nodes before unused ones.
pub(super) fn gpu_packing(node: &NodeState, shape: &Shape) -> i64 {
    if !shape.wants_gpu() {
        return 0;
    }
    let gpus = &node.idle.idle;
    let count = |number: usize| i64::try_from(number).unwrap_or(i64::MAX);
    let unused = count(gpus.iter().filter(|&&idle| idle == GPU_MILLI).count());
    if unused == count(gpus.len()) {
        return (100 / 3 - unused).max(unused);
    }
    let chosen = node.idle.tightest(shape.gpu_milli, shape.gpus).unwrap_or_default();
    let idle = || chosen.iter().map(|&gpu| i64::from(gpus[usize::from(gpu)]));
    let woken = count(idle().filter(|&idle| idle == i64::from(GPU_MILLI)).count());
    if woken > 0 {
        return (100 / 2 - woken).max(100 / 3);
    }
    let free: i64 = idle().map(|idle| idle * 100 / i64::from(GPU_MILLI)).sum();
    (100 - free / 10).max(100 / 2)
}

/// Nodes that only have pods of the same kind, then those that have some, then unused ones; in each the fullest.
pub(super) fn gpu_clustering(node: &NodeState, shape: &Shape) -> i64 {
    let Some(tag) = tag(shape) else { return 0 };
    let same = node.tags.iter().any(|(known, _)| *known == tag);
    let step = match (same, node.tags.len()) {
        (true, 1) => 3,
        (true, _) => 2,
        (false, 0) => 1,
        (false, _) => 0,
    };
    let used = LARGEST_GPU_MILLI.saturating_sub(node.idle_milli());
    100 / 4 * i64::try_from(used).unwrap_or(0) / 8_000 + step * 100 / 4
}
