//! Pods that leave: a cluster in steady use instead of one that fills up.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use rand_distr::Exp1;

use super::trace::Trace;

/// Which pods are there, and when each leaves. Time is counted in arrivals.
pub(super) struct Departures {
    /// The mean stay.
    mean: f64,
    stays: ChaCha8Rng,
    /// When, and which arrival it was.
    due: BinaryHeap<Reverse<(u64, usize)>>,
}

impl Departures {
    /// Pods stay exponentially long, so that on average `load` times all GPUs are asked for at once by pods that arrive as in
    /// `order`.
    pub fn new(trace: &Trace, order: &[usize], load: f64, seed: u64) -> Self {
        let kinds = order.iter().filter_map(|&row| trace.pods.get(row));
        let asked: u64 = kinds.map(|&kind| trace.kinds[kind].shape.total_gpu_milli()).sum();
        let mean = load * trace.capacity_milli() as f64 * order.len() as f64 / asked.max(1) as f64;
        Self { mean, stays: ChaCha8Rng::seed_from_u64(seed), due: BinaryHeap::new() }
    }

    /// One more has arrived, whether or not it was placed: so all policies see the same stays.
    pub fn arrive(&mut self, arrival: usize) {
        let stay: f64 = self.mean * self.stays.sample::<f64, _>(Exp1);
        self.due.push(Reverse((arrival as u64 + stay.ceil() as u64, arrival)));
    }

    /// The next that has left when this one arrives.
    pub fn next_before(&mut self, arrival: usize) -> Option<usize> {
        let Reverse((due, who)) = *self.due.peek()?;
        (due <= arrival as u64).then(|| {
            self.due.pop();
            who
        })
    }
}
