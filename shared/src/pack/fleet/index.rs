//! All nodes of a cluster, and the cheapest place among them.

use std::collections::BTreeMap;

use super::class::{Classes, Stamp};
use super::node::{Node, Shape};
use super::value::{Cost, Spot, Value};

/// Shapes whose scores are kept. When more are asked for, all are forgotten and scored again as they come.
const SHAPES_MAX: usize = 1024;

/// The nodes of a cluster, by place, with the scores of what was asked for already.
#[derive(Debug, Clone)]
pub struct Fleet {
    value: Value,
    nodes: Vec<Node>,
    classes: Classes,
    scores: BTreeMap<Shape, Vec<Score>>,
}

/// What a class was found to cost a shape.
#[derive(Debug, Clone, Copy)]
struct Score {
    stamp: Stamp,
    spot: Option<Spot>,
}

/// No class has this stamp.
const NEVER: Score = Score { stamp: 0, spot: None };

impl Fleet {
    /// A cluster of these nodes, judged by this value.
    pub fn new(value: Value, nodes: Vec<Node>) -> Self {
        let mut classes = Classes::default();
        for node in &nodes {
            classes.push(node, |state| value.potential(state));
        }
        Self { value, nodes, classes, scores: BTreeMap::new() }
    }

    /// Judges by another value from now on.
    pub fn revalue(&mut self, value: Value) {
        *self = Self::new(value, std::mem::take(&mut self.nodes));
    }

    /// The nodes, by place.
    pub fn nodes(&self) -> &[Node] {
        &self.nodes
    }

    /// Where a request costs least in the whole cluster, or none where it fits no node.
    pub fn best(&mut self, shape: &Shape) -> Option<Best<'_>> {
        if self.scores.len() >= SHAPES_MAX && !self.scores.contains_key(shape) {
            self.scores.clear();
        }
        let slots = self.classes.slots();
        let scores = self.scores.entry(*shape).or_default();
        scores.resize(slots.len(), NEVER);
        let mut cost: Option<Cost> = None;
        let mut ties: Vec<(usize, Spot)> = Vec::new();
        for (slot, (class, score)) in slots.iter().zip(scores).enumerate() {
            if class.members.is_empty() {
                continue;
            }
            if score.stamp != class.stamp {
                let spot = self.value.spot_from(class.potential, &class.state, shape);
                *score = Score { stamp: class.stamp, spot };
            }
            let Some(spot) = score.spot else { continue };
            if cost.is_none_or(|cost| spot.cost < cost) {
                cost = Some(spot.cost);
                ties.clear();
            }
            if cost == Some(spot.cost) {
                ties.push((slot, spot));
            }
        }
        Some(Best { cost: cost?, classes: &self.classes, ties })
    }

    /// Takes what a request uses of a node.
    pub fn take(&mut self, place: usize, shape: &Shape, gpus: &[u16]) {
        self.change(place, |node| node.take(shape, gpus));
    }

    /// Gives back what a request used of a node.
    pub fn give_back(&mut self, place: usize, shape: &Shape, gpus: &[u16]) {
        self.change(place, |node| node.give_back(shape, gpus));
    }

    fn change(&mut self, place: usize, change: impl FnOnce(&mut Node)) {
        if let Some(node) = self.nodes.get_mut(place) {
            change(node);
            self.classes.update(place, node, |state| self.value.potential(state));
        }
    }
}

/// The cheapest places for a request: there may be many that cost the same.
#[derive(Debug)]
pub struct Best<'a> {
    cost: Cost,
    classes: &'a Classes,
    ties: Vec<(usize, Spot)>,
}

impl Best<'_> {
    /// What each of them costs.
    pub fn cost(&self) -> Cost {
        self.cost
    }

    /// The nodes, by place, each with its spot: never none of them, in an order that depends only on what the fleet
    /// has been told so far.
    pub fn places(&self) -> impl Iterator<Item = (usize, Spot)> {
        self.ties.iter().flat_map(|&(slot, spot)| {
            self.classes.slots()[slot].members.iter().map(move |&place| (place, spot))
        })
    }

    /// How many nodes that are.
    pub fn count(&self) -> usize {
        self.ties.iter().map(|&(slot, _)| self.classes.slots()[slot].members.len()).sum()
    }
}
