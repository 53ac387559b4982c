//! One decision without extenders, and the pieces of it that a cycle with extenders uses.

use std::collections::BTreeMap;
use std::fmt;

use rand::{Rng, RngExt};

use super::cache::{Cache, NodeView};
use super::filter::{Misfit, filter};
use super::objects::Pod;
use super::score::{ScoreWeights, score};

/// Who kept a pod from being placed: what must happen before another try is worth it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Rejectors {
    /// A node's state, or the pod's own wishes.
    pub(super) nodes: bool,
    /// Resources that other pods take.
    pub(super) resources: bool,
    /// An extender, whose reasons are unknown: anything may help.
    pub(super) extender: bool,
}

/// Why no node takes a pod; displays as kube-scheduler's event does.
#[derive(Debug, Clone, Default, PartialEq, Eq, thiserror::Error)]
pub struct Unfit {
    all: usize,
    /// How many nodes gave each reason.
    reasons: BTreeMap<String, usize>,
    pub(super) by: Rejectors,
}

impl fmt::Display for Unfit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.all == 0 {
            return f.write_str("no nodes available to schedule pods");
        }
        write!(f, "0/{} nodes are available", self.all)?;
        let mut separator = ": ";
        let mut texts: Vec<String> =
            self.reasons.iter().map(|(why, count)| format!("{count} {why}")).collect();
        texts.sort();
        for text in texts {
            write!(f, "{separator}{text}")?;
            separator = ", ";
        }
        f.write_str(".")
    }
}

impl Unfit {
    pub(super) fn say(&mut self, why: &str) {
        *self.reasons.entry(why.to_owned()).or_default() += 1;
    }
}

/// The nodes that the in-tree filters let pass, by name, and what the others said.
pub(super) fn feasible<'a>(cache: &'a Cache, pod: &Pod) -> (Vec<NodeView<'a>>, Unfit) {
    let mut unfit = Unfit::default();
    let mut fit = Vec::new();
    for view in cache.nodes() {
        unfit.all += 1;
        match filter(pod, view) {
            Ok(()) => fit.push(view),
            Err(Misfit::Node(why)) => {
                unfit.by.nodes = true;
                unfit.say(why);
            }
            Err(Misfit::Resources(short)) => {
                unfit.by.resources = true;
                short.iter().for_each(|why| unfit.say(why));
            }
        }
    }
    (fit, unfit)
}

