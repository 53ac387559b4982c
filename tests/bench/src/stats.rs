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

    /// Prints the median, the 99th percentile and the worst.
    pub(crate) fn print(mut self, what: &str) {
        self.0.sort_unstable();
        let at = |share: f64| {
            let rank = (share * self.0.len() as f64).ceil() as usize;
            self.0.get(rank.saturating_sub(1)).copied().unwrap_or_default().as_secs_f64() * 1e3
        };
        let (p50, p99, worst) = (at(0.5), at(0.99), at(1.0));
        println!(
            "  {what:<58} p50 {p50:>8.3} ms   p99 {p99:>8.3} ms   worst {worst:>8.3} ms   n {}",
            self.0.len()
        );
    }
}
