//! One request on one node, by its pod's policy.

use super::{NotAllowed, Occupant, Packing, Policy, ShareWith};
use crate::gpu::GpuKind;
use crate::occupancy::{GpuState, Occupancy};
use crate::pack::{self, Chosen, Cost, Demand, Mix, NoFit, Placement};
use crate::resource::ResourceName;
use crate::tally::Tally;

/// A node as a policy sees it.
#[derive(Debug, Clone, Copy)]
pub struct Node<'a> {
    /// Its GPUs and what of them is in use or promised.
    pub gpus: &'a [GpuState],
    /// Who is on each of them, in the same order; what is missing is nobody.
    pub occupants: &'a [Vec<Occupant<'a>>],
}

/// Why a request does not fit a node.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, thiserror::Error)]
pub enum WhyNot {
    /// It would not fit without the policy either.
    #[error(transparent)]
    NoFit(#[from] NoFit),
    /// The policy, or that of the pods there, is in the way.
    #[error(transparent)]
    NotAllowed(#[from] NotAllowed),
}

impl WhyNot {
    /// [`WhyNot::label`] of [`WhyNot::NotAllowed`].
    pub const POLICY: &str = "policy";

    /// A word for metrics.
    pub fn label(&self) -> &'static str {
        match self {
            Self::NoFit(why) => why.label(),
            Self::NotAllowed(_) => Self::POLICY,
        }
    }

    /// Whether it would still not fit if every pod left the node.
    pub fn is_permanent(&self) -> bool {
        match self {
            Self::NoFit(why) => why.is_permanent(),
            Self::NotAllowed(why) => why.is_permanent(),
        }
    }
}

/// How good a node is for a pod: less is better.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Rank {
    /// What of the node's GPUs is in use, in thousandths of all of them; 0 where the pod does not want to spread.
    pub in_use: u64,
    /// What it costs the pods to come, by the [`Market`](crate::pack::Market), in thousandths of a GPU; 0 where there is none or it knows nothing of
    /// such requests.
    pub market: i64,
    /// What the placement takes away.
    pub cost: Cost,
}

impl Policy {
    /// How good a node is on which a placement costs so much.
    pub fn rank(&self, gpus: &[GpuState], cost: Cost) -> Rank {
        let in_use = match self.placement {
            Packing::Binpack => 0,
            Packing::Spread => Tally::of(gpus).in_use / u64::try_from(gpus.len()).unwrap_or(1).max(1),
        };
        Rank { in_use, market: 0, cost }
    }
}

/// Places a request of a pod in `namespace` on a node by its policy.
///
/// Without a policy, and with nobody on the node who has one, this is [`pack::place`]. A policy narrows the GPUs
/// down, then the packing core chooses among them; so what a placement costs is reckoned over the allowed GPUs.
///
/// # Errors
/// [`WhyNot`]; what the packing core says goes first.
pub fn place(
    node: Node<'_>,
    demand: &Demand,
    mix: &Mix,
    policy: &Policy,
    namespace: &str,
) -> Result<Placement, WhyNot> {
    let kept = |occupants: &Vec<Occupant<'_>>| {
        occupants.iter().any(|o| o.share_with == ShareWith::Namespace && o.namespace != namespace)
    };
    let unrestricted = pack::place(node.gpus, demand, mix)?;
    if policy.is_default() && !node.occupants.iter().any(kept) {
        return Ok(unrestricted);
    }
    let (mut allowed, mut refused) = (Vec::new(), Vec::new());
    for (g, state) in node.gpus.iter().enumerate() {
        let occupants = node.occupants.get(g).map_or(&[][..], Vec::as_slice);
        match policy.allows(namespace, &state.gpu, occupants) {
            Ok(()) => allowed.push(g),
            Err(why) => refused.push(why),
        }
    }
    // By how GPUs look, so that nodes that are alike get the same answer in whatever order their GPUs stand. Stable, so
    // that equals go by their index, as the packing core's do.
    allowed.sort_by_cached_key(|&g| (spread_key(policy, &node.gpus[g]), look(&node.gpus[g])));
    let search = Search { node, demand, mix, allowed: &allowed, packing: policy.placement };
    let found = match (policy.distinct_gpus, policy.placement) {
        (true, _) => search.on_distinct_gpus(),
        (false, Packing::Binpack) => search.on(&allowed),
        // On the emptiest GPU, else on the two emptiest, and so on.
        (false, Packing::Spread) => (1..=allowed.len()).find_map(|n| search.on(&allowed[..n])),
    };
    found.ok_or_else(|| {
        // Who leaves room on an allowed GPU helps; a model or a size never changes. Of several reasons, the one
        // that may change is told.
        let changes = |why: &&NotAllowed| !why.is_permanent();
        let why = refused.iter().find(changes).or(refused.first()).copied();
        match why {
            Some(why) if !policy.distinct_gpus || search.on(&allowed).is_none() => why.into(),
            _ => NotAllowed::Distinct.into(),
        }
    })
}

