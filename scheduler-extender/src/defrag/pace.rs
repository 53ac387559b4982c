//! How often pods may be moved, and when to stop for a while: pure.
//!
//! So many an hour, so many for each hundred pods placed, one at a time. A move that did not help, or whose pod has found
//! no place, is followed by a pause that doubles with each such move, and ends with one that helps.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use crate::book::Book;

const HOUR: Duration = Duration::from_secs(3600);
/// Over so many placements the other bound goes.
const PLACEMENTS: u64 = 100;
/// The first pause, and the longest.
const PAUSE: (Duration, Duration) = (Duration::from_secs(300), Duration::from_secs(3600));
/// How long the pod that replaces a moved one may wait for its place.
pub const SETTLES: Duration = Duration::from_secs(60);

/// What may be done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Budget {
    /// Moves in any hour, at most.
    pub per_hour: u32,
    /// Moves in any hundred placements, at most.
    pub per_100_placements: u32,
}

/// Why nobody is moved now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wait {
    /// The hour's moves are spent.
    Hour,
    /// Those of the last hundred placements are.
    Placements,
    /// The last move did not help.
    Pause,
    /// The last pod that was moved has not found its place yet.
    Settles,
}

impl Wait {
    /// The same as a word, for metrics.
    pub fn label(self) -> &'static str {
        match self {
            Self::Hour => "hour",
            Self::Placements => "placements",
            Self::Pause => "pause",
            Self::Settles => "settles",
        }
    }
}

/// What was done.
#[derive(Debug)]
pub struct Pace {
    budget: Budget,
    /// When pods were moved, and how many had been placed by then: as far as it still counts.
    moves: VecDeque<(Instant, u64)>,
    /// Until when nobody is moved, and how long that pause was.
    pause: Option<(Instant, Duration)>,
    /// The controller of the pod that was moved, until its next one is placed; and by when that must be, once it is known
    /// what became of the pod that room was made for.
    settles: Option<(String, Option<Instant>)>,
}

impl Pace {
    /// Nothing was done yet.
    pub fn new(budget: Budget) -> Self {
        Self { budget, moves: VecDeque::new(), pause: None, settles: None }
    }

    /// Whether a pod may be moved now; `placements` counts the pods that were placed.
    ///
    /// # Errors
    /// [`Wait`].
    pub fn may(&self, now: Instant, placements: u64) -> Result<(), Wait> {
        let most = |count: u32| usize::try_from(count).unwrap_or(usize::MAX);
        let in_hour = self.moves.iter().filter(|(at, _)| now.saturating_duration_since(*at) < HOUR);
        let in_hundred =
            self.moves.iter().filter(|(_, placed)| placements.saturating_sub(*placed) < PLACEMENTS);
        if self.settles.is_some() {
            Err(Wait::Settles)
        } else if self.pause.is_some_and(|(until, _)| now < until) {
            Err(Wait::Pause)
        } else if in_hour.count() >= most(self.budget.per_hour) {
            Err(Wait::Hour)
        } else if in_hundred.count() >= most(self.budget.per_100_placements) {
            Err(Wait::Placements)
        } else {
            Ok(())
        }
    }

    /// A pod of that controller is moved.
    pub fn moved(&mut self, owner: &str, now: Instant, placements: u64) {
        let counts = |(at, placed): &(Instant, u64)| {
            now.saturating_duration_since(*at) < HOUR || placements.saturating_sub(*placed) < PLACEMENTS
        };
        self.moves.retain(counts);
        self.moves.push_back((now, placements));
        self.settles = Some((owner.to_owned(), None));
    }

    /// The pod that room was made for got its place, or did not; or nobody will know. Answers with how long nobody is
    /// moved, where it did not.
    pub fn ended(&mut self, helped: Option<bool>, now: Instant) -> Option<Duration> {
        if helped == Some(false) {
            self.settles = None;
            return Some(self.stop(now));
        }
        if helped == Some(true) {
            self.pause = None;
        }
        self.settles.iter_mut().for_each(|(_, until)| *until = Some(now + SETTLES));
        None
    }

    /// Looks whether the pod that replaces the moved one has its place. Answers with how long nobody is moved, where it
    /// has found none in time.
    pub fn look(&mut self, book: &Book, now: Instant) -> Option<Duration> {
        let (owner, Some(until)) = self.settles.as_ref()? else { return None };
        let is_its = |(_, uid): &(String, String)| uid == owner;
        let waits = book.waiting(None).any(|(_, pod)| pod.owner.as_ref().is_some_and(is_its));
        if waits && now < *until {
            return None;
        }
        self.settles = None;
        waits.then(|| self.stop(now))
    }

    fn stop(&mut self, now: Instant) -> Duration {
        let long = self.pause.map_or(PAUSE.0, |(_, last)| (last * 2).min(PAUSE.1));
        self.pause = Some((now + long, long));
        long
    }
}
