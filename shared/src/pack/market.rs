//! What idle GPUs are worth to the pods to come: the [`fleet`](super::fleet) core's value, in the words of offers.
//!
//! A [`Market`] is made of the cluster's GPUs and of what its pods ask for. It tells what a pod costs on a node
//! beyond the resource that it asks for: what becomes of the node's other GPUs, CPU and memory to pods of all shapes
//! that are seen in this cluster. Whole GPUs and shares are ranked by it. Who asks for slices is among the pods to come:
//! a GPU that can be cut is worth something to them while nobody uses it, and the more of them there are, the dearer such
//! GPUs are to who could go elsewhere. Which slices are left of a GPU that is cut already, and which of them is missed
//! least, [`place`](super::place()) knows better, and so there is no such cost for who asks for one.
//!
//! GPUs that are alike in model and in the names they are offered under are of one **stand**, a model to the fleet core. A
//! node whose GPUs are of several stands counts as one node of each, with all of its CPU and memory.

mod stand;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use self::stand::{Size, Stand};
use super::fleet::{GPU_MILLI, Mix, Models, Node, Shape, Supply, Value, Weights};
use super::place::Demand;
use crate::gpu::{GpuKind, Offer, Part};
use crate::host::Host;
use crate::occupancy::GpuState;
use crate::resource::ResourceName;
use crate::share::ShareSize;
use crate::units::MemoryMib;

/// What is expected before any pod was seen counts like so many pods.
const PRIOR_PODS: u64 = 4;
/// Shapes that are expected at most, the most frequent ones.
const SHAPES_MAX: usize = 512;
/// Sizes of shares that are told apart at most; where there are more, they are rounded up to [`SIZE_STEP`].
const SIZES_MAX: usize = 64;
/// In thousandths of a GPU.
const SIZE_STEP: u16 = 25;
/// The smallest equal share that a pod is expected to take as it is, in thousandths of a GPU.
const SHARE_MIN: u16 = 100;

/// What idle GPUs, CPU and memory are worth in one cluster.
#[derive(Debug, Clone)]
pub struct Market {
    stands: Arc<Stands>,
    expected: Mix,
    value: Value,
}

/// What it was made of says all.
impl PartialEq for Market {
    fn eq(&self, other: &Self) -> bool {
        self.stands == other.stands && self.expected == other.expected
    }
}

impl Eq for Market {}

/// The GPUs of a cluster by what they are and how they are offered.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Stands {
    /// The most numerous first; one number is a model of the fleet core.
    all: Vec<Stand>,
    /// Each kind's stand.
    kinds: Vec<(Arc<GpuKind>, u8)>,
}

/// The GPUs of one stand on one node, and what the node has idle.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Lot {
    /// As the fleet core sees it.
    pub node: Node,
    /// The place of each of its GPUs among the node's.
    pub gpus: Vec<usize>,
}

