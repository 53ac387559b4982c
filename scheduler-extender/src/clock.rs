//! Time, as an argument.
//!
//! Two clocks, since each lies in its own way. Waits and ages are counted on the monotonic one, so that a step of
//! the wall clock expires nothing; the wall clock is only compared with timestamps that others wrote.

use std::time::Instant;

use jiff::Timestamp;

/// One moment on both clocks.
#[derive(Debug, Clone, Copy)]
pub struct Now {
    /// For waits and ages.
    pub monotonic: Instant,
    /// For timestamps in API objects.
    pub wall: Timestamp,
}

impl Now {
    /// Reads both clocks.
    pub fn read() -> Self {
        Self { monotonic: Instant::now(), wall: Timestamp::now() }
    }
}
