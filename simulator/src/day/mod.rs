//! A week of services that breathe with the day: how many GPUs does each way of dividing them need?
//!
//! Three classes of pods share a cluster of A100s, each asking for 20 GPUs' worth on average: whole GPUs, MIG slices,
//! and small models that share a GPU four to one. Ten services a class follow the hour, each with a phase and a noise of
//! its own, and the classes do not all peak together (see `demand.rs` for every number). A strategy needs the least
//! number of GPUs that serves 99.5 % of the wanted pod-time of each class.
//!
//! - **elastic**: every GPU is offered whole, as slices and as shares, and the packing core decides at each arrival;
//! - **hand split**: so many whole, so many cut into 3g + 2g + 1g + 1g, so many shared, with each class's peak known;
//! - **expert**: the same with the best numbers of five layouts, known in hindsight;
//! - **by means**: the hand split of somebody who knows the means and gives each class a third;
//! - **whole**: one whole GPU for each pod.

mod demand;
mod elastic;
mod fixed;
mod plot;
#[cfg(test)]
mod tests;

use std::fmt;

use serde::Serialize;
use stowage_shared::gpu::GpuKindError;

use self::demand::Week;
pub use self::demand::{MigMix, MigMixError};
pub use self::plot::svg;

/// The share of the wanted pod-time that each class must get.
pub const SERVED: f64 = 0.995;

/// Which pods go when a service shrinks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum ScaleDown {
    /// Those whose going frees most, as `controller.kubernetes.io/pod-deletion-cost` can tell a ReplicaSet.
    Draining,
    /// Any.
    Random,
}

/// GPUs that each strategy needs for one week.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Needs {
    /// Which week.
    pub seed: u64,
    /// Which slices.
    pub mix: String,
    /// Elastic, draining.
    pub elastic: usize,
    /// Elastic, any pod goes.
    pub elastic_random: usize,
    /// Split by hand, peaks known.
    pub hand_split: usize,
    /// The best of five layouts in hindsight.
    pub expert: usize,
    /// A third for each class.
    pub by_means: usize,
    /// One whole GPU a pod.
    pub whole: usize,
    /// The mean share of the elastic, draining GPUs that is occupied.
    pub occupied: f64,
}

/// Works out what each strategy needs in the week of `seed`. `progress` hears of each step.
///
/// # Errors
/// [`GpuKindError`] never with the geometries there are.
pub fn needs(seed: u64, mix: MigMix, progress: &mut dyn FnMut()) -> Result<Needs, GpuKindError> {
    let week = Week::new(seed, mix);
    let mut least = |scale_down| {
        progress();
        elastic::least(&week, scale_down, seed)
    };
    let (elastic, occupied) = least(ScaleDown::Draining)?;
    let (elastic_random, _) = least(ScaleDown::Random)?;
    progress();
    Ok(Needs {
        seed,
        mix: mix.to_string(),
        elastic,
        elastic_random,
        hand_split: fixed::hand_split(&week),
        expert: fixed::expert(&week),
        by_means: fixed::by_means(&week),
        whole: fixed::whole(&week),
        occupied,
    })
}

/// How often `progress` is told of by [`needs`].
pub const STEPS: u64 = 3;

/// Means over several weeks of one mix of slices.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Row {
    /// Which slices.
    pub mix: String,
    /// How many weeks.
    pub weeks: usize,
    /// GPUs by strategy, in the order of [`STRATEGIES`].
    pub gpus: [f64; 6],
    /// The same relative to the first.
    pub ratios: [f64; 6],
    /// The mean share of the elastic GPUs that is occupied.
    pub occupied: f64,
}

/// The strategies, as a person calls them.
pub const STRATEGIES: [&str; 6] = [
    "elastic",
    "elastic, random victims",
    "hand split, peaks known",
    "expert static",
    "split by means",
    "whole GPUs",
];

impl Row {
    /// The means of some weeks; `None` for none.
    pub fn of(needs: &[Needs]) -> Option<Self> {
        let first = needs.first()?;
        let count = needs.len() as f64;
        let of = |n: &Needs| [n.elastic, n.elastic_random, n.hand_split, n.expert, n.by_means, n.whole];
        let mut gpus = [0.0; 6];
        for n in needs {
            for (sum, one) in gpus.iter_mut().zip(of(n)) {
                *sum += one as f64 / count;
            }
        }
        let occupied = needs.iter().map(|n| n.occupied).sum::<f64>() / count;
        Some(Self {
            mix: first.mix.clone(),
            weeks: needs.len(),
            gpus,
            ratios: gpus.map(|n| n / gpus[0]),
            occupied,
        })
    }
}

/// The rows as a table for a terminal.
pub struct Table<'a>(pub &'a [Row]);

impl fmt::Display for Table<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:<26}", "1g/2g/3g of the MIG pods")?;
        self.0.iter().try_for_each(|row| write!(f, "{:>18}", row.mix))?;
        for (s, strategy) in STRATEGIES.iter().enumerate() {
            write!(f, "\n{strategy:<26}")?;
            for row in self.0 {
                write!(f, "{:>10.1} {:>6.3}x", row.gpus[s], row.ratios[s])?;
            }
        }
        write!(f, "\n{:<26}", "elastic: occupied")?;
        self.0.iter().try_for_each(|row| write!(f, "{:>17.1}%", row.occupied * 100.0))?;
        writeln!(f)
    }
}