impl Stands {
    /// Sorts the GPUs of a cluster, given by their kinds.
    pub fn new<'a>(kinds: impl IntoIterator<Item = &'a Arc<GpuKind>>) -> Self {
        let mut counts: Vec<(&Arc<GpuKind>, u64)> = Vec::new();
        for kind in kinds {
            // Of few kinds, and mostly the same object.
            match counts.iter_mut().find(|(known, _)| Arc::ptr_eq(known, kind) || known == &kind) {
                Some((_, count)) => *count += 1,
                None => counts.push((kind, 1)),
            }
        }
        let mut by_look: BTreeMap<(&str, MemoryMib, BTreeSet<&ResourceName>), Vec<_>> = BTreeMap::new();
        for &(kind, count) in &counts {
            let names = kind.offers().iter().map(|offer| &offer.resource).collect();
            by_look.entry((kind.model(), kind.memory(), names)).or_default().push((kind, count));
        }
        let mut alike: Vec<Vec<(&Arc<GpuKind>, u64)>> = by_look.into_values().collect();
        let gpus = |of: &[(&Arc<GpuKind>, u64)]| of.iter().map(|(_, count)| count).sum::<u64>();
        // Stable: equals stay in the order of their looks.
        alike.sort_by_key(|of| std::cmp::Reverse(gpus(of)));
        let mut stands = Self::default();
        for of in alike {
            // The rarest share the last number.
            let number = stands.all.len().min(usize::from(Models::MAX) - 1);
            let small = u8::try_from(number).unwrap_or(Models::MAX - 1);
            stands.kinds.extend(of.iter().map(|&(kind, _)| (kind.clone(), small)));
            match stands.all.get_mut(number) {
                Some(last) => last.gpus += gpus(&of),
                None => stands.all.extend(of.first().map(|&(kind, _)| Stand::new(kind, gpus(&of)))),
            }
        }
        stands
    }

    /// Whether each kind has the same number as with others, however many GPUs there are.
    pub fn numbers_as(&self, others: &Self) -> bool {
        self.kinds == others.kinds
    }

    /// What a node has idle, by stand, leaving out GPUs that are to be had in slices only.
    pub fn lots(&self, gpus: &[GpuState], host: Host) -> Vec<Lot> {
        let mut lots: Vec<Lot> = Vec::with_capacity(1);
        for (place, state) in gpus.iter().enumerate() {
            let kind = &state.gpu.kind;
            let same = |(known, _): &&(Arc<GpuKind>, u8)| Arc::ptr_eq(known, kind);
            let found = self.kinds.iter().find(same).or_else(|| self.kinds.iter().find(|(it, _)| it == kind));
            let Some(&(_, model)) = found else { continue };
            if self.all.get(usize::from(model)).is_none_or(Stand::is_only_cut) {
                continue;
            }
            let at = lots.iter().position(|lot| lot.node.model == model).unwrap_or_else(|| {
                let Host { cpu_milli, memory_mib } = host;
                lots.push(Lot {
                    node: Node { cpu_milli, memory_mib, model, idle: Vec::with_capacity(gpus.len()) },
                    gpus: Vec::with_capacity(gpus.len()),
                });
                lots.len() - 1
            });
            lots[at].node.idle.push(idle_milli(state));
            lots[at].gpus.push(place);
        }
        lots
    }

    /// What a request is to the fleet core; `None` where it asks for several resources. `may_use` says of a model and the
    /// memory of a card whether the pod may run there.
    ///
    /// A share whose size is an amount of memory is as large as on the most numerous GPUs that it could use; shares of one
    /// pod lie together where they can, and its slices count as if they did.
    pub fn shape(
        &self,
        demand: &Demand,
        host: Host,
        may_use: impl Fn(&str, MemoryMib) -> bool,
    ) -> Option<Shape> {
        let mut devices = demand.devices.iter();
        let (Some((resource, &count)), None) = (devices.next(), devices.next()) else { return None };
        let offered = |stand: &&Stand| stand.offers.contains_key(resource);
        let usable = |stand: &Stand| may_use(&stand.model, stand.memory);
        let mut stands = (0..).zip(&self.all).filter(|(_, it)| offered(it) && usable(it)).peekable();
        let &(_, most) = stands.peek()?;
        let Size { milli: one, slice } = most.size(resource, demand.share)?;
        let models = Models::only(stands.map(|(number, _)| number));
        let all = u32::from(one).saturating_mul(count);
        let (gpu_milli, gpus) = match u16::try_from(all) {
            Ok(together) if together <= GPU_MILLI => (together, 1),
            _ if one == GPU_MILLI => (one, u16::try_from(count).ok()?),
            _ => (GPU_MILLI, u16::try_from(all.div_ceil(GPU_MILLI.into())).ok()?),
        };
        let Host { cpu_milli, memory_mib } = host;
        Some(Shape { cpu_milli, memory_mib, gpu_milli, gpus, slice, models })
    }

    /// What a pod without GPUs is to the fleet core.
    pub fn shape_without_gpus(host: Host) -> Shape {
        let Host { cpu_milli, memory_mib } = host;
        Shape { cpu_milli, memory_mib, gpu_milli: 0, gpus: 0, slice: false, models: Models::ANY }
    }

    fn supply(&self) -> Supply {
        Supply::new((0..).zip(self.all.iter().map(|stand| stand.gpus)))
    }

    /// What to expect while nothing is known, on any node: of what is offered whole, one GPU and several; of what is offered
    /// in shares, one of them, or halves and quarters where it is in so many that a pod surely says how much it needs; of
    /// what is offered in slices, one of each size.
    fn prior(&self) -> Vec<(Shape, u64)> {
        let mut expected: BTreeMap<(u16, u16, bool), Vec<u8>> = BTreeMap::new();
        for (number, stand) in (0..).zip(&self.all) {
            for &Size { milli, slice } in stand.offers.values() {
                let sizes: &[(u16, u16)] = match milli {
                    _ if slice => &[(milli, 1)],
                    GPU_MILLI => &[(GPU_MILLI, 1), (GPU_MILLI, 2), (GPU_MILLI, 4), (GPU_MILLI, 8)],
                    small if small < SHARE_MIN => &[(GPU_MILLI / 2, 1), (GPU_MILLI / 4, 1)],
                    _ => &[(milli, 1)],
                };
                let mut expect =
                    |&(milli, gpus)| expected.entry((milli, gpus, slice)).or_default().push(number);
                sizes.iter().for_each(&mut expect);
            }
        }
        let shape = |((gpu_milli, gpus, slice), on)| {
            let models = Models::only(on);
            (Shape { cpu_milli: 0, memory_mib: 0, gpu_milli, gpus, slice, models }, 1)
        };
        expected.into_iter().map(shape).collect()
    }
}