struct Search<'a> {
    node: Node<'a>,
    demand: &'a Demand,
    mix: &'a Mix,
    allowed: &'a [usize],
    packing: Packing,
}

/// How much of a GPU is in use, to a pod that wants the emptiest.
fn spread_key(policy: &Policy, state: &GpuState) -> u64 {
    if policy.placement == Packing::Spread { Tally::of([state]).in_use } else { 0 }
}

/// All that a placement depends on. Two GPUs that look alike differ in who is on them and where they are.
pub(super) fn look(state: &GpuState) -> (&GpuKind, u64, &Occupancy) {
    (&state.gpu.kind, state.gpu.sick_offers(), &state.occupancy)
}

impl Search<'_> {
    /// The packing core's choice among some of the node's GPUs.
    fn on(&self, some: &[usize]) -> Option<Placement> {
        let gpus: Vec<GpuState> = some.iter().map(|&g| self.node.gpus[g].clone()).collect();
        let mut placement = pack::place(&gpus, self.demand, self.mix).ok()?;
        placement.devices.values_mut().flatten().for_each(|chosen| chosen.gpu = some[chosen.gpu]);
        Some(placement)
    }

    /// Each device on a GPU of its own: the cheapest for each in turn that leaves the others one.
    ///
    /// Devices on different GPUs never exclude each other, so whether it is possible at all is a question of
    /// matching devices with GPUs, and is answered exactly. It costs what its dearest device costs.
    fn on_distinct_gpus(&self) -> Option<Placement> {
        let units: Vec<&ResourceName> = self
            .demand
            .devices
            .iter()
            .flat_map(|(resource, &count)| std::iter::repeat_n(resource, count as usize))
            .collect();
        if units.len() > self.allowed.len() {
            return None;
        }
        let alone = |resource: &ResourceName, g: usize| {
            let demand = Demand { share: self.demand.share, ..Demand::from([(resource.clone(), 1)]) };
            let placement = pack::place(&self.node.gpus[g..=g], &demand, self.mix).ok()?;
            let offer = placement.devices.values().flatten().next()?.offer;
            Some((placement.cost, Chosen { gpu: g, offer }))
        };
        // In the order of `allowed`.
        let choices: Vec<Vec<(Cost, Chosen)>> = units
            .iter()
            .map(|resource| self.allowed.iter().filter_map(|&g| alone(resource, g)).collect())
            .collect();
        let mut open: Vec<Vec<usize>> =
            choices.iter().map(|of| of.iter().map(|(_, chosen)| chosen.gpu).collect()).collect();
        let mut placement = Placement { devices: Default::default(), cost: Cost::default() };
        for (unit, resource) in units.iter().enumerate() {
            let mut ranked: Vec<(Cost, Chosen)> = choices[unit]
                .iter()
                .copied()
                .filter(|(_, chosen)| open[unit].contains(&chosen.gpu))
                .collect();
            // A pod that spreads gets the emptiest.
            if self.packing == Packing::Binpack {
                ranked.sort_by_key(|&(cost, _)| cost);
            }
            let (cost, chosen) = ranked.into_iter().find(|(_, chosen)| {
                let rest: Vec<Vec<usize>> =
                    open[unit + 1..].iter().map(|of| without(of, chosen.gpu)).collect();
                can_all_be_matched(&rest)
            })?;
            open.iter_mut().for_each(|of| *of = without(of, chosen.gpu));
            placement.cost = placement.cost.max(cost);
            placement.devices.entry((*resource).clone()).or_default().push(chosen);
        }
        Some(placement)
    }
}

fn without(gpus: &[usize], gpu: usize) -> Vec<usize> {
    gpus.iter().copied().filter(|&other| other != gpu).collect()
}

/// Whether each device can have a GPU of its own, given the GPUs that each could have (augmenting paths).
fn can_all_be_matched(choices: &[Vec<usize>]) -> bool {
    fn give(
        unit: usize,
        choices: &[Vec<usize>],
        owner: &mut std::collections::BTreeMap<usize, usize>,
        tried: &mut std::collections::BTreeSet<usize>,
    ) -> bool {
        choices[unit].iter().any(|&gpu| {
            tried.insert(gpu)
                && owner.get(&gpu).copied().is_none_or(|other| give(other, choices, owner, tried))
                && {
                    owner.insert(gpu, unit);
                    true
                }
        })
    }
    let mut owner = Default::default();
    (0..choices.len()).all(|unit| give(unit, choices, &mut owner, &mut Default::default()))
}
