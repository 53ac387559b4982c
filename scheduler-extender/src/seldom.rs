//! Log lines that anybody could cause a thousand times a second, once in a while.

use std::sync::Mutex;
use std::time::{Duration, Instant};

/// Says when it is time again.
#[derive(Debug)]
pub struct Seldom {
    every: Duration,
    last: Mutex<Option<Instant>>,
}

impl Seldom {
    /// At most once in so much time.
    pub const fn every(every: Duration) -> Self {
        Self { every, last: Mutex::new(None) }
    }

    /// Whether it is time; if so, it is not again for a while.
    pub fn now(&self) -> bool {
        self.at(Instant::now())
    }

    fn at(&self, now: Instant) -> bool {
        // Who finds the lock taken leaves the line to the other.
        let Ok(mut last) = self.last.try_lock() else { return false };
        let due = last.is_none_or(|last| now.saturating_duration_since(last) >= self.every);
        if due {
            *last = Some(now);
        }
        due
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_time_once_in_a_while() {
        let seldom = Seldom::every(Duration::from_secs(60));
        let start = Instant::now();
        let at = |seconds| seldom.at(start + Duration::from_secs(seconds));
        assert_eq!([0, 1, 59, 60, 61, 120].map(at), [true, false, false, true, false, true]);
    }
}
