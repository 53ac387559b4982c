//! GPUs and what each of them is offered as.

#[cfg(test)]
mod tests;
mod uuid;

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::contract::{OFFERS_PER_GPU_MAX, REPLICAS_MAX};
use crate::device_id::DeviceId;
use crate::mig::MigSlice;
use crate::resource::ResourceName;
use crate::units::MemoryMib;

pub use uuid::{GpuUuid, GpuUuidError};

/// A piece of a GPU that can be handed out: the whole of it or one MIG slice.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Part {
    /// The whole GPU.
    Whole,
    /// One MIG slice.
    Slice(MigSlice),
}

impl Part {
    /// Whether both can be in use at once.
    pub fn conflicts(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Slice(one), Self::Slice(two)) => one.conflicts(two),
            (Self::Whole, _) | (_, Self::Whole) => true,
        }
    }
}

/// A part under a resource name: exclusive, or in replicas that share it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Offer {
    /// The name that pods ask for.
    pub resource: ResourceName,
    /// What they get.
    pub part: Part,
    /// Into how many shares it is divided; `None` where one pod has it for itself.
    pub replicas: Option<u32>,
    /// Whether one pod may have only one of its shares, so that several are of different GPUs or slices.
    pub distinct: bool,
    /// Whether no share may be larger than an equal part, since what keeps shares apart gives nobody more.
    pub capped: bool,
}

impl Offer {
    /// Every slice that may be built on a GPU, as an offer of its profile's own name, without what `foreign`
    /// instances leave no place for.
    pub fn on_demand(slices: impl IntoIterator<Item = MigSlice>, foreign: &[MigSlice]) -> Vec<Self> {
        let free = slices.into_iter().filter(|slice| !foreign.iter().any(|other| other.conflicts(slice)));
        let offer = |slice: MigSlice| Self {
            resource: ResourceName::mig(&slice.profile),
            part: Part::Slice(slice),
            replicas: None,
            distinct: false,
            capped: false,
        };
        free.map(offer).collect()
    }

    /// How many devices it counts for the kubelet.
    pub fn device_count(&self) -> u32 {
        self.replicas.unwrap_or(1)
    }
}

/// What a GPU is and what it is offered as; alike for every GPU of one model and configuration.
///
/// Offers are the bits of a mask, so that "may this be handed out now" is one `and`. Offers that cannot be
/// in use together (overlapping slices, the same GPU whole and as shares) exclude each other by that mask.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct GpuKind {
    model: String,
    memory: MemoryMib,
    offers: Vec<Offer>,
    conflicts: Vec<u64>,
}

/// Why a set of offers makes no sense.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum GpuKindError {
    /// More offers than a mask has bits.
    #[error("{0} offers on one GPU: at most {OFFERS_PER_GPU_MAX} are possible")]
    TooManyOffers(usize),
    /// Shares of none, or absurdly many.
    #[error("{resource} is offered in {replicas} replicas: 1 to {REPLICAS_MAX} are possible")]
    Replicas {
        /// The resource.
        resource: ResourceName,
        /// What was asked for.
        replicas: u32,
    },
}

impl GpuKind {
    /// Puts a kind together.
    ///
    /// # Errors
    /// [`GpuKindError`] where there are too many offers or an impossible number of replicas.
    pub fn new(
        model: impl Into<String>,
        memory: MemoryMib,
        offers: Vec<Offer>,
    ) -> Result<Self, GpuKindError> {
        if offers.len() > OFFERS_PER_GPU_MAX {
            return Err(GpuKindError::TooManyOffers(offers.len()));
        }
        for Offer { resource, replicas, .. } in &offers {
            if let Some(replicas) = *replicas
                && (replicas == 0 || replicas > REPLICAS_MAX)
            {
                return Err(GpuKindError::Replicas { resource: resource.clone(), replicas });
            }
        }
        let excludes =
            |(i, one): (usize, &Offer), (j, two): (usize, &Offer)| i != j && one.part.conflicts(&two.part);
        let conflicts = offers.iter().enumerate().map(|one| {
            offers.iter().enumerate().filter(|&two| excludes(one, two)).fold(0, |mask, (j, _)| mask | 1 << j)
        });
        let conflicts = conflicts.collect();
        Ok(Self { model: model.into(), memory, offers, conflicts })
    }

