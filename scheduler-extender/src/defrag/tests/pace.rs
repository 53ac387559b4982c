//! How often.

use std::time::{Duration, Instant};

use proptest::prelude::*;
use serde_json::json;

use super::super::pace::{Budget, Pace, SETTLES, Wait};
use crate::book::Book;
use crate::book::tests::waiting;
use crate::state::event::Change;

const BUDGET: Budget = Budget { per_hour: 2, per_100_placements: 3 };

fn minutes(count: u64) -> Duration {
    Duration::from_secs(60 * count)
}

/// A move that helps at once, and whose pod has its place at once.
fn moves(pace: &mut Pace, now: Instant, placements: u64) {
    pace.moved("r", now, placements);
    assert_eq!(pace.may(now, placements), Err(Wait::Settles), "one at a time");
    assert_eq!(pace.ended(Some(true), now), None);
    assert_eq!(pace.look(&Book::default(), now), None);
}

#[test]
fn so_many_are_moved_in_an_hour_and_for_each_hundred_pods_placed() {
    let (mut pace, start) = (Pace::new(BUDGET), Instant::now());
    for minute in [0, 10] {
        assert_eq!(pace.may(start + minutes(minute), 0), Ok(()));
        moves(&mut pace, start + minutes(minute), 0);
    }
    assert_eq!(pace.may(start + minutes(59), 0), Err(Wait::Hour));
    assert_eq!(pace.may(start + minutes(60), 0), Ok(()));
    moves(&mut pace, start + minutes(60), 50);
    assert_eq!(pace.may(start + minutes(200), 99), Err(Wait::Placements));
    assert_eq!(pace.may(start + minutes(200), 100), Ok(()), "those of long ago count no more");
}

#[test]
fn after_moves_that_did_not_help_the_pause_doubles_until_one_did() {
    let (mut pace, start) = (Pace::new(Budget { per_hour: 99, per_100_placements: 99 }), Instant::now());
    let mut now = start;
    for pause in [5, 10, 20, 40, 60, 60] {
        pace.moved("r", now, 0);
        assert_eq!(pace.ended(Some(false), now), Some(minutes(pause)));
        assert_eq!(pace.may(now + minutes(pause) - Duration::from_secs(1), 0), Err(Wait::Pause));
        now += minutes(pause);
        assert_eq!(pace.may(now, 0), Ok(()));
    }
    moves(&mut pace, now, 0);
    pace.moved("r", now, 0);
    assert_eq!(pace.ended(Some(false), now), Some(minutes(5)));
}

#[test]
fn a_moved_pod_whose_next_one_finds_no_place_ends_it_for_a_while() {
    let (mut pace, start) = (Pace::new(BUDGET), Instant::now());
    let mut book = Book::default();
    let mut next = waiting("next", 0, json!({}));
    next.owner = Some(("ReplicaSet".into(), "r".into()));
    pace.moved("r", start, 0);
    assert_eq!(pace.look(&book, start), None, "it may not have been made yet");
    assert_eq!(pace.may(start, 0), Err(Wait::Settles));
    book.apply_pod(Change::Applied(next));
    assert_eq!(pace.ended(Some(true), start), None);
    assert_eq!(pace.look(&book, start + SETTLES - Duration::from_secs(1)), None);
    assert_eq!(pace.look(&book, start + SETTLES), Some(minutes(5)));
    assert_eq!(pace.may(start + SETTLES, 0), Err(Wait::Pause));
}

proptest! {
    #[test]
    fn whatever_happens_no_budget_is_exceeded(
        per_hour in 0_u32..4,
        per_100_placements in 0_u32..4,
        steps in proptest::collection::vec((0_u64..40, 0_u64..40, prop::option::of(any::<bool>())), 1..200),
    ) {
        let budget = Budget { per_hour, per_100_placements };
        let (mut pace, start) = (Pace::new(budget), Instant::now());
        let (mut now, mut placements, mut done) = (start, 0, Vec::new());
        for (later, placed, helped) in steps {
            now += minutes(later);
            placements += placed;
            if pace.may(now, placements).is_ok() {
                pace.moved("r", now, placements);
                done.push((now, placements));
                pace.ended(helped, now);
            }
            pace.look(&Book::default(), now);
        }
        for (at, placed) in &done {
            let in_hour = done.iter().filter(|(other, _)| *other >= *at && *other < *at + minutes(60)).count();
            let in_hundred = done.iter().filter(|(_, other)| (*placed..placed + 100).contains(other)).count();
            prop_assert!(in_hour <= per_hour as usize);
            prop_assert!(in_hundred <= per_100_placements as usize);
        }
    }
}
