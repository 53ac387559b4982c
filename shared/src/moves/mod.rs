//! Which few pods to move so that a waiting request fits, or so that more requests to come do.
//!
//! Placement alone cannot keep GPUs unfragmented, since nobody knows who leaves next. A few moves can: [`make_room`]
//! looks for the fewest that let a request in, [`gather`] for those that gain most while nobody waits. Where the moved
//! pods go is what the [packing core](crate::pack) chooses.
//!
//! A move is one pod that is started at its new place before it leaves the old one. So each step is legal by itself:
//! its place is free when its turn comes, whatever happens to the steps after it. Pure and bounded: it looks at
//! [`Limits::tries`] arrangements at most, and whoever asks carries the answer out or drops it.

mod cluster;
mod gather;
mod room;
mod search;
pub mod stays;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;

pub use self::cluster::Cluster;
pub use self::gather::{Gain, gather};
pub use self::room::{Room, make_room};
use crate::pack::{Chosen, Demand};
use crate::resource::ResourceName;

/// A pod that holds devices.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Holder {
    /// The place of its node in the [`Cluster`].
    pub node: usize,
    /// Holders of one kind may go to the same nodes, such as pods of one template. Of nodes in equal use whose holders
    /// are of equal kinds, only the first is looked at.
    pub kind: u32,
    /// What it asked for.
    pub demand: Demand,
    /// What it got.
    pub devices: BTreeMap<ResourceName, Vec<Chosen>>,
    /// What it costs to move it, in any unit as long as it is one for all; `None` where it must stay.
    pub move_cost: Option<u32>,
}

/// One step: a pod starts at a new place, then leaves its old one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Move {
    /// The place of the pod among the holders.
    pub holder: usize,
    /// The place of the node that it goes to.
    pub node: usize,
    /// The devices it gets there.
    pub devices: BTreeMap<ResourceName, Vec<Chosen>>,
}

/// Who is asked about when a node may be forbidden: by its labels, taints, CPU, or memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Who {
    /// The request that waits.
    Waiting,
    /// One of the holders.
    Holder(usize),
}

/// How far a search goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// The most moves.
    pub moves: usize,
    /// The most arrangements that are looked at.
    pub tries: u32,
}

impl Holder {
    /// All of its devices.
    pub fn chosen(&self) -> impl Iterator<Item = Chosen> + '_ {
        self.devices.values().flatten().copied()
    }
}