    /// NVML's product name.
    pub fn model(&self) -> &str {
        &self.model
    }

    /// Total memory.
    pub fn memory(&self) -> MemoryMib {
        self.memory
    }

    /// What it is offered as.
    pub fn offers(&self) -> &[Offer] {
        &self.offers
    }

    /// How much of it a part is, in thousandths: of a slice, by the memory slices that its offers reach over.
    pub fn milli(&self, part: &Part) -> u64 {
        let Part::Slice(slice) = part else { return 1000 };
        let ends = self.offers.iter().map(|offer| match &offer.part {
            Part::Whole => 0,
            Part::Slice(slice) => u64::from(slice.start) + u64::from(slice.size),
        });
        1000 * u64::from(slice.size) / ends.max().unwrap_or(0).max(1)
    }

    /// The offers that cannot be in use while `offer` is, as bits.
    pub fn conflicts(&self, offer: usize) -> u64 {
        self.conflicts.get(offer).copied().unwrap_or(u64::MAX)
    }

    /// The memory of a share of `offer` whose pod does not say how much it needs; `None` where shares are not counted
    /// by memory: of exclusive parts, and of MIG slices, whose memory is not known here.
    pub fn equal_share(&self, offer: usize) -> Option<MemoryMib> {
        let offer = self.offers.get(offer).filter(|offer| offer.part == Part::Whole && self.memory.0 > 0)?;
        offer.replicas.map(|replicas| MemoryMib(self.memory.0 / u64::from(replicas.max(1))))
    }

    /// The offers under a resource name, with their places.
    pub fn offers_of(&self, resource: &ResourceName) -> impl Iterator<Item = (usize, &Offer)> {
        self.offers.iter().enumerate().filter(move |(_, offer)| &offer.resource == resource)
    }
}

/// One GPU of a node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Gpu {
    /// NVML's UUID.
    pub uuid: GpuUuid,
    /// NVML's index on its node.
    pub index: u32,
    /// The NUMA node it hangs on, where the platform says.
    pub numa_node: Option<u32>,
    /// How near the node's GPUs of lower index are, by index ([`topology`](crate::topology)); what is missing is 0.
    pub near: Vec<u16>,
    /// What it is and is offered as.
    pub kind: Arc<GpuKind>,
    /// The id of each offer's part, in the order of the offers: the GPU's own UUID, a MIG device's, or the token
    /// that a slice was booked for; empty where a slice could be built and nobody has booked it.
    pub part_uuids: Vec<String>,
    /// MIG instances on a GPU with MIG on demand that Stowage did not build. What they take is offered to nobody.
    pub foreign: Vec<MigSlice>,
    /// Why it must not be handed out; `None` while it is healthy.
    pub unhealthy: Option<String>,
    /// Offers that must not be handed out while the GPU as a whole is healthy, such as a MIG slice that failed, and
    /// why.
    pub sick: BTreeMap<usize, String>,
}

impl Gpu {
    /// The offers that must not be handed out, as bits.
    pub fn sick_offers(&self) -> u64 {
        if self.unhealthy.is_some() {
            u64::MAX
        } else {
            self.sick.keys().fold(0, |mask, offer| mask | 1 << offer)
        }
    }

    /// Why an offer must not be handed out; `None` where it may.
    pub fn why_not(&self, offer: usize) -> Option<&str> {
        self.unhealthy.as_deref().or_else(|| self.sick.get(&offer).map(String::as_str))
    }

