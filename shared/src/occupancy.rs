//! How much of a GPU is in use: a few bytes, asked millions of times.

use std::sync::Arc;

use crate::gpu::{Gpu, GpuKind, Leftover};
use crate::resource::ResourceName;
use crate::share::ShareSize;
use crate::units::MemoryMib;

/// What of a GPU is handed out, counted by its kind's offers. Its order means nothing: it puts those that are alike together.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Occupancy {
    /// Devices in use of each offer.
    counts: Vec<u32>,
    /// Shares whose pods say how much memory they need, and how much that is in all.
    sized: (u32, u64),
    /// Offers of which something is in use, as bits.
    in_use: u64,
    /// Offers that are nobody's because of what somebody has who came under another configuration, as bits.
    barred: u64,
}

impl Occupancy {
    /// A GPU that nobody uses.
    pub fn idle(kind: &GpuKind) -> Self {
        Self { in_use: 0, counts: vec![0; kind.offers().len()], sized: (0, 0), barred: 0 }
    }

    /// Whether nobody uses it.
    pub fn is_idle(&self) -> bool {
        self.in_use | self.barred == 0
    }

    /// Whether somebody has the part of an offer under a name or in a form that is not offered any more.
    pub fn is_barred(&self, offer: usize) -> bool {
        self.barred & (1 << offer) != 0
    }

    /// How many devices of an offer are in use.
    pub fn in_use(&self, offer: usize) -> u32 {
        self.counts.get(offer).copied().unwrap_or(0)
    }

    /// How much of a shared GPU's memory the shares in use may take, in MiB.
    pub fn claimed_mib(&self, kind: &GpuKind, offer: usize) -> u64 {
        let equal = kind.equal_share(offer).unwrap_or(MemoryMib(0));
        let (sized, mib) = self.sized;
        mib.saturating_add(u64::from(self.in_use(offer).saturating_sub(sized)).saturating_mul(equal.0))
    }

    /// How many more devices of an offer could be handed out now, to pods that say nothing of sizes.
    pub fn room(&self, kind: &GpuKind, offer: usize) -> u32 {
        self.room_for(kind, offer, None)
    }

    /// How many more devices of an offer could be handed out now, to pods whose shares have this size.
    pub fn room_for(&self, kind: &GpuKind, offer: usize, size: Option<ShareSize>) -> u32 {
        if kind.conflicts(offer) & self.in_use != 0 || self.is_barred(offer) {
            return 0;
        }
        self.left(kind, offer, size)
    }

    /// The same, whatever else of the GPU is in use.
    fn left(&self, kind: &GpuKind, offer: usize, size: Option<ShareSize>) -> u32 {
        let Some(of) = kind.offers().get(offer) else { return 0 };
        let count = of.device_count().saturating_sub(self.in_use(offer));
        let size = size.filter(|_| of.replicas.is_some()).map(|size| size.of(kind.memory()).0);
        let Some(MemoryMib(equal)) = kind.equal_share(offer) else {
            // The shares of a MIG slice are alike.
            return if size.is_some() { 0 } else { count };
        };
        let size = size.unwrap_or(equal);
        if of.capped && size > equal {
            return 0;
        }
        let free = kind.memory().0.saturating_sub(self.claimed_mib(kind, offer));
        count.min(u32::try_from(free / size.max(1)).unwrap_or(u32::MAX))
    }

    /// How many more devices of `resource` could be handed out if nothing else were asked for.
    ///
    /// Offers of one resource may exclude each other; the free ones are taken from the last to the first,
    /// which is exact where a profile's placements do not overlap, as on every known geometry.
    pub fn copies(&self, kind: &GpuKind, resource: &ResourceName) -> u32 {
        self.copies_but(kind, resource, 0, None)
    }