/// The in-tree scores of these nodes, by name.
pub(super) fn scores(fit: &[NodeView<'_>], pod: &Pod, weights: ScoreWeights) -> Vec<(String, i64)> {
    fit.iter().map(|view| (view.node.name.clone(), score(pod, *view, weights))).collect()
}

/// The best node; one of the best at random where there are several, as `selectHost` does it.
pub(super) fn select_host(scores: &[(String, i64)], random: &mut impl Rng) -> Option<String> {
    let best = scores.iter().map(|(_, score)| *score).max()?;
    let tied: Vec<&String> =
        scores.iter().filter(|(_, score)| *score == best).map(|(name, _)| name).collect();
    match tied.as_slice() {
        [only] => Some((*only).clone()),
        several => Some(several[random.random_range(0..several.len())].clone()),
    }
}

/// Where a stock kube-scheduler without extenders would put a pod now.
///
/// # Errors
/// [`Unfit`], with every node's reason.
pub fn choose(
    cache: &Cache,
    pod: &Pod,
    weights: ScoreWeights,
    random: &mut impl Rng,
) -> Result<String, Unfit> {
    let (fit, unfit) = feasible(cache, pod);
    select_host(&scores(&fit, pod, weights), random).ok_or(unfit)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::sync::Arc;

    use proptest::prelude::*;
    use rand::SeedableRng;
    use rand_chacha::ChaCha8Rng;
    use serde_json::json;

    use super::super::objects::Node;
    use super::*;

    fn cluster(gpus: &[u32]) -> Cache {
        let mut cache = Cache::default();
        for (i, gpus) in gpus.iter().enumerate() {
            let allocatable = json!({ "cpu": "8", "memory": "8Gi", "pods": "110", "nvidia.com/gpu": gpus });
            cache.set_node(Node::read(
                &json!({ "metadata": { "name": format!("n{i}") }, "status": { "allocatable": allocatable } }),
            ));
        }
        cache
    }

    fn pod(uid: &str, gpus: u32) -> Pod {
        let requests = json!({ "cpu": "1", "memory": "1Gi", "nvidia.com/gpu": gpus });
        let spec = json!({ "containers": [{ "resources": { "requests": requests } }] });
        Pod::read(Arc::new(json!({ "metadata": { "uid": uid }, "spec": spec })))
    }

    #[test]
    fn pods_spread_over_equal_nodes() {
        let mut cache = cluster(&[8, 8, 8]);
        let mut random = ChaCha8Rng::seed_from_u64(1);
        let mut nodes = BTreeSet::new();
        for i in 0..3 {
            let pod = pod(&format!("{i}"), 1);
            let node = choose(&cache, &pod, ScoreWeights::default(), &mut random).unwrap();
            cache.place(Arc::new(pod), &node);
            nodes.insert(node);
        }
        assert_eq!(nodes.len(), 3);
    }

    #[test]
    fn ties_are_broken_by_the_seed_and_every_tied_node_has_its_turn() {
        let cache = cluster(&[8, 8, 8]);
        let first = |seed| {
            let mut random = ChaCha8Rng::seed_from_u64(seed);
            choose(&cache, &pod("a", 1), ScoreWeights::default(), &mut random).unwrap()
        };
        assert_eq!(first(7), first(7));
        assert_eq!((0..50).map(first).collect::<BTreeSet<_>>().len(), 3);
    }

    #[test]
    fn reasons_are_told_as_kube_scheduler_tells_them() {
        let mut random = ChaCha8Rng::seed_from_u64(1);
        let unfit =
            choose(&cluster(&[1, 0]), &pod("a", 2), ScoreWeights::default(), &mut random).unwrap_err();
        assert_eq!(unfit.to_string(), "0/2 nodes are available: 2 Insufficient nvidia.com/gpu.");
        assert!(unfit.by.resources && !unfit.by.nodes);
        let none = choose(&Cache::default(), &pod("a", 1), ScoreWeights::default(), &mut random).unwrap_err();
        assert_eq!(none.to_string(), "no nodes available to schedule pods");
    }

    proptest! {
        /// Pods come and go; what each node was promised is added up anew from the pods themselves.
        #[test]
        fn no_node_is_ever_overcommitted_and_no_pod_waits_while_a_node_fits(
            nodes in prop::collection::vec(0_u32..5, 1..5),
            acts in prop::collection::vec((0_u32..4, any::<bool>(), any::<prop::sample::Index>()), 1..60),
        ) {
            let mut cache = cluster(&nodes);
            let mut random = ChaCha8Rng::seed_from_u64(1);
            let mut on: Vec<(String, u32, String)> = Vec::new();
            for (i, (gpus, goes, which)) in acts.into_iter().enumerate() {
                if goes && !on.is_empty() {
                    let (uid, _, _) = on.swap_remove(which.index(on.len()));
                    prop_assert!(cache.remove_pod(&uid));
                    continue;
                }
                let pod = pod(&format!("{i}"), gpus);
                let free = |node: usize| {
                    let here = || on.iter().filter(|(_, _, name)| *name == format!("n{node}"));
                    // Each pod asks for one of the node's 8 cores.
                    (here().count() < 8, nodes[node] - here().map(|(_, gpus, _)| gpus).sum::<u32>())
                };
                let fits = (0..nodes.len()).any(|node| free(node).0 && (gpus == 0 || free(node).1 >= gpus));
                match choose(&cache, &pod, ScoreWeights::default(), &mut random) {
                    Ok(node) => {
                        let number: usize = node[1..].parse().unwrap();
                        prop_assert!(free(number).0 && (gpus == 0 || free(number).1 >= gpus));
                        on.push((pod.uid.clone(), gpus, node.clone()));
                        cache.place(Arc::new(pod), &node);
                    }
                    Err(_) => prop_assert!(!fits),
                }
            }
        }
    }
}
