//! Moves that are tried and undone.

use std::cmp::Reverse;
use std::collections::{BTreeMap, HashSet};

use super::cluster::Cluster;
use super::{Holder, Move, Who};
use crate::gpu::Part;
use crate::pack::{Chosen, Demand};
use crate::resource::ResourceName;

/// A place for a request, and who is in its way.
#[derive(Debug, Clone)]
pub(super) struct Place {
    pub node: usize,
    pub devices: BTreeMap<ResourceName, Vec<Chosen>>,
    pub blockers: Vec<usize>,
}

/// A cluster in which moves are tried and undone.
pub(super) struct Search<'a> {
    pub cluster: &'a mut Cluster,
    pub holders: &'a [Holder],
    pub moves: Vec<Move>,
    pub tries: u32,
    may: &'a dyn Fn(Who, usize) -> bool,
    /// Holders by node.
    at: Vec<Vec<usize>>,
    /// What was taken (`true`) and given back since the search began.
    log: Vec<(bool, usize, Vec<Chosen>)>,
}

/// What to go back to.
pub(super) type Mark = (usize, usize);

impl<'a> Search<'a> {
    pub fn new(
        cluster: &'a mut Cluster,
        holders: &'a [Holder],
        may: &'a dyn Fn(Who, usize) -> bool,
        tries: u32,
    ) -> Self {
        let mut at = vec![Vec::new(); cluster.len()];
        for (i, holder) in holders.iter().enumerate() {
            if let Some(here) = at.get_mut(holder.node) {
                here.push(i);
            }
        }
        Self { cluster, holders, moves: Vec::new(), tries, may, at, log: Vec::new() }
    }

    pub fn mark(&self) -> Mark {
        (self.log.len(), self.moves.len())
    }

    pub fn undo(&mut self, (log, moves): Mark) {
        self.moves.truncate(moves);
        for (taken, node, devices) in self.log.drain(log..).rev() {
            if taken {
                self.cluster.give_back(node, devices);
            } else {
                self.cluster.take(node, devices);
            }
        }
    }

    pub fn take(&mut self, node: usize, devices: Vec<Chosen>) {
        self.cluster.take(node, devices.iter().copied());
        self.log.push((true, node, devices));
    }

    pub fn give_back(&mut self, node: usize, devices: Vec<Chosen>) {
        self.cluster.give_back(node, devices.iter().copied());
        self.log.push((false, node, devices));
    }

    /// What the moves cost so far.
    pub fn cost(&self) -> u64 {
        let cost = |step: &Move| u64::from(self.holders[step.holder].move_cost.unwrap_or(u32::MAX));
        self.moves.iter().map(cost).sum()
    }

    fn is_moved(&self, holder: usize) -> bool {
        self.moves.iter().any(|step| step.holder == holder)
    }

