//! What is likely to come, learned from what came.

use std::collections::BTreeMap;

use super::mix::Mix;
use super::node::Shape;

/// What one pod weighs at first. It decays in small steps, so it needs digits.
const POD: u64 = 1 << 16;

/// Shapes that are remembered. A new one takes the place of the least seen.
const SHAPES_MAX: usize = 512;

/// After so many pods a pod counts half of what a new one does.
const HALF_LIFE_PODS: u64 = 16_384;

/// The weights decay so many times in a half-life, each by this many 1024ths: 2^(-1/16).
const DECAYS: u64 = 16;
const KEPT_OF_1024: u64 = 981;

/// Learns the mix of requests from the pods that came: bounded memory, old pods fade.
///
/// It begins with a prior, which fades like pods that had come.
#[derive(Debug, Clone)]
pub struct Learner {
    weights: BTreeMap<Shape, u64>,
    /// The weight of all.
    total: u64,
    /// Pods since the last decay.
    since_decay: u64,
    /// What the pods since the last mix weigh.
    news: u64,
}

impl Learner {
    /// Knows nothing but the prior, which counts like so many pods.
    pub fn new(prior: &Mix, pods: u32) -> Self {
        let all = prior.total().max(1);
        let weigh = |(shape, weight): (&Shape, u64)| {
            let weight = u128::from(weight) * u128::from(pods) * u128::from(POD) / u128::from(all);
            // At most 2^48: a part of so many pods.
            (*shape, u64::try_from(weight).unwrap_or(0))
        };
        let weights: BTreeMap<Shape, u64> = prior.shapes().map(weigh).take(SHAPES_MAX).collect();
        let total = weights.values().sum();
        Self { weights, total, since_decay: 0, news: 0 }
    }

    /// A pod of this shape came.
    pub fn see(&mut self, shape: &Shape) {
        if !self.weights.contains_key(shape) && self.weights.len() >= SHAPES_MAX {
            let least = self.weights.iter().min_by_key(|&(_, &weight)| weight).map(|(shape, _)| *shape);
            if let Some(weight) = least.and_then(|least| self.weights.remove(&least)) {
                self.total -= weight;
            }
        }
        *self.weights.entry(*shape).or_default() += POD;
        self.total += POD;
        self.news += POD;
        self.since_decay += 1;
        if self.since_decay >= HALF_LIFE_PODS / DECAYS {
            self.since_decay = 0;
            self.weights.values_mut().for_each(|weight| *weight = *weight * KEPT_OF_1024 / 1024);
            self.weights.retain(|_, weight| *weight > 0);
            self.total = self.weights.values().sum();
        }
    }

    /// The mix, if it has changed by an eighth since it was last asked for: judging by a new mix means scoring all
    /// nodes again.
    pub fn news(&mut self) -> Option<Mix> {
        if self.news * 8 < self.total {
            return None;
        }
        self.news = 0;
        Some(self.mix())
    }

    /// The mix as it is known now.
    pub fn mix(&self) -> Mix {
        Mix::new(self.weights.iter().map(|(shape, &weight)| (*shape, weight)))
    }
}
