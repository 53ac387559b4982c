//! Saying something at most so often.

use std::time::{Duration, Instant};

/// Lets one call through per period: for log lines about trouble that lasts.
#[derive(Debug)]
pub struct AtMostEvery {
    period: Duration,
    last: Option<Instant>,
}

impl AtMostEvery {
    /// The first call passes.
    pub fn new(period: Duration) -> Self {
        Self { period, last: None }
    }

    /// Whether it may be said now.
    pub fn may(&mut self) -> bool {
        let may = self.last.is_none_or(|last| last.elapsed() >= self.period);
        if may {
            self.last = Some(Instant::now());
        }
        may
    }

    /// The trouble is over: the next one is said at once. Tells whether anything had been said.
    pub fn reset(&mut self) -> bool {
        self.last.take().is_some()
    }
}