    /// The holders of a node that are still where they were, and those of one of its GPUs.
    pub fn here(&self, node: usize) -> impl Iterator<Item = usize> + '_ {
        self.at.get(node).into_iter().flatten().copied().filter(|&holder| !self.is_moved(holder))
    }

    pub fn on_gpu(&self, node: usize, gpu: usize) -> Vec<usize> {
        self.here(node)
            .filter(|&holder| self.holders[holder].chosen().any(|chosen| chosen.gpu == gpu))
            .collect()
    }

    /// Where a request could go if at most `most` holders went away. Of nodes that are alike the first one counts.
    pub fn places(&mut self, demand: &Demand, who: Who, most: usize) -> Vec<Place> {
        let mut seen = HashSet::new();
        let mut places = Vec::new();
        for node in 0..self.cluster.len() {
            if !(self.may)(who, node) {
                continue;
            }
            for place in self.places_on(node, demand, most) {
                let look = |&b: &usize| {
                    let Holder { kind, demand, move_cost, .. } = &self.holders[b];
                    (*kind, *move_cost, self.cluster.demand(demand))
                };
                let blockers: Vec<_> = place.blockers.iter().map(look).collect();
                let devices: Vec<(usize, usize)> =
                    place.devices.values().flatten().map(|c| (c.gpu, c.offer)).collect();
                if seen.insert((self.cluster.class(node), devices, blockers)) {
                    places.push(place);
                }
            }
        }
        places.sort_by_key(|place| place.blockers.len());
        places
    }

    /// For one device, every place on the node; for several, the one that the fewest holders are in the way of.
    fn places_on(&self, node: usize, demand: &Demand, most: usize) -> Vec<Place> {
        // Who has to go is found by counting; what shares of a size leave is not counted here.
        if demand.share.is_some() {
            return Vec::new();
        }
        let mut units: Vec<&ResourceName> = demand
            .devices
            .iter()
            .flat_map(|(resource, &count)| std::iter::repeat_n(resource, count as usize))
            .collect();
        units.sort_by_key(|resource| Reverse(self.largest(node, resource)));
        if let [resource] = units.as_slice() {
            let open = Place { node, devices: BTreeMap::new(), blockers: Vec::new() };
            return self.with_one_more(&open, resource, most);
        }
        let mut place = Place { node, devices: BTreeMap::new(), blockers: Vec::new() };
        for resource in units {
            let more = self.with_one_more(&place, resource, most);
            let fewest = more.into_iter().min_by_key(|place| (place.blockers.len(), self.cost_of(place)));
            match fewest {
                Some(next) => place = next,
                None => return Vec::new(),
            }
        }
        vec![place]
    }

    /// The ways to add one device to a place.
    fn with_one_more(&self, place: &Place, resource: &ResourceName, most: usize) -> Vec<Place> {
        let mut ways = Vec::new();
        for (g, state) in self.cluster.gpus(place.node).iter().enumerate() {
            for (offer, of) in state.gpu.kind.offers_of(resource) {
                let chosen = Chosen { gpu: g, offer };
                if of.distinct && place.devices.values().flatten().any(|&other| other == chosen) {
                    continue;
                }
                let Some(blockers) = self.blockers(place, chosen) else { continue };
                if blockers.len() <= most {
                    let mut way = Place { blockers, ..place.clone() };
                    way.devices.entry(resource.clone()).or_default().push(chosen);
                    ways.push(way);
                }
            }
        }
        ways
    }

    /// Who has to go for one more device, together with those who go already; `None` where that does not help.
    fn blockers(&self, place: &Place, chosen: Chosen) -> Option<Vec<usize>> {
        let mut gpu = self.cluster.gpus(place.node).get(chosen.gpu)?.clone();
        let on_gpu =
            |holder: usize| self.holders[holder].chosen().filter(|c| c.gpu == chosen.gpu).map(|c| c.offer);
        let mut blockers = place.blockers.clone();
        blockers.iter().flat_map(|&b| on_gpu(b)).for_each(|offer| gpu.occupancy.give_back(offer));
        for reserved in place.devices.values().flatten().filter(|c| c.gpu == chosen.gpu) {
            gpu.occupancy.take(reserved.offer);
        }
        if gpu.room(chosen.offer) > 0 {
            return Some(blockers);
        }
        let conflicts = gpu.gpu.kind.conflicts(chosen.offer);
        let mut others: Vec<(bool, u32, usize)> = self
            .on_gpu(place.node, chosen.gpu)
            .into_iter()
            .filter(|holder| !blockers.contains(holder))
            .filter_map(|holder| {
                let excludes = on_gpu(holder).any(|offer| conflicts >> offer & 1 == 1);
                let shares = on_gpu(holder).any(|offer| offer == chosen.offer);
                let cost = self.holders[holder].move_cost?;
                (excludes || shares).then_some((!excludes, cost, holder))
            })
            .collect();
        // First all that exclude it, then, where it is shared and full, the cheapest of those that share it.
        others.sort_unstable();
        for (only_shares, _, holder) in others {
            if only_shares && gpu.room(chosen.offer) > 0 {
                break;
            }
            on_gpu(holder).for_each(|offer| gpu.occupancy.give_back(offer));
            blockers.push(holder);
        }
        (gpu.room(chosen.offer) > 0).then_some(blockers)
    }

    /// Reserves a place and moves whoever is in its way, with at most `budget` moves. On failure, undo.
    pub fn clear(&mut self, place: &Place, budget: usize) -> bool {
        if self.tries == 0 {
            return false;
        }
        self.tries -= 1;
        self.take(place.node, place.devices.values().flatten().copied().collect());
        let mut blockers = place.blockers.clone();
        blockers.sort_by_key(|&holder| Reverse(self.size(holder)));
        let mut budget = budget;
        for (i, &holder) in blockers.iter().enumerate() {
            let Some(spare) = budget.checked_sub(blockers.len() - i) else { return false };
            let before = self.moves.len();
            if !self.relocate(holder, spare) {
                return false;
            }
            budget = budget.saturating_sub(self.moves.len() - before);
        }
        true
    }

    /// Moves a holder to the best free place, or else, with at most `spare` other moves, to one that is made free.
    pub fn relocate(&mut self, holder: usize, spare: usize) -> bool {
        let Holder { node: old, demand, .. } = &self.holders[holder];
        let may = self.may;
        let free = self.cluster.best(demand, |node| may(Who::Holder(holder), node));
        let (node, devices) = match free {
            Some((node, placement)) => {
                self.take(node, placement.devices.values().flatten().copied().collect());
                (node, placement.devices.clone())
            }
            None => match self.make_way(holder, demand, spare) {
                Some(place) => (place.node, place.devices),
                None => return false,
            },
        };
        self.give_back(*old, self.holders[holder].chosen().collect());
        self.moves.push(Move { holder, node, devices });
        true
    }

    /// Takes the first place for a holder that other moves make free.
    fn make_way(&mut self, holder: usize, demand: &Demand, spare: usize) -> Option<Place> {
        for budget in 1..=spare {
            for place in self.places(demand, Who::Holder(holder), budget) {
                if place.blockers.contains(&holder) {
                    continue;
                }
                let mark = self.mark();
                if self.clear(&place, budget) {
                    return Some(place);
                }
                self.undo(mark);
            }
        }
        None
    }

    fn cost_of(&self, place: &Place) -> u64 {
        place.blockers.iter().map(|&b| u64::from(self.holders[b].move_cost.unwrap_or(u32::MAX))).sum()
    }

    /// How large a part of its GPUs a holder has.
    pub fn size(&self, holder: usize) -> u32 {
        let holder = &self.holders[holder];
        holder.demand.devices.keys().map(|resource| self.largest(holder.node, resource)).max().unwrap_or(0)
    }

    fn largest(&self, node: usize, resource: &ResourceName) -> u32 {
        let offers = self.cluster.gpus(node).iter().flat_map(|gpu| gpu.gpu.kind.offers_of(resource));
        let size = |part: &Part| match part {
            Part::Whole => u32::MAX,
            Part::Slice(slice) => u32::from(slice.size),
        };
        offers.map(|(_, offer)| size(&offer.part)).max().unwrap_or(0)
    }
}
