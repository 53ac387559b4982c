//! Nodes in equal state are one class: they are scored once.

use std::collections::HashMap;

use super::node::Node;

/// A number that no class had before: what was scored for another class in the same slot is told apart by it.
pub(super) type Stamp = u64;

/// The nodes in one state.
#[derive(Debug, Clone)]
pub(super) struct Class {
    /// The state, GPUs in ascending order of what they have idle.
    pub state: Node,
    /// What of it is of no use.
    pub potential: i64,
    /// Which nodes, by place.
    pub members: Vec<usize>,
    /// Tells it from others that had its slot.
    pub stamp: Stamp,
}

/// The classes of a fleet, each in a slot. Slots are used again, so there are never more than nodes.
#[derive(Debug, Clone, Default)]
pub(super) struct Classes {
    slots: Vec<Class>,
    by_state: HashMap<Node, usize>,
    free: Vec<usize>,
    stamps: Stamp,
    /// By node: its class's slot, and its place among the members.
    seats: Vec<(usize, usize)>,
}

impl Classes {
    /// All slots. Those without members are of no class now.
    pub fn slots(&self) -> &[Class] {
        &self.slots
    }

    /// Adds one more node.
    pub fn push(&mut self, node: &Node, potential: impl FnOnce(&Node) -> i64) {
        self.seats.push((0, 0));
        self.join(self.seats.len() - 1, node, potential);
    }

    /// Puts a node, which has changed, where it belongs now.
    pub fn update(&mut self, place: usize, node: &Node, potential: impl FnOnce(&Node) -> i64) {
        let (slot, seat) = self.seats[place];
        let class = &mut self.slots[slot];
        class.members.swap_remove(seat);
        if let Some(&moved) = class.members.get(seat) {
            self.seats[moved].1 = seat;
        }
        if class.members.is_empty() {
            self.by_state.remove(&class.state);
            self.free.push(slot);
        }
        self.join(place, node, potential);
    }

    fn join(&mut self, place: usize, node: &Node, potential: impl FnOnce(&Node) -> i64) {
        let mut state = node.clone();
        state.idle.sort_unstable();
        let slot = match self.by_state.get(&state) {
            Some(&slot) => slot,
            None => self.open(state, potential),
        };
        let members = &mut self.slots[slot].members;
        members.push(place);
        self.seats[place] = (slot, members.len() - 1);
    }

    fn open(&mut self, state: Node, potential: impl FnOnce(&Node) -> i64) -> usize {
        self.stamps += 1;
        let potential = potential(&state);
        let class = Class { state: state.clone(), potential, members: Vec::new(), stamp: self.stamps };
        let slot = match self.free.pop() {
            Some(slot) => {
                self.slots[slot] = class;
                slot
            }
            None => {
                self.slots.push(class);
                self.slots.len() - 1
            }
        };
        self.by_state.insert(state, slot);
        slot
    }
}
