//! What a replay came to.

use std::fmt::Write;

use super::trace::Trace;

/// Where one arrival went.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Placed {
    /// Its row in the trace.
    pub row: usize,
    /// Its node, in the order of the trace; none where it was refused.
    pub node: Option<usize>,
    /// Its GPUs on that node.
    pub gpus: Vec<u16>,
}

/// A cluster in steady use.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Steady {
    /// What was asked for at once, refused or not, in percent of all GPUs: the mean.
    pub asked: f64,
    /// What of the GPUs was allocated, in percent: the mean.
    pub allocated: f64,
    /// Pods that were refused, in percent of those that came.
    pub refused: f64,
}

/// A replay from the first arrival to the last.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Run {
    /// By arrival.
    pub arrivals: Vec<Placed>,
    /// By arrival: what has been asked of GPUs so far, by pods that have not left, and what of it is allocated, in thousandths
    /// of a GPU.
    pub milli: Vec<(u64, u64)>,
    /// All GPUs, in thousandths.
    pub capacity_milli: u64,
}

impl Run {
    /// The mean allocation, in percent, while what has been asked for was so many percent of all GPUs: rounded to
    /// whole percents, half to even, as the published figures are. Each point with its percent, ascending.
    pub fn curve(&self) -> Vec<(u64, f64)> {
        let capacity = self.capacity_milli.max(1) as f64;
        let mut curve: Vec<(u64, f64, u32)> = Vec::new();
        for &(asked, allocated) in &self.milli {
            let percent = (100.0 * asked as f64 / capacity).round_ties_even() as u64;
            let allocated = 100.0 * allocated as f64 / capacity;
            match curve.last_mut() {
                Some((last, sum, count)) if *last == percent => {
                    *sum += allocated;
                    *count += 1;
                }
                _ => curve.push((percent, allocated, 1)),
            }
        }
        curve.into_iter().map(|(percent, sum, count)| (percent, sum / f64::from(count))).collect()
    }

    /// The mean allocation, in percent, around one point of the curve. None where no arrival came near it.
    pub fn alloc_at(&self, percent: u64) -> Option<f64> {
        self.curve().into_iter().find(|&(at, _)| at == percent).map(|(_, allocated)| allocated)
    }

    /// What the second half of the arrivals found, where pods leave: then the cluster is in steady use.
    pub fn steady(&self) -> Steady {
        let half = self.milli.split_at(self.milli.len() / 2).1;
        let percent = |of: &dyn Fn(&(u64, u64)) -> u64| {
            let sum: u128 = half.iter().map(|it| u128::from(of(it))).sum();
            100.0 * sum as f64 / (half.len().max(1) as f64 * self.capacity_milli.max(1) as f64)
        };
        let refused =
            self.arrivals.split_at(self.arrivals.len() / 2).1.iter().filter(|placed| placed.node.is_none());
        Steady {
            asked: percent(&|it| it.0),
            allocated: percent(&|it| it.1),
            refused: 100.0 * refused.count() as f64 / half.len().max(1) as f64,
        }
    }

    /// How many arrivals were refused.
    pub fn refused(&self) -> usize {
        self.arrivals.iter().filter(|placed| placed.node.is_none()).count()
    }

    /// One line per arrival: `arrival,row,node,gpus`. The node is empty when refused; GPUs are like `0` or `0-3-5`.
    pub fn to_csv(&self, trace: &Trace) -> String {
        let mut csv = String::from("arrival,row,node,gpus\n");
        for (arrival, placed) in self.arrivals.iter().enumerate() {
            let node = placed.node.and_then(|node| trace.nodes.get(node)).map_or("", |node| &node.name);
            let gpus: Vec<String> = placed.gpus.iter().map(u16::to_string).collect();
            // Writing to a String cannot fail.
            let _ = writeln!(csv, "{arrival},{},{node},{}", placed.row, gpus.join("-"));
        }
        csv
    }
}