impl Market {
    /// The market of these GPUs, where pods of these shapes are to be expected, each with how often it is seen.
    pub fn new(stands: Arc<Stands>, seen: impl IntoIterator<Item = (Shape, u64)>) -> Self {
        let mut counts: BTreeMap<Shape, u64> = BTreeMap::new();
        for (shape, count) in seen {
            *counts.entry(shape).or_default() += count;
        }
        let mut seen: Vec<(Shape, u64)> = counts.into_iter().collect();
        seen.sort_by_key(|&(_, count)| std::cmp::Reverse(count));
        seen.truncate(SHAPES_MAX);
        let sizes: BTreeSet<u16> = seen.iter().map(|(shape, _)| shape.gpu_milli).collect();
        if sizes.len() > SIZES_MAX {
            for (shape, _) in &mut seen {
                shape.gpu_milli = shape.gpu_milli.next_multiple_of(SIZE_STEP);
            }
        }
        let prior = stands.prior();
        // Both in the same unit, so that a prior of a few shapes counts like so many pods.
        let share = u64::try_from(prior.len()).unwrap_or(1).max(1);
        let prior = prior.into_iter().map(|(shape, weight)| (shape, weight * PRIOR_PODS));
        let expected = Mix::new(prior.chain(seen.into_iter().map(|(shape, count)| (shape, count * share))));
        let value = Value::new(&expected, &stands.supply(), Weights::default());
        Self { stands, expected, value }
    }

    /// The GPUs that it is of.
    pub fn stands(&self) -> &Arc<Stands> {
        &self.stands
    }

    /// What a request costs on a node with these lots, in thousandths of a GPU: about what becomes of no use to the pods that
    /// are seen. A request for GPUs goes to the lot where it costs least; one without takes CPU and memory from all of
    /// them. A node on which it does not fit costs most.
    ///
    /// Rounded, since smaller differences are no reason to wake a node or a GPU.
    pub fn cost<'a>(&self, lots: impl IntoIterator<Item = &'a Node>, shape: &Shape) -> i64 {
        let mut costs = lots.into_iter().map(|lot| Some(self.value.spot(lot, shape)?.cost.0));
        let cost = if shape.wants_gpu() {
            costs.flatten().min()
        } else {
            costs.try_fold(0, |sum: i64, cost| sum.checked_add(cost?))
        };
        let all = i64::try_from(self.expected.total()).unwrap_or(i64::MAX);
        let thousandth = all.saturating_mul(Weights::default().cut).max(1);
        cost.map_or(i64::MAX, |cost| cost.saturating_add(thousandth / 2).div_euclid(thousandth))
    }

    /// The GPUs among which a request for a part of one should be placed on a node: those that cost least, by their places.
    /// `None` where any will do.
    pub fn best_gpus(&self, lots: &[Lot], shape: &Shape) -> Option<Vec<usize>> {
        if shape.gpus != 1 || shape.gpu_milli == GPU_MILLI {
            return None;
        }
        let spots = lots.iter().filter_map(|lot| Some((self.value.spot(&lot.node, shape)?, lot)));
        let (spot, lot) = spots.min_by_key(|(spot, _)| spot.cost)?;
        let level = *lot.node.idle.get(usize::from(*spot.gpus(&lot.node, shape)?.first()?))?;
        let alike = lot.node.idle.iter().zip(&lot.gpus).filter(|&(&idle, _)| idle == level);
        Some(alike.map(|(_, &gpu)| gpu).collect())
    }
}

/// What of a GPU is to be had whole or in shares, in thousandths.
fn idle_milli(state: &GpuState) -> u16 {
    let kind = &state.gpu.kind;
    let whole = |(offer, of): (usize, &Offer)| {
        // Shares may have any size.
        let least = of.replicas.map(|_| ShareSize::Memory(MemoryMib(1)));
        if of.part != Part::Whole || state.room_for(offer, least) == 0 {
            return 0;
        }
        if of.replicas.is_none() {
            return GPU_MILLI;
        }
        let all = kind.memory().0;
        let free = all.saturating_sub(state.occupancy.claimed_mib(kind, offer));
        u16::try_from(free * u64::from(GPU_MILLI) / all.max(1)).unwrap_or(GPU_MILLI)
    };
    kind.offers().iter().enumerate().map(whole).max().unwrap_or(0)
}
