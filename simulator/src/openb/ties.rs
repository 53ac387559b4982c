//! Which of several nodes that are equally good.

use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

/// How to choose among nodes that are equally good.
#[derive(Debug, Clone)]
pub enum Ties {
    /// At random, as kube-scheduler does.
    Random(Box<ChaCha8Rng>),
    /// The node with the lowest rank; by node, in the order of the trace.
    Name(Vec<usize>),
}

impl Ties {
    /// At random, by a seed.
    pub fn random(seed: u64) -> Self {
        Self::Random(Box::new(ChaCha8Rng::seed_from_u64(seed)))
    }

    /// One of these nodes. `None` where there are none.
    pub(super) fn choose(&mut self, nodes: &[usize]) -> Option<usize> {
        match self {
            Self::Random(_) if nodes.is_empty() => None,
            Self::Random(random) => Some(nodes[random.random_range(0..nodes.len())]),
            Self::Name(ranks) => nodes.iter().copied().min_by_key(|&node| ranks.get(node).copied()),
        }
    }
}
