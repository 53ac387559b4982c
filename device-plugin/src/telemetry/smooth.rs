//! What of a GPU's utilization is published: smoothed, and only where it has changed by much. Pure.

use std::collections::BTreeMap;
use std::time::Duration;

use stowage_shared::gpu_node::UtilizationStatus;

use crate::nvml::GpuUsage;

/// The least time between two changes of what is published.
pub const PUBLISH_EVERY: Duration = Duration::from_secs(60);
/// What a change must be at least, in points of per cent.
pub const PUBLISH_POINTS: f64 = 10.0;
/// How far back the average looks: what is older than this weighs little more than a third.
const MEMORY: Duration = Duration::from_secs(60);

/// Averages of every GPU, and what was published of them.
#[derive(Debug, Default)]
pub struct Smoother {
    gpus: BTreeMap<String, Averages>,
    published: BTreeMap<String, UtilizationStatus>,
    published_at: Option<Duration>,
}

#[derive(Debug, Clone, Copy)]
struct Averages {
    at: Duration,
    gpu: Option<f64>,
    memory: f64,
}

impl Smoother {
    /// Takes a sample of all GPUs at a time; what is published from now on, where that is something else.
    pub fn sample(
        &mut self,
        now: Duration,
        usage: &[GpuUsage],
    ) -> Option<BTreeMap<String, UtilizationStatus>> {
        self.gpus.retain(|uuid, _| usage.iter().any(|gpu| gpu.uuid == *uuid));
        for gpu in usage {
            let new = Averages { at: now, gpu: gpu.gpu_percent.map(f64::from), memory: memory_percent(gpu) };
            let averages = self.gpus.entry(gpu.uuid.clone()).or_insert(new);
            *averages = averages.towards(new);
        }
        let too_early = self.published_at.is_some_and(|at| now < at + PUBLISH_EVERY);
        if too_early || !self.differs() {
            return None;
        }
        self.published = self.gpus.iter().map(|(uuid, of)| (uuid.clone(), of.status())).collect();
        self.published_at = Some(now);
        Some(self.published.clone())
    }

    fn differs(&self) -> bool {
        let far = |average: f64, published: u8| (average - f64::from(published)).abs() >= PUBLISH_POINTS;
        self.gpus.len() != self.published.len()
            || self.gpus.iter().any(|(uuid, averages)| {
                self.published.get(uuid).is_none_or(|published| match (averages.gpu, published.gpu_percent) {
                    (Some(average), Some(known)) if far(average, known) => true,
                    (Some(_), None) | (None, Some(_)) => true,
                    _ => far(averages.memory, published.memory_percent),
                })
            })
    }
}

impl Averages {
    /// The average once `new` is in it: the longer ago the last sample, the less is left of what was before.
    fn towards(self, new: Self) -> Self {
        let kept = (-new.at.saturating_sub(self.at).as_secs_f64() / MEMORY.as_secs_f64()).exp();
        let mix = |old: f64, new: f64| old * kept + new * (1.0 - kept);
        let gpu = match (self.gpu, new.gpu) {
            (Some(old), Some(new)) => Some(mix(old, new)),
            (_, new) => new,
        };
        Self { at: new.at, gpu, memory: mix(self.memory, new.memory) }
    }

    fn status(self) -> UtilizationStatus {
        UtilizationStatus { gpu_percent: self.gpu.map(percent), memory_percent: percent(self.memory) }
    }
}

/// The used share of all memory that programs can have.
fn memory_percent(gpu: &GpuUsage) -> f64 {
    let (used, free) = (gpu.memory.used.0 as f64, gpu.memory.free.0 as f64);
    if used + free > 0.0 { used / (used + free) * 100.0 } else { 0.0 }
}

/// Whole points between 0 and 100.
fn percent(value: f64) -> u8 {
    value.round().clamp(0.0, 100.0) as u8
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use stowage_shared::units::MemoryMib;

    use super::*;
    use crate::nvml::MemoryUsage;

    fn usage(uuid: &str, gpu_percent: Option<u32>, used: u64) -> GpuUsage {
        GpuUsage {
            uuid: uuid.into(),
            gpu_percent,
            memory_copy_percent: gpu_percent,
            memory: MemoryUsage { used: MemoryMib(used), free: MemoryMib(100 - used) },
            processes: Vec::new(),
            slices: vec![],
        }
    }

    const fn at(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    #[test]
    fn the_first_sample_is_published_and_small_changes_are_not() {
        let mut smoother = Smoother::default();
        let first = smoother.sample(at(0), &[usage("a", Some(50), 20)]).unwrap();
        assert_eq!(first["a"], UtilizationStatus { gpu_percent: Some(50), memory_percent: 20 });
        for second in 1..600 {
            assert_eq!(smoother.sample(at(second), &[usage("a", Some(58), 25)]), None, "{second}");
        }
    }

    #[test]
    fn a_moment_of_work_is_smoothed_away_and_a_minute_of_it_is_not() {
        let mut smoother = Smoother::default();
        smoother.sample(at(0), &[usage("a", Some(0), 0)]);
        assert_eq!(smoother.sample(at(100), &[usage("a", Some(0), 0)]), None);
        for second in 101..106 {
            assert_eq!(smoother.sample(at(second), &[usage("a", Some(100), 0)]), None);
        }
        let busy = (106..200).find_map(|second| smoother.sample(at(second), &[usage("a", Some(100), 0)]));
        assert!(busy.unwrap()["a"].gpu_percent >= Some(10));
    }

    #[test]
    fn a_gpu_that_comes_or_goes_is_news_and_one_in_mig_mode_tells_memory_only() {
        let mut smoother = Smoother::default();
        smoother.sample(at(0), &[usage("a", Some(0), 0)]);
        assert_eq!(
            smoother.sample(at(30), &[usage("a", Some(0), 0), usage("b", None, 0)]),
            None,
            "too early"
        );
        let both = smoother.sample(at(60), &[usage("a", Some(0), 0), usage("b", None, 0)]).unwrap();
        assert_eq!(both["b"].gpu_percent, None);
        assert_eq!(smoother.sample(at(120), &[usage("a", Some(0), 0)]).unwrap().len(), 1);
    }

    proptest! {
        /// Whatever is measured: never more often than once a minute, and never far from the truth for long.
        #[test]
        fn changes_are_rare_and_a_steady_load_is_told(
            loads in prop::collection::vec((0u32..=100, 0u64..=100), 1..300),
        ) {
            let mut smoother = Smoother::default();
            let mut told = Vec::new();
            let mut last = None;
            let steady = *loads.last().unwrap();
            let samples = loads.into_iter().chain(std::iter::repeat_n(steady, 120));
            for (n, (gpu, memory)) in samples.enumerate() {
                let now = at(10 * n as u64);
                if let Some(all) = smoother.sample(now, &[usage("a", Some(gpu), memory)]) {
                    told.push(now);
                    last = Some(all["a"]);
                }
            }
            prop_assert!(told.windows(2).all(|pair| pair[1] - pair[0] >= PUBLISH_EVERY));
            let last = last.unwrap();
            prop_assert!((i64::from(last.gpu_percent.unwrap()) - i64::from(steady.0)).abs() <= 10);
            prop_assert!((i64::from(last.memory_percent) - steady.1 as i64).abs() <= 10);
        }
    }
}