    /// The ids of an offer's devices, in the order of their replicas.
    pub fn device_ids(&self, offer: usize) -> impl Iterator<Item = DeviceId> + '_ {
        let part = self.part_uuids.get(offer).map(String::as_str).filter(|part| !part.is_empty());
        let replicas = self.kind.offers.get(offer).map_or(0, Offer::device_count);
        let shared = self.kind.offers.get(offer).is_some_and(|offer| offer.replicas.is_some());
        (0..replicas).filter_map(move |n| {
            part.map(|part| if shared { DeviceId::replica(part, n) } else { DeviceId::exclusive(part) })
        })
    }

    /// Whether the slice of an offer is built when somebody has booked it, rather than there beforehand.
    pub fn is_on_demand(&self, offer: usize) -> bool {
        self.part_uuids.get(offer).is_some_and(|part| {
            part.is_empty() || part.parse::<DeviceId>().is_ok_and(|id| id.token_of().is_some())
        })
    }

    /// The offer of `resource` that a device id belongs to.
    pub fn offer_of(&self, resource: &ResourceName, id: &DeviceId) -> Option<usize> {
        self.kind.offers_of(resource).map(|(i, _)| i).find(|&i| {
            self.part_uuids.get(i).is_some_and(|uuid| uuid == id.part())
                && match (self.kind.offers[i].replicas, id.replica_index()) {
                    (None, None) => true,
                    (Some(replicas), Some(index)) => index < replicas,
                    _ => false,
                }
        })
    }
}

/// What a pod has of a GPU, under a name or in a form that its node does not offer any more: its configuration has changed
/// while the pod ran.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Leftover {
    /// A share, of a part that is shared still: it counts as one of this offer's.
    Share(usize),
    /// Something else: these offers, as bits, are nobody's until the pod has ended.
    Bars(u64),
}

impl Leftover {
    /// The first offer whose place it takes.
    pub fn offer(self) -> usize {
        match self {
            Self::Share(offer) => offer,
            Self::Bars(offers) => offers.trailing_zeros() as usize,
        }
    }
}

impl Gpu {
    /// What a device of this GPU is that is not offered any more; `None` for one that is, and for what belongs to other
    /// GPUs.
    ///
    /// A token of a GPU that is still cut on demand is none: a slice is booked for it, or will be.
    pub fn leftover(&self, resource: &ResourceName, id: &DeviceId) -> Option<Leftover> {
        let offers = || 0..self.kind.offers.len();
        let token = id.token_of();
        let is_cut_on_demand = || offers().any(|offer| self.is_on_demand(offer));
        if self.offer_of(resource, id).is_some() || (token.is_some() && is_cut_on_demand()) {
            return None;
        }
        let part = token.map_or(id.part(), |(gpu, _)| gpu);
        let is_of = |offer: &usize| self.part_uuids.get(*offer).is_some_and(|uuid| uuid == part);
        let is_share = |offer: &usize| is_of(offer) && self.kind.offers[*offer].replicas.is_some();
        let share = id.replica_index().and_then(|_| offers().find(is_share));
        let barred = offers()
            .filter(|offer| self.uuid.as_str() == part || is_of(offer))
            .fold(0, |mask, offer| mask | 1 << offer | self.kind.conflicts(offer));
        share.map(Leftover::Share).or_else(|| (barred != 0).then_some(Leftover::Bars(barred)))
    }
}

/// Finds the GPU of which a device is a leftover ([`Gpu::leftover`]).
pub fn locate_leftover<'a>(
    gpus: impl IntoIterator<Item = &'a Gpu>,
    resource: &ResourceName,
    id: &DeviceId,
) -> Option<(usize, Leftover)> {
    gpus.into_iter().enumerate().find_map(|(g, gpu)| Some((g, gpu.leftover(resource, id)?)))
}

/// Finds the GPU and the offer that a device id of `resource` belongs to.
pub fn locate<'a>(
    gpus: impl IntoIterator<Item = &'a Gpu>,
    resource: &ResourceName,
    id: &DeviceId,
) -> Option<(usize, usize)> {
    gpus.into_iter().enumerate().find_map(|(g, gpu)| gpu.offer_of(resource, id).map(|offer| (g, offer)))
}
