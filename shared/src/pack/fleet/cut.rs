//! What is of use on the GPUs of one node, given what else the node has left.
//!
//! GPU by GPU, an idle piece is worth the dearest requests that can be [cut](super::cutting) from it. But they need CPU
//! and memory too, of which the node may have too little for all of its pieces. Packing a node exactly is a knapsack
//! in many dimensions; this is its Lagrangian bound, which needs a few additions only: at a price for CPU, whatever it
//! is, the node is worth at most its CPU at that price and its pieces with requests that pay for their CPU. Of a
//! ladder of prices the lowest bound counts. The same for memory.

use std::collections::BTreeMap;

use super::cutting::{self, Item};
use super::mix::Mix;
use super::node::{GPU_MILLI, Node};

/// Prices that are tried for CPU and for memory, as multiples of what a request of the mix has of it by the GPU. Half of
/// them bound nodes that have a little less of it than the mix asks for, the others nodes that have hardly any.
const LADDER: [f64; 5] = [4.0, 2.0, 1.0, 0.5, 0.25];

/// What pieces of GPUs are worth to a mix, at each price for CPU and memory. Numbers are in thousandths of a GPU times
/// `whole`.
#[derive(Debug, Clone)]
pub(super) struct Cut {
    whole: i64,
    rungs: Vec<Rung>,
}

/// What pieces are worth at one price.
#[derive(Debug, Clone)]
struct Rung {
    cpu_price: i64,
    memory_price: i64,
    /// By length.
    pieces: Vec<i64>,
}

/// What requests of one length ask for, all together.
#[derive(Debug, Clone, Copy, Default)]
struct Asked {
    devices: u64,
    cpu_milli: f64,
    memory_mib: f64,
}

impl Cut {
    /// Of GPUs for this mix, in thousandths of a GPU times `whole`.
    pub fn new(mix: &Mix, whole: i64) -> Self {
        let mut asked: BTreeMap<u16, Asked> = BTreeMap::new();
        for (shape, weight) in mix.on_gpus().filter(|(shape, _)| !shape.slice) {
            let of = asked.entry(shape.gpu_milli).or_default();
            of.devices += weight * u64::from(shape.gpus);
            of.cpu_milli += weight as f64 * shape.cpu_milli as f64;
            of.memory_mib += weight as f64 * shape.memory_mib as f64;
        }
        let mut items = cutting::prices(&asked.iter().map(|(&milli, of)| (milli, of.devices)).collect());
        if asked.contains_key(&GPU_MILLI) {
            items.push(Item { length: usize::from(GPU_MILLI), worth: 1.0 });
        }
        let gpus: f64 = asked.iter().map(|(&milli, of)| f64::from(milli) / 1000.0 * of.devices as f64).sum();
        let cpu: f64 = asked.values().map(|of| of.cpu_milli).sum();
        let memory: f64 = asked.values().map(|of| of.memory_mib).sum();
        let rung = |cpu_price, memory_price| Rung::new(&items, &asked, (cpu_price, memory_price), whole);
        let mut rungs = vec![rung(0.0, 0.0)];
        if cpu > 0.0 {
            rungs.extend(LADDER.map(|times| rung(times * gpus / cpu, 0.0)));
        }
        if memory > 0.0 {
            rungs.extend(LADDER.map(|times| rung(0.0, times * gpus / memory)));
        }
        Self { whole, rungs }
    }

    /// What of the idle pieces of this node is of no use.
    pub fn waste(&self, node: &Node) -> i64 {
        let idle = || node.idle.iter().map(|&idle| usize::from(idle.min(GPU_MILLI)));
        // A price times all of a node may be more than a number holds; then another rung is lower.
        let bound = |rung: &Rung| {
            let cpu = rung.cpu_price.saturating_mul(i64::try_from(node.cpu_milli).unwrap_or(i64::MAX));
            let memory = rung.memory_price.saturating_mul(i64::try_from(node.memory_mib).unwrap_or(i64::MAX));
            let pieces: i64 = idle().map(|idle| rung.pieces[idle]).sum();
            pieces.saturating_add(cpu).saturating_add(memory)
        };
        let of_use = self.rungs.iter().map(bound).min().unwrap_or(0);
        let all: i64 = node.idle.iter().map(|&idle| i64::from(idle) * self.whole).sum();
        all - of_use
    }
}

impl Rung {
    /// At these prices: GPUs for a thousandth of a core, and for a MiB.
    fn new(items: &[Item], asked: &BTreeMap<u16, Asked>, prices: (f64, f64), whole: i64) -> Self {
        let (cpu_price, memory_price) = prices;
        let pays = |item: &Item| {
            let of = u16::try_from(item.length).ok().and_then(|milli| asked.get(&milli)).copied();
            let of = of.unwrap_or_default();
            let fee = (cpu_price * of.cpu_milli + memory_price * of.memory_mib) / of.devices.max(1) as f64;
            Item { worth: item.worth - fee, ..*item }
        };
        let milli = whole as f64 * f64::from(GPU_MILLI);
        let items: Vec<Item> = items.iter().map(pays).collect();
        Self {
            // Far below 2^53, or so dear that it does not matter.
            cpu_price: (cpu_price * milli).round() as i64,
            memory_price: (memory_price * milli).round() as i64,
            pieces: cutting::fill(&items).iter().map(|worth| (worth * milli).round() as i64).collect(),
        }
    }
}
