//! Which of the nodes is best?
//!
//! kube-scheduler knows eleven scores, adds them to its own, and breaks ties at random. So one node alone gets
//! the highest, and the rest are spread over the others by what the placement would take away there.

use std::collections::BTreeSet;
use std::time::Instant;

use stowage_shared::pack::Cost;

use super::judge::{Verdict, Verdicts, held, verdicts};
use super::memo::{Judgement, Memo};
use crate::state::Snapshot;
use crate::wire::{Asked, Name};

/// kube-scheduler's `MaxExtenderPriority`.
pub const SCORE_MAX: u8 = 10;

/// Scores every node of a request, in its order: 10 for the best one, 0 to 9 for the rest by their rank, 0 where
/// the pod does not fit. All get 0 for a pod that asks for no GPU: we know nothing of what it needs.
pub fn prioritize(snapshot: &Snapshot, memo: &Memo, asked: &Asked<'_>, now: Instant) -> Vec<u8> {
    let demand = match asked.pod.request(&snapshot.names) {
        Ok(request) if !request.is_empty() => request.demand(),
        _ => return vec![0; asked.names().len()],
    };
    let Verdicts { all, of } = verdicts(snapshot, memo, asked, &demand, now);
    let cost = |verdict: &Verdict| match verdict {
        Verdict::Judged(Judgement::Fits(cost)) => Some(*cost),
        _ => None,
    };
    let costs: Vec<Option<Cost>> = all.iter().map(cost).collect();
    score(asked.names(), &costs, &of, held(snapshot, asked))
}

/// Ranks nodes by cost, of which each node's is `costs[cost_of[node]]`. `held` is better than any, and costs nothing
/// more; among equals the first by name is best, so that every replica gives the same answer.
fn score(names: &[Name<'_>], costs: &[Option<Cost>], cost_of: &[usize], held: Option<usize>) -> Vec<u8> {
    let Some(best) = held.or_else(|| cheapest(names, costs, cost_of)) else { return vec![0; names.len()] };
    let mut nodes_at = vec![0_usize; costs.len()];
    for (node, &at) in cost_of.iter().enumerate() {
        nodes_at[at] += usize::from(node != best);
    }
    let rest = costs.iter().zip(nodes_at).filter(|&(_, nodes)| nodes > 0).filter_map(|(&cost, _)| cost);
    let levels: Vec<Cost> = rest.collect::<BTreeSet<Cost>>().into_iter().collect();
    let score = |cost: &Option<Cost>| match cost {
        None => 0,
        Some(cost) => {
            let rank = levels.binary_search(cost).unwrap_or_else(|at| at);
            // Up to ten levels have a score each; more share them evenly.
            let step = rank * usize::from(SCORE_MAX) / levels.len().max(usize::from(SCORE_MAX));
            SCORE_MAX - 1 - u8::try_from(step).unwrap_or(SCORE_MAX - 1)
        }
    };
    let scores: Vec<u8> = costs.iter().map(score).collect();
    let mut answer: Vec<u8> = cost_of.iter().map(|&at| scores[at]).collect();
    answer[best] = SCORE_MAX;
    answer
}

/// The first by name of the nodes that cost least.
fn cheapest(names: &[Name<'_>], costs: &[Option<Cost>], cost_of: &[usize]) -> Option<usize> {
    let least = cost_of.iter().filter_map(|&at| costs[at]).min()?;
    let cheapest = (0..names.len()).filter(|&node| costs[cost_of[node]] == Some(least));
    cheapest.min_by_key(|&node| names[node].text())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;
    use crate::wire::read_args;

    fn cost(lost: u64) -> Cost {
        Cost { lost, ..Cost::default() }
    }

    /// The scores of nodes named n000, n001 and so on, each with a cost of its own.
    fn scores(lost: &[Option<u64>], held: Option<usize>) -> Vec<u8> {
        let names: Vec<String> = (0..lost.len()).map(|i| format!("n{i:03}")).collect();
        let body = json!({ "Pod": {}, "NodeNames": names }).to_string();
        let asked = read_args(body.as_bytes()).unwrap();
        let costs: Vec<Option<Cost>> = lost.iter().map(|lost| lost.map(cost)).collect();
        score(asked.names(), &costs, &(0..lost.len()).collect::<Vec<_>>(), held)
    }

    #[track_caller]
    fn check(lost: &[Option<u64>], held: Option<usize>, want: &[u8]) {
        assert_eq!(scores(lost, held), want);
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
        check(&[Some(1), Some(9), Some(2)], Some(1), &[9, 10, 8]);
        check(&[Some(1), None], Some(1), &[9, 10]);
    }

    proptest! {
        #[test]
        fn scores_follow_costs(lost in prop::collection::vec(prop::option::of(0_u64..40), 1..60)) {
            let scores = scores(&lost, None);
            let tens = scores.iter().filter(|score| **score == SCORE_MAX).count();
            prop_assert_eq!(tens, usize::from(lost.iter().any(Option::is_some)));
            for (one, lost_one) in scores.iter().zip(&lost) {
                for (two, lost_two) in scores.iter().zip(&lost) {
                    if let (Some(lost_one), Some(lost_two)) = (lost_one, lost_two) {
                        prop_assert!(lost_one >= lost_two || one >= two, "cheaper nodes score no less");
                    }
                }
            }
        }
    }
}
