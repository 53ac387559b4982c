//! The requests to come, and the GPUs there are.

use std::collections::BTreeMap;

use super::node::{Models, Shape};

/// The most that a mix weighs in all: enough to tell shapes of one in a million, and far from any overflow.
const WEIGHT_MAX: u64 = 1 << 20;

/// What is likely to come: shapes of requests, and how often each.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Mix {
    shapes: BTreeMap<Shape, u64>,
    total: u64,
}

impl Mix {
    /// A mix of these shapes, each with its weight; equal shapes are added up. Only proportions count: what weighs
    /// more than a million in all is scaled down, and a shape that would weigh nothing then is left out.
    pub fn new(shapes: impl IntoIterator<Item = (Shape, u64)>) -> Self {
        let mut weights: BTreeMap<Shape, u64> = BTreeMap::new();
        for (shape, weight) in shapes {
            let entry = weights.entry(shape).or_default();
            *entry = entry.saturating_add(weight);
        }
        let all: u128 = weights.values().map(|&weight| u128::from(weight)).sum();
        if all > u128::from(WEIGHT_MAX) {
            let scaled = |weight: u64| u128::from(weight) * u128::from(WEIGHT_MAX) / all;
            // At most WEIGHT_MAX, which fits.
            weights.values_mut().for_each(|weight| *weight = u64::try_from(scaled(*weight)).unwrap_or(0));
        }
        weights.retain(|_, weight| *weight > 0);
        let total = weights.values().sum();
        Self { shapes: weights, total }
    }

    /// The shapes with their weights, in a fixed order.
    pub fn shapes(&self) -> impl Iterator<Item = (&Shape, u64)> {
        self.shapes.iter().map(|(shape, &weight)| (shape, weight))
    }

    /// The shapes that ask for GPUs.
    pub(super) fn on_gpus(&self) -> impl Iterator<Item = (&Shape, u64)> {
        self.shapes().filter(|(shape, _)| shape.wants_gpu())
    }

    /// The weight of all shapes together.
    pub fn total(&self) -> u64 {
        self.total
    }
}

/// How many GPUs of each model the cluster has, used or not.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Supply {
    gpus: BTreeMap<u8, u64>,
}

impl Supply {
    /// Counts the GPUs of these nodes: each node's model, and how many GPUs it has.
    pub fn new(nodes: impl IntoIterator<Item = (u8, u64)>) -> Self {
        let mut gpus: BTreeMap<u8, u64> = BTreeMap::new();
        for (model, count) in nodes {
            let known = gpus.entry(model).or_default();
            *known = known.saturating_add(count);
        }
        Self { gpus }
    }

    /// How many GPUs a pod that may use these models can choose from.
    pub fn of(&self, models: Models) -> u64 {
        let usable = self.gpus.iter().filter(|&(&model, _)| models.contains(model));
        usable.fold(0, |sum, (_, &count)| sum.saturating_add(count))
    }

    /// The models there are.
    pub fn models(&self) -> impl Iterator<Item = u8> {
        self.gpus.keys().copied()
    }
}
