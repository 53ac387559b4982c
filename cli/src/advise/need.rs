//! What a model needs, and so which way of using a GPU comes first: the table of `docs/strategies.md`.

use serde::Serialize;
use stowage_shared::units::MemoryMib;

use crate::flags::Advise;

/// Who must answer within so many milliseconds cannot wait for others' turns on a GPU.
pub const HURRY_MS: u32 = 100;
/// Models up to this size are worth a try without a GPU.
pub const TINY: MemoryMib = MemoryMib(256);
/// What is left over of a slice or a share.
const SPARE_PERCENT: u64 = 10;

/// What a model needs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Need {
    /// What it takes of a GPU's memory under load.
    pub memory: MemoryMib,
    /// Within how many milliseconds it must answer.
    pub latency_ms: Option<u32>,
    /// How many requests come in a second.
    pub requests_per_second: Option<u32>,
    /// Whether its neighbours must not be able to read its memory, or take it down.
    pub isolation: bool,
    /// Whether nobody waits for its answers.
    pub batch: bool,
}

/// A way of using a GPU.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Strategy {
    /// A whole GPU.
    Dedicated,
    /// A MIG slice.
    Mig,
    /// A share of a GPU, by time or by MPS.
    TimeSlicing,
    /// No GPU.
    Cpu,
}

impl Strategy {
    /// Its name, as the table of `docs/strategies.md` heads its columns.
    pub fn word(self) -> &'static str {
        match self {
            Self::Dedicated => "dedicated",
            Self::Mig => "MIG",
            Self::TimeSlicing => "time-slicing",
            Self::Cpu => "CPU",
        }
    }
}

impl Need {
    /// As the flags say it.
    pub fn of(flags: &Advise) -> Self {
        Self {
            memory: flags.model_size,
            latency_ms: flags.latency_ms,
            requests_per_second: flags.requests_per_second,
            isolation: flags.isolation,
            batch: flags.batch,
        }
    }

    /// The memory that is asked for: a tenth is left over.
    pub fn with_spare(&self) -> MemoryMib {
        MemoryMib(self.memory.0.saturating_add(self.memory.0.saturating_mul(SPARE_PERCENT).div_ceil(100)))
    }

    /// Whether it cannot wait for others' turns.
    pub fn is_hurried(&self) -> bool {
        self.latency_ms.is_some_and(|ms| ms <= HURRY_MS)
    }

    /// How many replicas are busy all the time if each request takes all of its milliseconds, in thousandths. It is the
    /// most that there can be: what a request really takes is to be measured.
    pub fn busy_milli(&self) -> Option<u64> {
        Some(u64::from(self.requests_per_second?) * u64::from(self.latency_ms?))
    }

    /// The strategies, the best first, and why that one is; `largest` is the largest GPU of the cluster.
    pub fn order(&self, largest: Option<MemoryMib>) -> (Vec<Strategy>, String) {
        use Strategy::{Cpu, Dedicated, Mig, TimeSlicing};
        let busy = self.busy_milli().is_some_and(|milli| milli >= 500);
        if largest.is_some_and(|largest| self.with_spare().0 > largest.0 / 2) {
            return (vec![Dedicated, Mig, TimeSlicing, Cpu], "it takes more than half of a GPU".into());
        }
        let steady = match self.latency_ms {
            Some(ms) if self.is_hurried() => Some(format!("{ms} ms leave no time for others' turns")),
            _ => None,
        };
        let trust = self.isolation.then(|| "neighbours are kept apart in hardware".to_owned());
        let load = busy.then(|| "it is busy most of the time".to_owned());
        let reasons: Vec<String> = [trust, steady, load].into_iter().flatten().collect();
        if !reasons.is_empty() {
            return (vec![Mig, Dedicated, TimeSlicing, Cpu], reasons.join(", and "));
        }
        if self.memory <= TINY {
            return (
                vec![Cpu, TimeSlicing, Mig, Dedicated],
                "so small a model is often fast without a GPU".into(),
            );
        }
        let why = match (self.batch, self.latency_ms) {
            (true, _) => "nobody waits for its answers".to_owned(),
            (_, Some(ms)) => format!("{ms} ms leave time for others' turns"),
            _ => "no latency was said, so it may wait for others' turns".to_owned(),
        };
        (vec![TimeSlicing, Mig, Dedicated, Cpu], why)
    }
}

#[cfg(test)]
mod tests {
    use super::Strategy::{Cpu, Dedicated, Mig, TimeSlicing};
    use super::*;

    #[track_caller]
    fn check(mib: u64, change: impl FnOnce(&mut Need), want: Strategy, because: &str) {
        let mut need = Need {
            memory: MemoryMib(mib),
            latency_ms: None,
            requests_per_second: None,
            isolation: false,
            batch: false,
        };
        change(&mut need);
        let (order, why) = need.order(Some(MemoryMib(40_960)));
        assert_eq!((order[0], order.len()), (want, 4));
        assert!(why.contains(because), "{why}");
    }

    #[test]
    fn the_first_strategy_is_the_table_of_the_strategies() {
        check(30_000, |_| {}, Dedicated, "more than half");
        check(30_000, |need| need.batch = true, Dedicated, "more than half");
        check(3_072, |need| need.latency_ms = Some(50), Mig, "50 ms");
        check(3_072, |need| need.isolation = true, Mig, "kept apart");
        check(3_072, |need| need.latency_ms = Some(500), TimeSlicing, "500 ms leave time");
        check(3_072, |need| need.batch = true, TimeSlicing, "nobody waits");
        check(1_024, |need| need.latency_ms = Some(20), Mig, "20 ms");
        check(1_024, |_| {}, TimeSlicing, "no latency");
        check(100, |_| {}, Cpu, "without a GPU");
        check(100, |need| need.latency_ms = Some(5), Mig, "5 ms");
    }

    #[test]
    fn who_is_busy_all_the_time_shares_with_nobody() {
        check(
            3_072,
            |need| (need.latency_ms, need.requests_per_second) = (Some(500), Some(10)),
            Mig,
            "busy most of the time",
        );
        check(
            3_072,
            |need| (need.latency_ms, need.requests_per_second) = (Some(400), Some(1)),
            TimeSlicing,
            "400 ms",
        );
    }
}
