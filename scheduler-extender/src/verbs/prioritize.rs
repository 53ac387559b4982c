//! Which of the nodes is best?
//!
//! kube-scheduler knows eleven scores, adds them to its own, and breaks ties at random. So one node alone gets
//! the highest, and the rest are spread over the others by what the placement would take away there.

use std::time::Instant;

use stowage_shared::host::Host;
use stowage_shared::pack::Stands;
use stowage_shared::policy::Rank;

use super::judge::{Exactly, Verdict, Verdicts, held, verdicts};
use super::memo::Memo;
use crate::state::{KnownGpus, Snapshot};
use crate::wire::{Asked, Name};

/// kube-scheduler's `MaxExtenderPriority`.
pub const SCORE_MAX: u8 = 10;

/// Scores every node of a request, in its order: 10 for the best one, 0 to 9 for the rest by their rank, 0 where
/// the pod does not fit.
pub fn prioritize(snapshot: &Snapshot, memo: &Memo, asked: &Asked<'_>, now: Instant) -> Vec<u8> {
    let want = match asked.pod.want(&snapshot.names) {
        Ok(Some(want)) => want,
        Ok(None) => return without_gpus(snapshot, memo, asked, now),
        Err(_) => return vec![0; asked.names().len()],
    };
    let Verdicts { all, of } = verdicts(snapshot, memo, asked, &want, Exactly::Cost, now);
    let rank = |verdict: &Verdict| match verdict {
        Verdict::Judged(judgement) => judgement.rank(),
        _ => None,
    };
    let ranks: Vec<Option<Rank>> = all.iter().map(rank).collect();
    score(asked.names(), &ranks, &of, held(snapshot, asked))
}

/// A pod without GPUs goes where its CPU and memory are least missed by pods with. All get 0 where that is the same
/// everywhere, or where one of the nodes has no GPUs, or none of which we know: then it is kube-scheduler's choice alone.
fn without_gpus(snapshot: &Snapshot, memo: &Memo, asked: &Asked<'_>, now: Instant) -> Vec<u8> {
    let names = asked.names();
    let known = names.iter().map(|name| snapshot.node(name.text())?.usable(now).ok());
    let Some(nodes) = known.collect::<Option<Vec<&KnownGpus>>>() else { return vec![0; names.len()] };
    let shape = Stands::shape_without_gpus(Host::of_pod(&asked.pod.spec));
    let costs = memo.costs(snapshot, shape, nodes);
    if costs.iter().all(|cost| Some(cost) == costs.first()) {
        return vec![0; names.len()];
    }
    let ranks = costs.into_iter().map(|market| Some(Rank { market, ..Rank::default() }));
    score(names, &ranks.collect::<Vec<_>>(), &(0..names.len()).collect::<Vec<_>>(), None)
}

/// Orders nodes by rank, of which each node's is `ranks[rank_of[node]]`. `held` is better than any; among equals the first by name is best, so that every replica gives the same answer.
fn score(names: &[Name<'_>], ranks: &[Option<Rank>], rank_of: &[usize], held: Option<usize>) -> Vec<u8> {
    let Some(best) = held.or_else(|| best_of(names, ranks, rank_of)) else { return vec![0; names.len()] };
    let mut nodes_at = vec![0_usize; ranks.len()];
    for (node, &at) in rank_of.iter().enumerate() {
        nodes_at[at] += usize::from(node != best);
    }
    let rest = ranks.iter().zip(nodes_at).filter(|&(_, nodes)| nodes > 0).filter_map(|(&rank, _)| rank);
    let mut levels: Vec<Rank> = rest.collect();
    levels.sort_unstable();
    levels.dedup();
    let score = |rank: &Option<Rank>| match rank {
        None => 0,
        Some(rank) => {
            let level = levels.binary_search(rank).unwrap_or_else(|at| at);
            // Up to ten levels have a score each; more share them evenly.
            let step = level * usize::from(SCORE_MAX) / levels.len().max(usize::from(SCORE_MAX));
            SCORE_MAX - 1 - u8::try_from(step).unwrap_or(SCORE_MAX - 1)
        }
    };
    let scores: Vec<u8> = ranks.iter().map(score).collect();
    let mut answer: Vec<u8> = rank_of.iter().map(|&at| scores[at]).collect();
    answer[best] = SCORE_MAX;
    answer
}

/// The first by name of the nodes of the best rank.
fn best_of(names: &[Name<'_>], ranks: &[Option<Rank>], rank_of: &[usize]) -> Option<usize> {
    let best = rank_of.iter().filter_map(|&at| ranks[at]).min()?;
    let best = (0..names.len()).filter(|&node| ranks[rank_of[node]] == Some(best));
    best.min_by_key(|&node| names[node].text())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;
    use stowage_shared::pack::Cost;

    use super::*;
    use crate::wire::read_args;

    fn rank(lost: u64) -> Rank {
        Rank { cost: Cost { lost, ..Cost::default() }, ..Rank::default() }
    }

    /// The scores of nodes named n000, n001 and so on, each with a cost of its own.
    fn scores(lost: &[Option<u64>], held: Option<usize>) -> Vec<u8> {
        let names: Vec<String> = (0..lost.len()).map(|i| format!("n{i:03}")).collect();
        let body = json!({ "Pod": {}, "NodeNames": names }).to_string();
        let asked = read_args(body.as_bytes()).unwrap();
        let ranks: Vec<Option<Rank>> = lost.iter().map(|lost| lost.map(rank)).collect();
        score(asked.names(), &ranks, &(0..lost.len()).collect::<Vec<_>>(), held)
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
