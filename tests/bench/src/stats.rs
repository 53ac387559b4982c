//! Times, as people read them.

use std::time::Duration;

/// Durations of one kind of call.
#[derive(Default)]
pub(crate) struct Times(Vec<Duration>);

impl Times {
    /// Adds one.
    pub(crate) fn push(&mut self, time: Duration) {
        self.0.push(time);
    }

    /// How many there are.
    pub(crate) fn len(&self) -> usize {
        self.0.len()
    }

    /// What so great a share of the times stays below or at, in milliseconds.
    pub(crate) fn at(&mut self, share: f64) -> f64 {
        self.0.sort_unstable();
        let rank = (share * self.0.len() as f64).ceil() as usize;
        self.0.get(rank.saturating_sub(1)).copied().unwrap_or_default().as_secs_f64() * 1e3
    }

    /// Prints the median, the 99th percentile and the worst.
    pub(crate) fn print(mut self, what: &str) {
        let (p50, p99, worst) = (self.at(0.5), self.at(0.99), self.at(1.0));
        println!(
            "  {what:<58} p50 {p50:>8.3} ms   p99 {p99:>8.3} ms   worst {worst:>8.3} ms   n {}",
            self.0.len()
        );
    }
}

/// One figure, once for each run.
#[derive(Default)]
pub(crate) struct Runs(Vec<f64>);

impl Runs {
    /// Adds a run's.
    pub(crate) fn push(&mut self, figure: f64) {
        self.0.push(figure);
    }

    /// The least, the median and the greatest; `None` of no run. Of an even number, the median is the mean of the
    /// two in the middle.
    pub(crate) fn spread(&self) -> Option<(f64, f64, f64)> {
        let mut sorted = self.0.clone();
        sorted.sort_unstable_by(f64::total_cmp);
        let (least, greatest) = (*sorted.first()?, *sorted.last()?);
        let (low, high) = (sorted.get((sorted.len() - 1) / 2)?, sorted.get(sorted.len() / 2)?);
        Some((least, f64::midpoint(*low, *high), greatest))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_by_the_nearest_rank_and_medians_between_two() {
        let mut times = Times::default();
        (1..=100).rev().for_each(|ms| times.push(Duration::from_millis(ms)));
        assert_eq!((times.at(0.5), times.at(0.99), times.at(1.0)), (50.0, 99.0, 100.0));
        let mut runs = Runs::default();
        assert_eq!(runs.spread(), None);
        [4.0, 1.0, 3.0].into_iter().for_each(|figure| runs.push(figure));
        assert_eq!(runs.spread(), Some((1.0, 3.0, 4.0)));
        runs.push(2.0);
        assert_eq!(runs.spread(), Some((1.0, 2.5, 4.0)));
    }
}
