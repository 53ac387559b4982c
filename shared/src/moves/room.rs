//! The fewest moves that let a waiting request in.

use std::collections::BTreeMap;

use super::cluster::Cluster;
use super::search::Search;
use super::{Holder, Limits, Move, Who};
use crate::pack::{Chosen, Demand};
use crate::resource::ResourceName;

/// How a waiting request gets in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Room {
    /// The steps, in their order.
    pub moves: Vec<Move>,
    /// The node on which the request fits after them.
    pub node: usize,
    /// The devices that it gets there.
    pub devices: BTreeMap<ResourceName, Vec<Chosen>>,
    /// What the moves cost together.
    pub move_cost: u64,
    /// What moves and request take away from the requests to come, in thousandths of a GPU; negative where more fits
    /// than before.
    pub lost: i64,
}

/// Finds the fewest moves that let `demand` in; of as few, those that cost least and then leave most.
///
/// `may` says which nodes are allowed for whom. `None` where the limits forbid it, where no such moves are there or
/// where the search, which does not look at every arrangement of several moves, found none. The cluster is as before
/// when this returns.
pub fn make_room(
    cluster: &mut Cluster,
    holders: &[Holder],
    demand: &Demand,
    may: &dyn Fn(Who, usize) -> bool,
    limits: Limits,
) -> Option<Room> {
    let value = cluster.value();
    let mut search = Search::new(cluster, holders, may, limits.tries);
    for budget in 0..=limits.moves {
        let mut best: Option<Room> = None;
        for place in search.places(demand, Who::Waiting, budget) {
            let mark = search.mark();
            if search.clear(&place, budget) {
                let after = i64::try_from(search.cluster.value()).unwrap_or(i64::MAX);
                let room = Room {
                    moves: search.moves.clone(),
                    node: place.node,
                    devices: place.devices,
                    move_cost: search.cost(),
                    lost: i64::try_from(value).unwrap_or(i64::MAX).saturating_sub(after),
                };
                let better = |known: &Room| (room.move_cost, room.lost) < (known.move_cost, known.lost);
                if best.as_ref().is_none_or(better) {
                    best = Some(room);
                }
            }
            search.undo(mark);
        }
        if best.is_some() || search.tries == 0 {
            return best;
        }
    }
    None
}
