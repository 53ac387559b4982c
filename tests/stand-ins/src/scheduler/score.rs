//! The in-tree scores: which of the nodes that fit is liked best.
//!
//! `NodeResourcesFit` with `LeastAllocated` and `NodeResourcesBalancedAllocation`, both over CPU and
//! memory with equal weights, as kube-scheduler's defaults have them; arithmetic as in 1.36. The other
//! default scorers say the same of every node for the pods that the stand-in knows, but one: the
//! default `PodTopologySpread`, which spreads a ReplicaSet's pods still wider.

use super::cache::NodeView;
use super::objects::Pod;

/// The most that one scorer gives.
pub(super) const NODE_SCORE_MAX: i64 = 100;

/// How much each in-tree scorer counts; 0 turns it off.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ScoreWeights {
    /// `NodeResourcesFit`, strategy `LeastAllocated`.
    pub least_allocated: i64,
    /// `NodeResourcesBalancedAllocation`.
    pub balanced_allocation: i64,
}

impl Default for ScoreWeights {
    fn default() -> Self {
        Self { least_allocated: 1, balanced_allocation: 1 }
    }
}

/// The weighted sum of the in-tree scores.
pub(super) fn score(pod: &Pod, view: NodeView<'_>, weights: ScoreWeights) -> i64 {
    weights.least_allocated * least_allocated(pod, view) + weights.balanced_allocation * balanced(pod, view)
}

fn least_allocated(pod: &Pod, view: NodeView<'_>) -> i64 {
    let (all, used, wanted) = (&view.node.allocatable, &view.usage.for_scoring, &pod.amounts.for_scoring);
    let unused = |all: i64, wanted: i64| {
        let share = (all - wanted).saturating_mul(NODE_SCORE_MAX) / all.max(1);
        (all > 0).then_some(if wanted > all { 0 } else { share })
    };
    let scores: Vec<i64> = [
        unused(all.milli_cpu, used.milli_cpu + wanted.milli_cpu),
        unused(all.memory_bytes, used.memory_bytes + wanted.memory_bytes),
    ]
    .into_iter()
    .flatten()
    .collect();
    scores.iter().sum::<i64>() / i64::try_from(scores.len()).unwrap_or(1).max(1)
}

/// Skipped for pods that ask for neither CPU nor memory.
fn balanced(pod: &Pod, view: NodeView<'_>) -> i64 {
    let (all, used, wanted) = (&view.node.allocatable, &view.usage.requested, &pod.amounts.requested);
    if wanted.milli_cpu == 0 && wanted.memory_bytes == 0 {
        return 0;
    }
    let evenness = |milli_cpu: i64, memory_bytes: i64| -> i64 {
        if all.milli_cpu == 0 || all.memory_bytes == 0 {
            return NODE_SCORE_MAX;
        }
        let share = |part: i64, all: i64| (part as f64 / all as f64).min(1.0);
        let uneven = (share(milli_cpu, all.milli_cpu) - share(memory_bytes, all.memory_bytes)).abs() / 2.0;
        ((1.0 - uneven) * NODE_SCORE_MAX as f64) as i64
    };
    let with = evenness(used.milli_cpu + wanted.milli_cpu, used.memory_bytes + wanted.memory_bytes);
    let without = evenness(used.milli_cpu, used.memory_bytes);
    NODE_SCORE_MAX / 2 + (NODE_SCORE_MAX / 2 + with - without) / 2
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use serde_json::json;

    use super::super::cache::Cache;
    use super::super::objects::Node;
    use super::*;

    fn pod(cpu: &str, memory: &str) -> Pod {
        let requests = json!({ "cpu": cpu, "memory": memory });
        let spec = json!({ "containers": [{ "resources": { "requests": requests } }] });
        Pod::read(Arc::new(json!({ "metadata": { "uid": "u" }, "spec": spec })))
    }

    /// A node of 4 cores and 10,000 bytes with one pod on it (the example of kube-scheduler's own tests).
    #[track_caller]
    fn check(on_it: Option<Pod>, wanted: &Pod, want: (i64, i64)) {
        let mut cache = Cache::default();
        let allocatable = json!({ "cpu": "4", "memory": "10000", "pods": "110" });
        cache.set_node(Node::read(
            &json!({ "metadata": { "name": "n" }, "status": { "allocatable": allocatable } }),
        ));
        on_it.into_iter().for_each(|pod| cache.place(Arc::new(Pod { uid: "other".into(), ..pod }), "n"));
        let view = cache.nodes().next().unwrap();
        assert_eq!((least_allocated(wanted, view), balanced(wanted, view)), want);
    }

    #[test]
    fn least_allocated_is_the_mean_of_the_unused_shares() {
        // CPU ((4000-3000)*100)/4000 = 25, memory ((10000-5000)*100)/10000 = 50; then none and 40.
        check(None, &pod("3", "5000"), (37, 50 + (50 + 87 - 100) / 2));
        check(Some(pod("3", "5000")), &pod("3", "1000"), (40 / 2, 50 + (50 + 80 - 87) / 2));
    }

    #[test]
    fn a_pod_that_evens_a_node_out_is_liked_there() {
        check(Some(pod("2", "0")), &pod("0", "5000"), (50, 50 + (50 + 100 - 75) / 2));
    }
}
