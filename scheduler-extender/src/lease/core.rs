//! Who holds a Lease, decided as client-go decides it: pure, with time as an argument.
//!
//! No clock but our own is trusted. A holder's `renewTime` says nothing about when it was written; what counts is how
//! long *we* have not seen the record change. So a clock that is wrong or jumps, ours or another's, makes no second
//! holder.
//!
//! A Lease is no fence: a holder that was stopped for a while may go on for a moment when it wakes. Whatever is done
//! under one must be harmless when two do it.

use std::time::{Duration, Instant};

use jiff::Timestamp;

use crate::clock::Now;

/// How long things take, as client-go's components have it by default.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Timing {
    /// How long a record must stand unchanged before another takes it.
    pub lease: Duration,
    /// How long a holder goes on without having renewed it: shorter, so that it has ended when another begins.
    pub renew: Duration,
    /// How often it is looked at.
    pub retry: Duration,
}

impl Timing {
    /// client-go's.
    pub const DEFAULT: Self = Self {
        lease: Duration::from_secs(15),
        renew: Duration::from_secs(10),
        retry: Duration::from_secs(2),
    };
}

/// What a Lease says.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Record {
    /// Who holds it; empty where nobody does.
    pub holder: String,
    /// How long it stands, as its holder says.
    pub duration_seconds: u32,
    /// When it was taken.
    pub acquired: Option<Timestamp>,
    /// When it was written last.
    pub renewed: Option<Timestamp>,
    /// How often it changed hands.
    pub transitions: u32,
    /// The API server's version of what was read, which changes with each write: a holder whose clock stands still
    /// renews all the same. Empty in what is to be written.
    pub version: String,
}

/// What to do next.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    /// Somebody else holds it.
    Wait,
    /// Make it.
    Create(Record),
    /// Write this over what was read.
    Update(Record),
}

/// One who wants a Lease.
#[derive(Debug)]
pub struct Elector {
    identity: String,
    timing: Timing,
    /// The record that was seen last, and since when.
    observed: Option<(Record, Instant)>,
    /// Until when it counts as ours.
    held_until: Option<Instant>,
}

impl Elector {
    /// Wants it under this name, which nobody else has.
    pub fn new(identity: String, timing: Timing) -> Self {
        Self { identity, timing, observed: None, held_until: None }
    }

    /// What to do about a Lease that was just read; `None` where there is none.
    pub fn step(&mut self, read: Option<&Record>, now: Now) -> Step {
        let Some(read) = read else {
            self.observed = None;
            return Step::Create(self.record(None, now));
        };
        match &mut self.observed {
            Some((known, _)) if known == read => {}
            observed => *observed = Some((read.clone(), now.monotonic)),
        }
        let since = self.observed.as_ref().map_or(now.monotonic, |(_, since)| *since);
        let stands = Duration::from_secs(read.duration_seconds.into());
        let is_ours = read.holder == self.identity;
        if is_ours || read.holder.is_empty() || now.monotonic.saturating_duration_since(since) >= stands {
            Step::Update(self.record(Some(read), now))
        } else {
            Step::Wait
        }
    }

    /// The write that a step asked for succeeded; `asked` is when the step was made, not when the answer came.
    pub fn written(&mut self, record: Record, asked: Instant) {
        self.held_until = Some(asked + self.timing.renew);
        self.observed = Some((record, asked));
    }

    /// Until when it is ours without another write; `None` where it is not.
    pub fn held_until(&self, now: Instant) -> Option<Instant> {
        self.held_until.filter(|until| now < *until)
    }

    /// The record that lets the next one begin at once; `None` where it is not ours to give.
    pub fn release(&mut self, now: Now) -> Option<Record> {
        self.held_until(now.monotonic)?;
        self.held_until = None;
        let (known, _) = self.observed.as_ref()?;
        Some(Record { holder: String::new(), duration_seconds: 1, renewed: Some(now.wall), ..known.clone() })
    }

