//! What a placement costs.

use std::collections::BTreeMap;

use super::cut::Cut;
use super::mix::{Mix, Supply};
use super::node::{GPU_MILLI, Models, Node, Shape};

/// What a placement costs: less is better. Exact, so that equal costs are equal; the unit is a thousandth of a GPU
/// times the weight of the whole mix. Only costs of one [`Value`] and one shape may be compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Cost(pub i64);

/// How much each term counts. One set serves every mix; others are for measuring what a term is good for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Weights {
    /// What becomes a fragment.
    pub fragment: i64,
    /// What is stranded.
    pub stranded: i64,
    /// What the cut wastes. Any weight from 30 on serves as well as another: the other terms break ties.
    pub cut: i64,
    /// The price of the model.
    pub price: i64,
}

impl Default for Weights {
    fn default() -> Self {
        Self { fragment: 1, stranded: 1, cut: 100, price: 1 }
    }
}

/// The cheapest place for a request on a node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Spot {
    /// What it costs.
    pub cost: Cost,
    /// How much the GPU has idle that a request for one GPU goes to.
    level: u16,
}

impl Spot {
    /// Which GPUs of the node that is: the lowest index among equals. `None` if the node has changed meanwhile, and
    /// no such GPU is there.
    pub fn gpus(&self, node: &Node, shape: &Shape) -> Option<Vec<u16>> {
        if !shape.wants_gpu() {
            return Some(Vec::new());
        }
        if shape.gpus > 1 {
            return node.tightest(shape.gpu_milli, shape.gpus);
        }
        let found = (0..).zip(&node.idle).find(|&(_, &idle)| idle == self.level)?;
        Some(vec![found.0])
    }
}

/// What idle CPU, memory and GPUs are worth to a mix of requests. Made anew when the mix or the cluster's GPUs change.
#[derive(Debug, Clone)]
pub struct Value {
    weights: Weights,
    cut: Cut,
    /// By model.
    worth: Vec<Worth>,
}

/// What the mix expects of nodes with one GPU model.
#[derive(Debug, Clone, Default)]
struct Worth {
    /// What a thousandth of a GPU of this model costs whoever could use another.
    price: i64,
    /// The weight of all shapes that ask for GPUs.
    all: i64,
    sizes: Vec<Size>,
}

/// The shapes that ask the same of each GPU.
#[derive(Debug, Clone)]
struct Size {
    milli: u32,
    slice: bool,
    shapes: Vec<Expected>,
}

impl Size {
    /// Whether a GPU with so much idle has room for it.
    fn fits(&self, idle: u32) -> bool {
        if self.slice { idle == u32::from(GPU_MILLI) } else { idle >= self.milli }
    }
}

#[derive(Debug, Clone)]
struct Expected {
    cpu_milli: u64,
    memory_mib: u64,
    gpus: u32,
    weight: i64,
}

impl Value {
    /// The value of a cluster with these GPUs to this mix.
    pub fn new(mix: &Mix, supply: &Supply, weights: Weights) -> Self {
        let cut = Cut::new(mix, signed(mix.total()).saturating_mul(weights.cut));
        let models = supply.models().max().map_or(0, |model| usize::from(model) + 1);
        let mut worth = vec![Worth::default(); models];
        for model in supply.models() {
            worth[usize::from(model)] = Worth::new(mix, supply, model);
        }
        Self { weights, cut, worth }
    }

    /// The cheapest place for a request on this node, or none where it does not fit; none for a slice.
    pub fn spot(&self, node: &Node, shape: &Shape) -> Option<Spot> {
        self.spot_from(self.potential(node), node, shape)
    }

    /// The same, where the potential of the node is known.
    pub(super) fn spot_from(&self, before: i64, node: &Node, shape: &Shape) -> Option<Spot> {
        if node.cpu_milli < shape.cpu_milli || node.memory_mib < shape.memory_mib || shape.slice {
            return None;
        }
        let mut after = node.clone();
        let price = self.price(node.model, shape);
        let cost = |after: &Node| Cost((self.potential(after) - before).saturating_add(price));
        if shape.wants_gpu() && !shape.models.contains(node.model) {
            return None;
        }
        if !shape.wants_gpu() || shape.gpus > 1 {
            let gpus =
                if shape.wants_gpu() { node.tightest(shape.gpu_milli, shape.gpus)? } else { Vec::new() };
            after.take(shape, &gpus);
            return Some(Spot { cost: cost(&after), level: 0 });
        }
        let mut best: Option<Spot> = None;
        for (gpu, &level) in (0..).zip(&node.idle) {
            if level < shape.gpu_milli || node.idle[..gpu].contains(&level) {
                continue;
            }
            let index = u16::try_from(gpu).ok()?;
            after.clone_from(node);
            after.take(shape, &[index]);
            let spot = Spot { cost: cost(&after), level };
            // Of equal places the fuller GPU, whatever its index.
            if best.is_none_or(|best| (spot.cost, spot.level) < (best.cost, best.level)) {
                best = Some(spot);
            }
        }
        best
    }

