//! What is counted while a day is played, and what it comes to.

use std::collections::BTreeMap;

use serde::Serialize;

use super::services::{Class, Piece};
use super::split::GPUS;

/// What is seen at the end of one step.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Sample {
    /// Pods wanted, and those of them that run, by class.
    pub pods: BTreeMap<Class, (u32, u32)>,
    /// Pods without a node.
    pub waiting: usize,
    /// GPUs on which somebody holds a device.
    pub gpus_in_use: usize,
    /// GPUs handed out: whole ones as 1, slices and shares as the part they are.
    pub gpus_allocated: f64,
    /// GPUs kept busy under the services' stated load.
    pub gpus_busy: f64,
}

/// A day in figures, as `--json` writes them.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Figures {
    /// Share of the wanted pod-time that was served.
    pub served_percent: f64,
    /// The most pods that waited at the end of a step.
    pub pods_waiting_peak: usize,
    /// GPUs on which somebody held a device, on average.
    pub gpus_in_use_mean: f64,
    /// The fewest GPUs that were entirely free.
    pub gpus_free_min: usize,
    /// Share of GPU capacity that was handed out, on average.
    pub allocated_percent: f64,
    /// Share of GPU time in use under the services' stated load, on average.
    pub utilization_percent: f64,
}

impl Sample {
    /// Counts one service's pods: so many wanted, so many running, each holding `granted`.
    pub fn count(&mut self, needed: Piece, granted: Piece, wanted: u32, running: u32) {
        let served = running.min(wanted);
        let class = self.pods.entry(needed.class()).or_default();
        class.0 += wanted;
        class.1 += served;
        self.gpus_allocated += granted.gpus() * f64::from(running);
        // A pod is as busy as its service needs it to be, however much of a GPU it was given.
        self.gpus_busy += needed.gpus() * needed.class().load() * f64::from(served);
    }
}

impl Figures {
    /// Averages and extremes of a day; all zero for a day without steps.
    pub fn of(samples: &[Sample]) -> Self {
        let mean = |value: &dyn Fn(&Sample) -> f64| {
            samples.iter().map(value).sum::<f64>() / samples.len().max(1) as f64
        };
        let gpu_percent = |value: &dyn Fn(&Sample) -> f64| two_decimals(100.0 * mean(value) / GPUS as f64);
        let in_use_max = samples.iter().map(|sample| sample.gpus_in_use).max().unwrap_or_default();
        Self {
            served_percent: served_percent(samples, &Class::ALL),
            pods_waiting_peak: samples.iter().map(|sample| sample.waiting).max().unwrap_or_default(),
            gpus_in_use_mean: two_decimals(mean(&|sample| sample.gpus_in_use as f64)),
            gpus_free_min: GPUS.saturating_sub(in_use_max),
            allocated_percent: gpu_percent(&|sample| sample.gpus_allocated),
            utilization_percent: gpu_percent(&|sample| sample.gpus_busy),
        }
    }
}

/// Share of the wanted pod-time of these classes that was served; 100 where nothing was wanted.
pub fn served_percent(samples: &[Sample], classes: &[Class]) -> f64 {
    let pods = samples.iter().flat_map(|sample| &sample.pods).filter(|(class, _)| classes.contains(class));
    let (wanted, served) = pods.fold((0_u64, 0_u64), |(w, s), (_, &(wanted, served))| {
        (w + u64::from(wanted), s + u64::from(served))
    });
    if wanted == 0 { 100.0 } else { two_decimals(100.0 * served as f64 / wanted as f64) }
}

fn two_decimals(value: f64) -> f64 {
    (value * 100.0).round() / 100.0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_are_time_averages_and_extremes() {
        let mut busy = Sample { waiting: 3, gpus_in_use: 30, ..Sample::default() };
        busy.count(Piece::Share, Piece::Gpu, 4, 3);
        busy.count(Piece::Gpu, Piece::Gpu, 1, 2);
        let mut calm = Sample { gpus_in_use: 2, ..Sample::default() };
        calm.count(Piece::None, Piece::None, 3, 3);
        let figures = Figures::of(&[busy.clone(), calm]);
        assert_eq!(figures.served_percent, 87.5);
        assert_eq!((figures.pods_waiting_peak, figures.gpus_free_min), (3, 2));
        assert_eq!(figures.gpus_in_use_mean, 16.0);
        // Five GPUs handed out for half the time; 3 x 1/4 x 0.5 + 1 x 0.7 of them busy.
        assert_eq!(figures.allocated_percent, two_decimals(100.0 * 5.0 / 2.0 / 32.0));
        assert_eq!(figures.utilization_percent, two_decimals(100.0 * 1.075 / 2.0 / 32.0));
        assert_eq!(served_percent(&[busy], &[Class::Small]), 75.0);
    }

    #[test]
    fn the_json_has_exactly_the_documented_keys() {
        let value = serde_json::to_value(Figures::of(&[])).unwrap();
        let keys: Vec<&String> = value.as_object().unwrap().keys().collect();
        let want = [
            "allocated_percent",
            "gpus_free_min",
            "gpus_in_use_mean",
            "pods_waiting_peak",
            "served_percent",
            "utilization_percent",
        ];
        assert_eq!(keys, want);
    }
}