    /// The same without the offers of a mask.
    fn copies_but(
        &self,
        kind: &GpuKind,
        resource: &ResourceName,
        without: u64,
        size: Option<ShareSize>,
    ) -> u32 {
        let (mut in_use, mut copies) = (self.in_use, 0);
        let without = without | self.barred;
        for (i, offer) in kind.offers().iter().enumerate().rev() {
            if &offer.resource == resource && (1 << i) & without == 0 && kind.conflicts(i) & in_use == 0 {
                let room = self.left(kind, i, size);
                if room > 0 {
                    copies += room;
                    in_use |= 1 << i;
                }
            }
        }
        copies
    }

    /// Hands one device of an offer out, whether or not there is room: what the kubelet did is a fact.
    pub fn take(&mut self, offer: usize) {
        if let Some(count) = self.counts.get_mut(offer) {
            *count = count.saturating_add(1);
            self.in_use |= 1 << offer;
        }
    }

    /// Hands a share out whose pod says how much memory it needs.
    fn take_sized(&mut self, offer: usize, memory: MemoryMib) {
        self.take(offer);
        self.sized = (self.sized.0.saturating_add(1), self.sized.1.saturating_add(memory.0));
    }

    /// Takes one device of an offer back.
    pub fn give_back(&mut self, offer: usize) {
        if let Some(count) = self.counts.get_mut(offer) {
            *count = count.saturating_sub(1);
            if *count == 0 {
                self.in_use &= !(1 << offer);
            }
        }
    }

    fn give_back_sized(&mut self, offer: usize, memory: MemoryMib) {
        self.give_back(offer);
        self.sized = (self.sized.0.saturating_sub(1), self.sized.1.saturating_sub(memory.0));
    }
}

/// A GPU and what of it is in use.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GpuState {
    /// The GPU.
    pub gpu: Arc<Gpu>,
    /// What of it is in use.
    pub occupancy: Occupancy,
}

impl GpuState {
    /// A GPU that nobody uses.
    pub fn idle(gpu: Arc<Gpu>) -> Self {
        let occupancy = Occupancy::idle(&gpu.kind);
        Self { gpu, occupancy }
    }

    /// How many more devices of an offer could be handed out now; none while the GPU or the offer is unhealthy.
    pub fn room(&self, offer: usize) -> u32 {
        self.room_for(offer, None)
    }

    /// The same for shares of this size.
    pub fn room_for(&self, offer: usize, size: Option<ShareSize>) -> u32 {
        let Self { gpu, occupancy } = self;
        if gpu.why_not(offer).is_some() { 0 } else { occupancy.room_for(&gpu.kind, offer, size) }
    }

    /// Hands one device of an offer out, to a pod whose shares have this size, whether or not there is room.
    pub fn take(&mut self, offer: usize, size: Option<ShareSize>) {
        match self.claim(offer, size) {
            Some(memory) => self.occupancy.take_sized(offer, memory),
            None => self.occupancy.take(offer),
        }
    }

    /// Counts what somebody has who came under another configuration, and whose shares have this size.
    pub fn keep(&mut self, leftover: Leftover, size: Option<ShareSize>) {
        match leftover {
            Leftover::Share(offer) => self.take(offer, size),
            Leftover::Bars(offers) => self.occupancy.barred |= offers,
        }
    }

    /// Takes back what [`GpuState::take`] handed out.
    pub fn give_back(&mut self, offer: usize, size: Option<ShareSize>) {
        match self.claim(offer, size) {
            Some(memory) => self.occupancy.give_back_sized(offer, memory),
            None => self.occupancy.give_back(offer),
        }
    }

    /// What a share of this size takes of the GPU; `None` where the device is no share, or no size is said.
    fn claim(&self, offer: usize, size: Option<ShareSize>) -> Option<MemoryMib> {
        self.gpu.kind.equal_share(offer)?;
        size.map(|size| size.of(self.gpu.kind.memory()))
    }

    /// How many more devices of `resource` could be handed out if nothing else were asked for.
    pub fn copies(&self, resource: &ResourceName) -> u32 {
        self.copies_for(resource, None)
    }

    /// The same for shares of this size.
    pub fn copies_for(&self, resource: &ResourceName, size: Option<ShareSize>) -> u32 {
        self.occupancy.copies_but(&self.gpu.kind, resource, self.gpu.sick_offers(), size)
    }
}
