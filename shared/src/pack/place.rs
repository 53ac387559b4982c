//! One request on one node.

use std::cmp::Reverse;
use std::collections::BTreeMap;

use super::mix::{Mix, worth};
use crate::gpu::{Gpu, Part};
use crate::occupancy::GpuState;
use crate::plan::{PlannedContainers, PlannedDevice};
use crate::request::Request;
use crate::resource::ResourceName;
use crate::share::ShareSize;

/// Devices wanted on one node.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Demand {
    /// How many, by resource.
    pub devices: BTreeMap<ResourceName, u32>,
    /// The size of each share among them; `None` where the pod does not say.
    pub share: Option<ShareSize>,
}

impl From<BTreeMap<ResourceName, u32>> for Demand {
    fn from(devices: BTreeMap<ResourceName, u32>) -> Self {
        Self { devices, share: None }
    }
}

impl<const N: usize> From<[(ResourceName, u32); N]> for Demand {
    fn from(devices: [(ResourceName, u32); N]) -> Self {
        BTreeMap::from(devices).into()
    }
}

impl FromIterator<(ResourceName, u32)> for Demand {
    fn from_iter<T: IntoIterator<Item = (ResourceName, u32)>>(devices: T) -> Self {
        devices.into_iter().collect::<BTreeMap<_, _>>().into()
    }
}

/// Choices that are tried before a request counts as not fitting. Without conflicts between offers the first
/// try succeeds; with them, this bounds the search for a rare arrangement.
const STEPS_MAX: u32 = 4096;

/// One device of a placement: the places of its GPU among the node's and of its offer among the GPU's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Chosen {
    /// Which GPU.
    pub gpu: usize,
    /// Which of its offers.
    pub offer: usize,
}

/// What a placement takes away. Compared in the order of the fields; less is better.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Cost {
    /// Requests to come that no longer fit, in thousandths of a GPU.
    pub lost: u64,
    /// Whether it breaks into a node that nobody uses.
    pub wakes_node: bool,
    /// GPUs that nobody used before.
    pub wakes_gpus: u32,
    /// How much less comes back, in thousandths of a GPU, when pods beside it leave.
    pub returns_less: i64,
    /// Devices of the resources asked for that the node could still take afterwards.
    pub room_left: u32,
}

/// Where a request goes on a node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Placement {
    /// The devices of each resource.
    pub devices: BTreeMap<ResourceName, Vec<Chosen>>,
    /// What it takes away.
    pub cost: Cost,
}

/// Why a request does not fit a node. The texts are few and without numbers: kube-scheduler groups nodes by
/// them in the pod's event.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, thiserror::Error)]
pub enum NoFit {
    /// The node has nothing under that name, whoever leaves.
    #[error("no {0} on this node")]
    NotOffered(ResourceName),
    /// The node would have too few even if it were empty.
    #[error("fewer {0} on this node than the pod asks for")]
    TooFew(ResourceName),
    /// No share of the node could be as large, even if it were empty.
    #[error("shares of {0} on this node are smaller than the pod asks for")]
    TooLarge(ResourceName),
    /// It is offered, but what is free is unhealthy.
    #[error("no healthy {0} free")]
    Unhealthy(ResourceName),
    /// All of it is in use, or what is free does not fit together.
    #[error("no free placement for {0}")]
    Full(ResourceName),
}

impl NoFit {
    /// [`NoFit::label`] of [`NoFit::Full`].
    pub const FULL: &str = "full";
    /// [`NoFit::label`] of [`NoFit::Unhealthy`].
    pub const UNHEALTHY: &str = "unhealthy";
    /// [`NoFit::label`] of [`NoFit::TooLarge`].
    pub const TOO_LARGE: &str = "too_large";
    /// [`NoFit::label`] of [`NoFit::TooFew`].
    pub const TOO_FEW: &str = "too_few";
    /// [`NoFit::label`] of [`NoFit::NotOffered`].
    pub const NOT_OFFERED: &str = "not_offered";

    /// A word for metrics.
    pub fn label(&self) -> &'static str {
        match self {
            Self::NotOffered(_) => Self::NOT_OFFERED,
            Self::TooFew(_) => Self::TOO_FEW,
            Self::TooLarge(_) => Self::TOO_LARGE,
            Self::Unhealthy(_) => Self::UNHEALTHY,
            Self::Full(_) => Self::FULL,
        }
    }

    /// Whether it would still not fit if every pod left the node.
    pub fn is_permanent(&self) -> bool {
        matches!(self, Self::NotOffered(_) | Self::TooFew(_) | Self::TooLarge(_))
    }
}

