//! The moves that gain most while nobody waits.

use std::collections::HashSet;

use super::cluster::Cluster;
use super::search::Search;
use super::{Holder, Limits, Move, Who};
use crate::pack::Chosen;

/// Some moves that belong together, and what they gain.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Gain {
    /// The steps, in their order.
    pub moves: Vec<Move>,
    /// What fits more than before, in thousandths of a GPU, each expected shape by itself.
    pub gained: u64,
    /// What the moves cost together.
    pub move_cost: u64,
}

/// Finds moves that let more of the expected requests in, most gain for each move first.
///
/// Looked at are each pod by itself, and all pods of one GPU together. Each pod moves once at most. The cluster is as
/// before when this returns; the answers build on each other, so they are to be carried out in their order, and may be
/// ended after any of them.
pub fn gather(
    cluster: &mut Cluster,
    holders: &[Holder],
    may: &dyn Fn(Who, usize) -> bool,
    limits: Limits,
) -> Vec<Gain> {
    let mut search = Search::new(cluster, holders, may, limits.tries);
    let start = search.mark();
    let mut gains: Vec<Gain> = Vec::new();
    while let Some((bundle, gain)) = best_bundle(&mut search, limits.moves) {
        if !bundle.carry_out(&mut search) {
            break;
        }
        gains.push(gain);
    }
    search.undo(start);
    gains
}

/// Holders that move together, and the GPU that they leave empty, if that is what it is about.
struct Bundle {
    holders: Vec<usize>,
    empties: Option<(usize, usize)>,
}

fn best_bundle(search: &mut Search<'_>, most: usize) -> Option<(Bundle, Gain)> {
    let left = most.checked_sub(search.moves.len()).filter(|&left| left > 0)?;
    let before = search.cluster.value();
    let mut best: Option<(Bundle, Gain)> = None;
    for bundle in bundles(search, left) {
        if search.tries == 0 {
            break;
        }
        search.tries -= 1;
        let mark = search.mark();
        let cost = search.cost();
        if bundle.carry_out(search) {
            let gain = Gain {
                moves: search.moves[mark.1..].to_vec(),
                gained: search.cluster.value().saturating_sub(before),
                move_cost: search.cost() - cost,
            };
            let is_better = |known: &Gain| {
                let each = |gain: &Gain, of: &Gain| u128::from(gain.gained) * of.moves.len() as u128;
                let (new, old) = (each(&gain, known), each(known, &gain));
                new > old || (new == old && gain.move_cost < known.move_cost)
            };
            if gain.gained > 0 && best.as_ref().is_none_or(|(_, known)| is_better(known)) {
                best = Some((bundle, gain));
            }
        }
        search.undo(mark);
    }
    best
}

/// What could move together, each kind of it once.
fn bundles(search: &mut Search<'_>, most: usize) -> Vec<Bundle> {
    let mut seen = HashSet::new();
    let mut bundles = Vec::new();
    for node in 0..search.cluster.len() {
        let class = search.cluster.class(node);
        let here: Vec<usize> = search.here(node).collect();
        let single = here.into_iter().map(|holder| Bundle { holders: vec![holder], empties: None });
        let of_gpu = (0..search.cluster.gpus(node).len())
            .map(|gpu| Bundle { holders: search.on_gpu(node, gpu), empties: Some((node, gpu)) })
            .filter(|bundle| (1..=most).contains(&bundle.holders.len()));
        for bundle in single.chain(of_gpu.collect::<Vec<_>>()) {
            let look: Option<Vec<_>> = bundle
                .holders
                .iter()
                .map(|&holder| {
                    let holder = &search.holders[holder];
                    let places: Vec<(usize, usize)> = holder.chosen().map(|c| (c.gpu, c.offer)).collect();
                    holder.move_cost.map(|cost| (holder.kind, cost, places))
                })
                .collect();
            // A bundle with one who must stay does not move.
            let Some(look) = look else { continue };
            if seen.insert((class, bundle.empties.map(|(_, gpu)| gpu), look)) {
                bundles.push(bundle);
            }
        }
    }
    bundles
}

impl Bundle {
    /// Moves everybody, largest first. On failure, undo.
    fn carry_out(&self, search: &mut Search<'_>) -> bool {
        let guard = self.empties.map(|(node, gpu)| {
            let offers = search.cluster.gpus(node).get(gpu).map_or(0, |state| state.gpu.kind.offers().len());
            let all: Vec<Chosen> = (0..offers).map(|offer| Chosen { gpu, offer }).collect();
            // Every offer counts as full while they look for a new place, so that it is on another GPU.
            let full = |chosen: &Chosen| {
                let state = &search.cluster.gpus(node)[gpu];
                std::iter::repeat_n(*chosen, state.room(chosen.offer) as usize).collect::<Vec<_>>()
            };
            (node, all.iter().flat_map(full).collect::<Vec<Chosen>>())
        });
        if let Some((node, guard)) = &guard {
            search.take(*node, guard.clone());
        }
        let mut holders = self.holders.clone();
        holders.sort_by_key(|&holder| std::cmp::Reverse(search.size(holder)));
        let moved = holders.into_iter().all(|holder| search.relocate(holder, 0));
        if let Some((node, guard)) = guard {
            search.give_back(node, guard);
        }
        moved
    }
}
