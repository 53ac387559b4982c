//! How much of a GPU is in use: a few bytes, asked millions of times.

use std::sync::Arc;

use crate::gpu::{Gpu, GpuKind};
use crate::resource::ResourceName;

/// What of a GPU is handed out, counted by its kind's offers.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Occupancy {
    in_use: u64,
    /// Devices in use of each offer.
    counts: Vec<u32>,
}

impl Occupancy {
    /// A GPU that nobody uses.
    pub fn idle(kind: &GpuKind) -> Self {
        Self { in_use: 0, counts: vec![0; kind.offers().len()] }
    }

    /// Whether nobody uses it.
    pub fn is_idle(&self) -> bool {
        self.in_use == 0
    }

    /// How many devices of an offer are in use.
    pub fn in_use(&self, offer: usize) -> u32 {
        self.counts.get(offer).copied().unwrap_or(0)
    }

    /// How many more devices of an offer could be handed out now.
    pub fn room(&self, kind: &GpuKind, offer: usize) -> u32 {
        if kind.conflicts(offer) & self.in_use != 0 {
            return 0;
        }
        kind.offers().get(offer).map_or(0, |o| o.device_count().saturating_sub(self.in_use(offer)))
    }

    /// How many more devices of `resource` could be handed out if nothing else were asked for.
    ///
    /// Offers of one resource may exclude each other; the free ones are taken from the last to the first,
    /// which is exact where a profile's placements do not overlap, as on every known geometry.
    pub fn copies(&self, kind: &GpuKind, resource: &ResourceName) -> u32 {
        self.copies_but(kind, resource, 0)
    }

    /// The same without the offers of a mask.
    fn copies_but(&self, kind: &GpuKind, resource: &ResourceName, without: u64) -> u32 {
        let (mut in_use, mut copies) = (self.in_use, 0);
        for (i, offer) in kind.offers().iter().enumerate().rev() {
            if &offer.resource == resource && (1 << i) & without == 0 && kind.conflicts(i) & in_use == 0 {
                let room = offer.device_count().saturating_sub(self.in_use(i));
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

    /// Takes one device of an offer back.
    pub fn give_back(&mut self, offer: usize) {
        if let Some(count) = self.counts.get_mut(offer) {
            *count = count.saturating_sub(1);
            if *count == 0 {
                self.in_use &= !(1 << offer);
            }
        }
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
        if self.gpu.why_not(offer).is_some() { 0 } else { self.occupancy.room(&self.gpu.kind, offer) }
    }

    /// How many more devices of `resource` could be handed out if nothing else were asked for.
    pub fn copies(&self, resource: &ResourceName) -> u32 {
        self.occupancy.copies_but(&self.gpu.kind, resource, self.gpu.sick_offers())
    }
}
