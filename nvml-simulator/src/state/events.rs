//! Events: what `nvmlEventSetWait` tells, above all XIDs.
//!
//! They are a short list in the state file, so that a test raises an XID in one process and the plugin in
//! another hears of it. A reader remembers how many events there have been when it began to listen; one
//! that sleeps through more than [`EVENTS_MAX`] misses the oldest, as with the driver's own buffer.

use serde::{Deserialize, Serialize};

use super::State;

/// How many events the state keeps.
pub const EVENTS_MAX: usize = 128;

/// One event.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Event {
    /// Index of the GPU.
    pub gpu: u32,
    /// One bit of NVML's `nvmlEventType*`.
    pub kind: u64,
    /// For an XID, its number.
    pub data: u64,
    /// The GPU instance it concerns; `None` for the whole GPU.
    pub gpu_instance: Option<u32>,
    /// The compute instance it concerns.
    pub compute_instance: Option<u32>,
}

impl State {
    pub(crate) fn push_event(&mut self, event: Event) {
        if self.events.len() >= EVENTS_MAX {
            self.events.remove(0);
        }
        self.events.push(event);
        self.event_count = self.event_count.saturating_add(1);
    }

    /// The events from number `since` on that are still kept, each with its number.
    pub(crate) fn events_since(&self, since: u64) -> impl Iterator<Item = (u64, &Event)> {
        let kept = u64::try_from(self.events.len()).unwrap_or(u64::MAX);
        let first = self.event_count.saturating_sub(kept);
        (first..).zip(&self.events).filter(move |(number, _)| *number >= since)
    }
}