    fn record(&self, read: Option<&Record>, now: Now) -> Record {
        let before = read.filter(|read| read.holder == self.identity);
        let seconds = self.timing.lease.as_secs().try_into().unwrap_or(u32::MAX);
        Record {
            holder: self.identity.clone(),
            duration_seconds: seconds,
            acquired: before.and_then(|before| before.acquired).or(Some(now.wall)),
            renewed: Some(now.wall),
            transitions: match (before, read) {
                (Some(before), _) => before.transitions,
                (None, Some(read)) => read.transitions.saturating_add(1),
                (None, None) => 0,
            },
            version: String::new(),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn at(start: Instant, seconds: u64, wall: i64) -> Now {
        Now {
            monotonic: start + Duration::from_secs(seconds),
            wall: Timestamp::from_second(1_795_510_800 + wall).unwrap(),
        }
    }

    fn updated(step: Step) -> Record {
        match step {
            Step::Update(record) | Step::Create(record) => record,
            Step::Wait => panic!("it waits"),
        }
    }

    #[test]
    fn another_takes_it_only_when_it_has_not_changed_for_its_whole_duration() {
        let start = Instant::now();
        let (mut a, mut b) =
            (Elector::new("a".into(), Timing::DEFAULT), Elector::new("b".into(), Timing::DEFAULT));
        let record = updated(a.step(None, at(start, 0, 0)));
        a.written(record.clone(), start);
        assert_eq!(b.step(Some(&record), at(start, 5, 0)), Step::Wait);
        assert_eq!(b.step(Some(&record), at(start, 19, 0)), Step::Wait, "it was seen 14 s ago");
        let renewed = updated(a.step(Some(&record), at(start, 19, 1)));
        assert_eq!((renewed.transitions, renewed.acquired), (0, record.acquired));
        assert_eq!(b.step(Some(&renewed), at(start, 20, 0)), Step::Wait);
        assert_eq!(b.step(Some(&renewed), at(start, 34, 0)), Step::Wait);
        let taken = updated(b.step(Some(&renewed), at(start, 35, 0)));
        assert_eq!((&*taken.holder, taken.transitions), ("b", 1));
    }

    #[test]
    fn the_walls_clock_decides_nothing() {
        let start = Instant::now();
        let mut b = Elector::new("b".into(), Timing::DEFAULT);
        let old = Record { holder: "a".into(), duration_seconds: 15, ..Record::default() };
        let old = Record { renewed: Some(Timestamp::from_second(0).unwrap()), ..old };
        assert_eq!(b.step(Some(&old), at(start, 0, 0)), Step::Wait);
        assert_eq!(b.step(Some(&old), at(start, 1, 1_000_000)), Step::Wait);
    }

    #[test]
    fn who_cannot_renew_it_ends_before_another_begins() {
        let start = Instant::now();
        let mut a = Elector::new("a".into(), Timing::DEFAULT);
        let record = updated(a.step(None, at(start, 0, 0)));
        a.written(record, start);
        assert!(a.held_until(start + Duration::from_millis(9_999)).is_some());
        assert!(a.held_until(start + Duration::from_secs(10)).is_none());
    }

    #[test]
    fn one_that_is_given_back_is_free_at_once() {
        let start = Instant::now();
        let (mut a, mut b) =
            (Elector::new("a".into(), Timing::DEFAULT), Elector::new("b".into(), Timing::DEFAULT));
        assert_eq!(a.release(at(start, 0, 0)), None);
        let record = updated(a.step(None, at(start, 0, 0)));
        a.written(record, start);
        let free = a.release(at(start, 1, 1)).unwrap();
        assert_eq!(a.held_until(start + Duration::from_secs(1)), None);
        assert_eq!(updated(b.step(Some(&free), at(start, 1, 1))).holder, "b");
    }

    /// Two with clocks of their own walls, one record, and writes that only succeed on what was read.
    #[derive(Debug, Clone)]
    struct Turn {
        who: usize,
        seconds: u64,
        wall: i64,
        lost: bool,
    }

    fn turn() -> impl Strategy<Value = Turn> {
        (0_usize..3, 0_u64..8, -5_000_i64..5_000, prop::bool::weighted(0.2))
            .prop_map(|(who, seconds, wall, lost)| Turn { who, seconds, wall, lost })
    }

    proptest! {
        #[test]
        fn no_two_hold_it_at_once(turns in prop::collection::vec(turn(), 1..200)) {
            let start = Instant::now();
            let mut electors: Vec<Elector> =
                (0..3).map(|n| Elector::new(format!("e{n}"), Timing::DEFAULT)).collect();
            let (mut stored, mut seconds, mut writes): (Option<Record>, u64, u64) = (None, 0, 0);
            for Turn { who, seconds: passed, wall, lost } in turns {
                seconds += passed;
                let now = at(start, seconds, wall);
                let step = electors[who].step(stored.as_ref(), now);
                if let Step::Create(record) | Step::Update(record) = step {
                    writes += 1;
                    stored = Some(Record { version: writes.to_string(), ..record.clone() });
                    // An answer that is lost leaves the write in place and its writer none the wiser.
                    if !lost {
                        electors[who].written(record, now.monotonic);
                    }
                }
                let holders = electors.iter().filter(|it| it.held_until(now.monotonic).is_some()).count();
                prop_assert!(holders <= 1, "{holders} hold it");
            }
        }
    }
}