/// Places a request on a node, or says why it does not fit.
///
/// Pure: `gpus` is a snapshot, and the caller takes the devices or drops the answer. Large parts are chosen
/// first. Ties go to the lowest GPU index, so that every replica gives the same answer.
///
/// # Errors
/// [`NoFit`], for the first resource that does not fit.
pub fn place(gpus: &[GpuState], demand: &Demand, mix: &Mix) -> Result<Placement, NoFit> {
    let share = demand.share;
    for (resource, &count) in &demand.devices {
        check_count(gpus, resource, count, share)?;
    }
    let mut wanted: Vec<(&ResourceName, u32)> =
        demand.devices.iter().map(|(resource, &count)| (resource, count)).collect();
    wanted.sort_by_key(|(resource, _)| Reverse(largest_part(gpus, resource)));
    let units: Vec<&ResourceName> =
        wanted.iter().flat_map(|&(resource, count)| std::iter::repeat_n(resource, count as usize)).collect();

    let mut search =
        Search { gpus: gpus.to_vec(), share, mix, steps: 0, chosen: Vec::with_capacity(units.len()) };
    if !search.fits(&units) {
        let first = units.first().copied().cloned();
        return Err(NoFit::Full(first.unwrap_or_else(ResourceName::gpu)));
    }
    let mut devices: BTreeMap<ResourceName, Vec<Chosen>> = BTreeMap::new();
    for (resource, chosen) in units.iter().zip(&search.chosen) {
        devices.entry((*resource).clone()).or_default().push(*chosen);
    }
    let cost = Cost {
        lost: mix.value(gpus).saturating_sub(mix.value(&search.gpus)),
        wakes_node: gpus.iter().all(|gpu| gpu.occupancy.is_idle()),
        wakes_gpus: count(
            gpus.iter().zip(&search.gpus).filter(|(b, a)| b.occupancy.is_idle() && !a.occupancy.is_idle()),
        ),
        returns_less: gpus
            .iter()
            .zip(&search.gpus)
            .filter(|(before, after)| before != after)
            .map(|(before, after)| returns_less(mix, before, after))
            .sum(),
        room_left: demand.devices.keys().map(|resource| copies(&search.gpus, resource)).sum(),
    };
    Ok(Placement { devices, cost })
}

impl Placement {
    /// The placement in a plan's words, told to the pod's containers.
    pub fn to_plan(&self, gpus: &[GpuState], request: &Request) -> PlannedContainers {
        let name = |chosen: &Chosen| PlannedDevice::of(&gpus[chosen.gpu].gpu, chosen.offer, request.share());
        let sets = self
            .devices
            .iter()
            .map(|(resource, devices)| (resource.clone(), devices.iter().map(name).collect()));
        let mut plan = PlannedContainers::new();
        for (container, resource, devices) in request.distribute(&sets.collect()) {
            plan.entry(container.name.clone()).or_default().insert(resource, devices);
        }
        plan
    }
}

/// The cheap answer for a resource by itself: are there enough devices at all?
fn check_count(
    gpus: &[GpuState],
    resource: &ResourceName,
    count: u32,
    share: Option<ShareSize>,
) -> Result<(), NoFit> {
    if gpus.iter().map(|gpu| for_one_pod(gpu, resource, share)).sum::<u32>() >= count {
        return Ok(());
    }
    let healthy = |gpu: &Gpu| Gpu { unhealthy: None, sick: BTreeMap::new(), ..gpu.clone() };
    let empty = |healthy_only: bool, share| -> u32 {
        let idle = gpus.iter().map(|g| {
            let gpu = if healthy_only { g.gpu.clone() } else { healthy(&g.gpu).into() };
            for_one_pod(&GpuState::idle(gpu), resource, share)
        });
        idle.sum()
    };
    let if_healthy = |g: &GpuState| GpuState { gpu: healthy(&g.gpu).into(), ..g.clone() };
    let free_if_healthy: u32 = gpus.iter().map(|g| for_one_pod(&if_healthy(g), resource, share)).sum();
    Err(match empty(false, share) {
        0 if share.is_some() && empty(false, None) > 0 => NoFit::TooLarge(resource.clone()),
        0 => NoFit::NotOffered(resource.clone()),
        most if most < count => NoFit::TooFew(resource.clone()),
        _ if free_if_healthy >= count || empty(true, share) < count => NoFit::Unhealthy(resource.clone()),
        _ => NoFit::Full(resource.clone()),
    })
}

struct Search<'a> {
    gpus: Vec<GpuState>,
    share: Option<ShareSize>,
    mix: &'a Mix,
    steps: u32,
    chosen: Vec<Chosen>,
}

