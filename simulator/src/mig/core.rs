//! Stowage's packing core, and the moves that it makes where a request would be refused.

use std::collections::HashMap;
use std::sync::Arc;

use stowage_shared::gpu::{GpuKind, Offer};
use stowage_shared::mig::{Geometry, Profile};
use stowage_shared::models::Model;
use stowage_shared::moves::{Cluster, Holder, Limits, make_room};
use stowage_shared::occupancy::GpuState;
use stowage_shared::pack::{Demand, Mix};
use stowage_shared::resource::ResourceName;

use super::{Engine, SettingsError};
use crate::gpu::on_demand;

/// The budget of moves is for so many arrivals.
const BUDGET_ARRIVALS: u64 = 100;
/// What is not used of so many budgets is kept for later: requests that do not fit come in bursts.
const BUDGETS_KEPT: u64 = 10;
/// The most moves for one request, and arrangements looked at for it.
const LIMITS: Limits = Limits { moves: 2, tries: 2_000 };

/// Nodes of GPUs with MIG on demand, as the plugin offers them.
pub(super) struct Core {
    cluster: Cluster,
    demands: Vec<Demand>,
    holders: Vec<Holder>,
    /// The pod of each holder, and the other way round.
    pods: Vec<u64>,
    places: HashMap<u64, usize>,
    /// Moves allowed in [`BUDGET_ARRIVALS`].
    budget: u64,
    /// What may be used now, in parts of a move: each arrival adds [`Self::budget`], a move takes as many as there are
    /// arrivals to a budget.
    credit: u64,
    moves: u64,
}

impl Core {
    pub fn new(
        model: &Model,
        geometry: &Geometry,
        profiles: &[Profile],
        gpus: usize,
        gpus_per_node: usize,
        budget: u32,
    ) -> Result<Self, SettingsError> {
        let offers = Offer::on_demand(geometry.slices(), &[]);
        let kind = Arc::new(GpuKind::new(model.product, model.memory, offers)?);
        let node = |first: usize| -> Vec<GpuState> {
            let count = gpus_per_node.min(gpus - first);
            (0..count).map(|index| GpuState::idle(Arc::new(on_demand(&kind, index)))).collect()
        };
        let nodes: Vec<Vec<GpuState>> = (0..gpus).step_by(gpus_per_node).map(node).collect();
        let mix = Mix::prior(nodes.iter().flatten().map(|state| &*state.gpu));
        let demand = |profile: &Profile| Demand::from([(ResourceName::mig(&profile.name), 1)]);
        Ok(Self {
            cluster: Cluster::new(nodes, mix),
            demands: profiles.iter().map(demand).collect(),
            holders: Vec::new(),
            pods: Vec::new(),
            places: HashMap::new(),
            budget: u64::from(budget),
            credit: 0,
            moves: 0,
        })
    }

    fn hold(&mut self, pod: u64, holder: Holder) {
        self.cluster.take(holder.node, holder.chosen());
        self.places.insert(pod, self.holders.len());
        self.pods.push(pod);
        self.holders.push(holder);
    }

    /// Moves a few pods so that the request fits; `None` where that is not possible within the limits.
    fn make_room(&mut self, demand: &Demand) -> Option<Holder> {
        let left = usize::try_from(self.credit / BUDGET_ARRIVALS).unwrap_or(usize::MAX);
        let limits = Limits { moves: LIMITS.moves.min(left), ..LIMITS };
        if limits.moves == 0 {
            return None;
        }
        let room = make_room(&mut self.cluster, &self.holders, demand, &|_, _| true, limits)?;
        for step in room.moves {
            let holder = &mut self.holders[step.holder];
            self.cluster.take(step.node, step.devices.values().flatten().copied());
            self.cluster.give_back(holder.node, holder.chosen());
            (holder.node, holder.devices) = (step.node, step.devices);
            self.credit -= BUDGET_ARRIVALS;
            self.moves += 1;
        }
        Some(Holder {
            node: room.node,
            kind: 0,
            demand: demand.clone(),
            devices: room.devices,
            move_cost: Some(1),
        })
    }
}

impl Engine for Core {
    fn arrive(&mut self, pod: u64, profile: usize) -> bool {
        self.credit = (self.credit + self.budget).min(self.budget * BUDGET_ARRIVALS * BUDGETS_KEPT);
        let demand = self.demands[profile].clone();
        let holder = match self.cluster.best(&demand, |_| true) {
            Some((node, placement)) => {
                Some(Holder { node, kind: 0, demand, devices: placement.devices.clone(), move_cost: Some(1) })
            }
            None => self.make_room(&demand),
        };
        let Some(holder) = holder else { return false };
        self.hold(pod, holder);
        true
    }

    fn leave(&mut self, pod: u64, _: usize) {
        let Some(place) = self.places.remove(&pod) else { return };
        let holder = self.holders.swap_remove(place);
        self.pods.swap_remove(place);
        if let Some(moved) = self.pods.get(place) {
            self.places.insert(*moved, place);
        }
        self.cluster.give_back(holder.node, holder.chosen());
    }

    fn begin(&mut self) {
        (self.credit, self.moves) = (0, 0);
    }

    fn moves(&self) -> u64 {
        self.moves
    }
}
