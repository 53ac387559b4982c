//! Which of the nodes is best?
//!
//! kube-scheduler knows eleven scores, adds them to its own, and breaks ties at random. So one node alone gets
//! the highest, and the rest are spread over the others by what the placement would take away there.

use std::collections::BTreeSet;
use std::time::Instant;

use stowage_shared::pack::Cost;

use super::filter::{Verdict, held, verdicts};
use super::memo::{Judgement, Memo};
use crate::state::Snapshot;
use crate::wire::Asked;

/// kube-scheduler's `MaxExtenderPriority`.
pub const SCORE_MAX: u8 = 10;

/// Scores every node of a request, in its order: 10 for the best one, 0 to 9 for the rest by their rank, 0 where
/// the pod does not fit. All get 0 for a pod that asks for no GPU: we know nothing of what it needs.
pub fn prioritize<'a>(
    snapshot: &Snapshot,
    memo: &Memo,
    asked: &'a Asked<'_>,
    now: Instant,
) -> Vec<(&'a str, u8)> {
    let demand = match asked.pod.request(&snapshot.names) {
        Ok(request) if !request.is_empty() => request.demand(),
        _ => return asked.names().map(|name| (name, 0)).collect(),
    };
    let verdicts = verdicts(snapshot, memo, asked, &demand, now);
    let mut costs: Vec<(&str, Option<Cost>)> = Vec::with_capacity(verdicts.len());
    for (name, verdict) in verdicts {
        let cost = match verdict {
            Verdict::Judged(Judgement::Fits(cost)) => Some(cost),
            _ => None,
        };
        costs.push((name, cost));
    }
    // Where its devices are held, the pod costs nothing more.
    let held = held(snapshot, asked).map(|node| &**node);
    score(&costs, held)
}

/// Ranks nodes by cost. `held` is better than any; among equals the first by name is best, so that every replica
/// gives the same answer.
fn score<'a>(costs: &[(&'a str, Option<Cost>)], held: Option<&str>) -> Vec<(&'a str, u8)> {
    let fitting = costs.iter().filter_map(|&(name, cost)| {
        let cost = if held == Some(name) { Some(cost.unwrap_or_default()) } else { cost };
        cost.map(|cost| (held != Some(name), cost, name))
    });
    let best = fitting.min().map(|(_, _, name)| name);
    let rest = costs.iter().filter(|&&(name, _)| Some(name) != best).filter_map(|&(_, cost)| cost);
    let levels: Vec<Cost> = rest.collect::<BTreeSet<Cost>>().into_iter().collect();
    let score = |name: &str, cost: Option<Cost>| match cost {
        _ if Some(name) == best => SCORE_MAX,
        None => 0,
        Some(cost) => {
            let rank = levels.binary_search(&cost).unwrap_or_else(|at| at);
            // Up to ten levels have a score each; more share them evenly.
            let step = rank * usize::from(SCORE_MAX) / levels.len().max(usize::from(SCORE_MAX));
            SCORE_MAX - 1 - u8::try_from(step).unwrap_or(SCORE_MAX - 1)
        }
    };
    costs.iter().map(|&(name, cost)| (name, score(name, cost))).collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn cost(lost: u64) -> Cost {
        Cost { lost, ..Cost::default() }
    }

    #[track_caller]
    fn check(lost: &[Option<u64>], held: Option<&str>, want: &[u8]) {
        let names = ["a", "b", "c", "d", "e"];
        let costs: Vec<_> = names.into_iter().zip(lost).map(|(name, lost)| (name, lost.map(cost))).collect();
        let got: Vec<u8> = score(&costs, held).into_iter().map(|(_, score)| score).collect();
        assert_eq!(got, want);
    }

    #[test]
    fn the_best_has_a_ten_of_its_own_and_equals_go_by_name() {
        check(&[Some(3), Some(1), Some(2)], None, &[8, 10, 9]);
        check(&[Some(1), Some(1), Some(1)], None, &[10, 9, 9]);
        check(&[None, Some(5), None], None, &[0, 10, 0]);
        check(&[None, None], None, &[0, 0]);
    }

    #[test]
    fn the_node_where_devices_are_held_is_best() {
        check(&[Some(1), Some(9), Some(2)], Some("b"), &[9, 10, 8]);
        check(&[Some(1), None], Some("b"), &[9, 10]);
    }

    proptest! {
        #[test]
        fn scores_follow_costs(lost in prop::collection::vec(prop::option::of(0_u64..40), 1..60)) {
            let names: Vec<String> = (0..lost.len()).map(|i| format!("n{i:03}")).collect();
            let costs: Vec<_> = names.iter().zip(&lost).map(|(name, lost)| (name.as_str(), lost.map(cost))).collect();
            let scores = score(&costs, None);
            let tens = scores.iter().filter(|(_, score)| *score == SCORE_MAX).count();
            prop_assert_eq!(tens, usize::from(lost.iter().any(Option::is_some)));
            for ((_, one), lost_one) in scores.iter().zip(&lost) {
                for ((_, two), lost_two) in scores.iter().zip(&lost) {
                    if let (Some(lost_one), Some(lost_two)) = (lost_one, lost_two) {
                        prop_assert!(lost_one >= lost_two || one >= two, "cheaper nodes score no less");
                    }
                }
            }
        }
    }
}