impl Search<'_> {
    /// Chooses the units one after another, best first; goes back where a choice leaves no room for a later
    /// one. On failure `chosen` holds nothing of this call.
    fn fits(&mut self, units: &[&ResourceName]) -> bool {
        let Some((&resource, rest)) = units.split_first() else { return true };
        for candidate in self.candidates(resource) {
            if self.steps >= STEPS_MAX {
                return false;
            }
            self.steps += 1;
            self.gpus[candidate.gpu].take(candidate.offer, self.share);
            self.chosen.push(candidate);
            if self.fits(rest) {
                return true;
            }
            self.chosen.pop();
            self.gpus[candidate.gpu].give_back(candidate.offer, self.share);
        }
        false
    }

    /// The offers that have room for one more device of `resource`, the least harmful first.
    fn candidates(&self, resource: &ResourceName) -> Vec<Chosen> {
        let totals: Vec<(&ResourceName, u32)> =
            self.mix.shapes().map(|(known, _)| (known, copies(&self.gpus, known))).collect();
        let mut ranked: Vec<(Rank, Chosen)> = Vec::new();
        for (g, gpu) in self.gpus.iter().enumerate() {
            for (offer, of) in gpu.gpu.kind.offers_of(resource) {
                let again = of.distinct && self.chosen.contains(&Chosen { gpu: g, offer });
                if gpu.room_for(offer, self.share) > 0 && !again {
                    ranked.push((self.rank(g, offer, resource, &totals), Chosen { gpu: g, offer }));
                }
            }
        }
        // What comes back later takes long to tell, so only the best ones are told apart by it.
        let least = ranked.iter().map(|(rank, _)| (rank.lost, rank.wakes)).min();
        for (rank, chosen) in ranked.iter_mut().filter(|(rank, _)| Some((rank.lost, rank.wakes)) == least) {
            let before = &self.gpus[chosen.gpu];
            rank.returns_less = returns_less(self.mix, before, &with(before, chosen.offer, self.share));
        }
        ranked.sort_by_key(|&(rank, Chosen { gpu, .. })| (rank, self.gpus[gpu].gpu.index));
        ranked.into_iter().map(|(_, chosen)| chosen).collect()
    }

    /// What one device takes away, but for [`Rank::returns_less`].
    fn rank(&self, g: usize, offer: usize, resource: &ResourceName, totals: &[(&ResourceName, u32)]) -> Rank {
        let before = &self.gpus[g];
        let after = with(before, offer, self.share);
        let lost = self.mix.shapes().zip(totals).map(|((known, shapes), &(_, total))| {
            let left = total - before.copies(known) + after.copies(known);
            worth(shapes, total).saturating_sub(worth(shapes, left))
        });
        let start = match &before.gpu.kind.offers()[offer].part {
            Part::Whole => 0,
            Part::Slice(slice) => slice.start,
        };
        Rank {
            lost: lost.sum(),
            wakes: before.occupancy.is_idle(),
            returns_less: 0,
            room_left: after.copies(resource),
            memory_left: before
                .gpu
                .kind
                .memory()
                .0
                .saturating_sub(after.occupancy.claimed_mib(&after.gpu.kind, offer)),
            start: Reverse(start),
        }
    }
}

/// What one device takes away. Compared in the order of the fields; less is better.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Rank {
    lost: u64,
    /// Whether nobody used that GPU before.
    wakes: bool,
    returns_less: i64,
    /// The room left on that GPU.
    room_left: u32,
    /// The memory that its shares leave, in MiB.
    memory_left: u64,
    /// The high end first: it leaves the low starts, where the large profiles begin.
    start: Reverse<u8>,
}

/// A GPU with one more device in use.
fn with(gpu: &GpuState, offer: usize, share: Option<ShareSize>) -> GpuState {
    let mut gpu = gpu.clone();
    gpu.take(offer, share);
    gpu
}

/// How many devices of `resource` one pod could get of a GPU.
fn for_one_pod(gpu: &GpuState, resource: &ResourceName, share: Option<ShareSize>) -> u32 {
    let offers = || gpu.gpu.kind.offers_of(resource);
    if !offers().any(|(_, of)| of.distinct) {
        return gpu.copies_for(resource, share);
    }
    offers().map(|(offer, of)| gpu.room_for(offer, share).min(if of.distinct { 1 } else { u32::MAX })).sum()
}

/// How much less comes back of a GPU after a placement than before it.
fn returns_less(mix: &Mix, before: &GpuState, after: &GpuState) -> i64 {
    let [before, after] = [before, after].map(|gpu| i64::try_from(mix.returns(gpu)).unwrap_or(i64::MAX));
    before.saturating_sub(after)
}

fn copies(gpus: &[GpuState], resource: &ResourceName) -> u32 {
    gpus.iter().map(|gpu| gpu.copies(resource)).sum()
}

fn largest_part(gpus: &[GpuState], resource: &ResourceName) -> u32 {
    let size = |part: &Part| match part {
        Part::Whole => u32::MAX,
        Part::Slice(slice) => u32::from(slice.size),
    };
    gpus.iter()
        .flat_map(|gpu| gpu.gpu.kind.offers_of(resource))
        .map(|(_, offer)| size(&offer.part))
        .max()
        .unwrap_or(0)
}

fn count<T>(items: impl Iterator<Item = T>) -> u32 {
    u32::try_from(items.count()).unwrap_or(u32::MAX)
}