    /// What the GPU model adds for a request.
    fn price(&self, model: u8, shape: &Shape) -> i64 {
        let price = self.worth.get(usize::from(model)).map_or(0, |worth| worth.price);
        self.weights.price.saturating_mul(price).saturating_mul(signed(shape.total_gpu_milli()))
    }

    /// All that is of no use on a node, weighed: fragments, stranded, wasted by the cut. A placement costs what it adds.
    pub(super) fn potential(&self, node: &Node) -> i64 {
        let idle = || node.idle.iter().filter(|&&idle| idle > 0);
        let total: u32 = idle().map(|&idle| u32::from(idle)).sum();
        if total == 0 {
            return 0;
        }
        let waste = self.cut.waste(node);
        let Some(worth) = self.worth.get(usize::from(node.model)) else { return waste };
        // Counted as if nothing were of use; then what is of use is taken off.
        let (mut usable, mut filled) = (0, 0);
        for size in &worth.sizes {
            let (mut fit, mut above, mut copies) = (0, 0, 0);
            for &idle in idle() {
                let idle = u32::from(idle);
                if size.fits(idle) {
                    fit += 1;
                    above += idle;
                    copies += idle / size.milli;
                }
            }
            if fit == 0 {
                // The sizes ascend, and end with the slices: nothing larger fits either.
                break;
            }
            for shape in &size.shapes {
                if fit < shape.gpus || node.cpu_milli < shape.cpu_milli || node.memory_mib < shape.memory_mib
                {
                    continue;
                }
                usable += shape.weight * i64::from(above);
                let pods = shape.most(node, copies);
                filled += shape.weight * pods * i64::from(size.milli) * i64::from(shape.gpus);
            }
        }
        let all = worth.all * i64::from(total);
        waste + self.weights.fragment * (all - usable) + self.weights.stranded * (all - filled)
    }
}

impl Worth {
    fn new(mix: &Mix, supply: &Supply, model: u8) -> Self {
        // By whether it is a slice and the size; then by CPU, memory and how many.
        let mut by_size: BTreeMap<_, BTreeMap<(u64, u64, u16), i64>> = BTreeMap::new();
        let (mut all, mut all_milli, mut price) = (0, 0.0, 0.0);
        for (shape, weight) in mix.on_gpus() {
            all += signed(weight);
            // Below 2^20 × 2^26: exact.
            let milli = (weight * shape.total_gpu_milli()) as f64;
            all_milli += milli;
            if shape.models.contains(model) {
                price += milli / supply.of(shape.models).max(1) as f64;
                let key = (shape.cpu_milli, shape.memory_mib, shape.gpus);
                let of_size = by_size.entry((shape.slice, shape.gpu_milli)).or_default();
                *of_size.entry(key).or_default() += signed(weight);
            }
        }
        let expected = |((cpu_milli, memory_mib, gpus), weight)| Expected {
            cpu_milli,
            memory_mib,
            gpus: u32::from(gpus),
            weight,
        };
        let sizes = by_size.into_iter().map(|((slice, milli), shapes)| Size {
            milli: u32::from(milli),
            slice,
            shapes: shapes.into_iter().map(expected).collect(),
        });
        let price = if all_milli > 0.0 { price * supply.of(Models::ANY) as f64 / all_milli } else { 0.0 };
        Self { price: (price * mix.total() as f64).round() as i64, all, sizes: sizes.collect() }
    }
}

impl Expected {
    /// How many pods of this shape the node could take at most, with room on its GPUs for so many devices.
    fn most(&self, node: &Node, copies: u32) -> i64 {
        let by_gpu = u64::from(copies / self.gpus.max(1));
        let mut most = by_gpu;
        // Dividing is slow, and GPUs are mostly what runs out first.
        if most.saturating_mul(self.cpu_milli) > node.cpu_milli {
            most = node.cpu_milli / self.cpu_milli;
        }
        if most.saturating_mul(self.memory_mib) > node.memory_mib {
            most = node.memory_mib / self.memory_mib;
        }
        signed(most)
    }
}

/// Numbers here are far from the bounds of either type.
fn signed(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}
