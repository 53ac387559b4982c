//! kube-scheduler's NodeResourcesFit, with its default resources: CPU and memory, equally weighed.

use stowage_shared::pack::fleet::Shape;

use super::NodeState;

/// The emptiest node: kube-scheduler's default.
pub(super) fn least_allocated(node: &NodeState, shape: &Shape) -> i64 {
    let [cpu, memory] = used(node, shape);
    let score = |(used, all): (u64, u64)| (all - used.min(all)) * 100 / all.max(1);
    i64::try_from((score(cpu) + score(memory)) / 2).unwrap_or(0)
}

/// The fullest node.
pub(super) fn most_allocated(node: &NodeState, shape: &Shape) -> i64 {
    let [cpu, memory] = used(node, shape);
    let score = |(used, all): (u64, u64)| used.min(all) * 100 / all.max(1);
    i64::try_from((score(cpu) + score(memory)) / 2).unwrap_or(0)
}

/// What would be used, and what there is: of CPU and of memory.
fn used(node: &NodeState, shape: &Shape) -> [(u64, u64); 2] {
    let used = |all: u64, idle: u64, asked: u64| (all.saturating_sub(idle) + asked, all);
    [
        used(node.empty.cpu_milli, node.idle.cpu_milli, shape.cpu_milli),
        used(node.empty.memory_mib, node.idle.memory_mib, shape.memory_mib),
    ]
}
