//! The requests to come, and what they are worth.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::market::Market;
use crate::gpu::{Gpu, GpuKind, Offer, Part};
use crate::mig::MigSlice;
use crate::occupancy::GpuState;
use crate::resource::ResourceName;

/// One kind of request to come: so many devices of one resource, all on one node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Shape {
    /// How many devices.
    pub count: u32,
    /// What one such request is worth, in thousandths of a GPU.
    pub milli: u64,
}

/// The shapes that are expected, by resource.
///
/// A placement is judged by how many requests of each shape its node could take alone before and after it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Mix {
    shapes: BTreeMap<ResourceName, Vec<Shape>>,
    market: Option<Arc<Market>>,
}

/// Pods of several whole GPUs come in these sizes.
const WHOLE_COUNTS: [u32; 4] = [1, 2, 4, 8];

impl Mix {
    /// What to expect of a cluster with these GPUs while nothing is known of its pods: one device of each
    /// resource that is offered, and 1, 2, 4 and 8 whole GPUs together.
    ///
    /// A request is worth what it occupies, and the smallest offer of a resource counts, so that equal
    /// requests are worth the same wherever they land. A profile with media engines (`+me`) is not expected where its
    /// GPU offers slices of that size without them: it needs the same places, which would count twice.
    pub fn prior<'a>(gpus: impl IntoIterator<Item = &'a Gpu>) -> Self {
        let mut worth: BTreeMap<ResourceName, (u64, bool)> = BTreeMap::new();
        for gpu in gpus {
            for offer in gpu.kind.offers().iter().filter(|offer| !is_twin(&gpu.kind, offer)) {
                let milli = gpu.kind.milli(&offer.part) / u64::from(offer.device_count().max(1));
                let whole = offer.part == Part::Whole && offer.replicas.is_none();
                let entry = worth.entry(offer.resource.clone()).or_insert((milli, whole));
                *entry = (entry.0.min(milli), entry.1 && whole);
            }
        }
        let shapes = worth.into_iter().map(|(resource, (milli, whole))| {
            let counts: &[u32] = if whole { &WHOLE_COUNTS } else { &WHOLE_COUNTS[..1] };
            let shape = |&count: &u32| Shape { count, milli: milli.max(1) * u64::from(count) };
            (resource, counts.iter().map(shape).collect())
        });
        Self { shapes: shapes.collect(), market: None }
    }

    /// The same, with what is known of this cluster's pods.
    pub fn with(self, market: Arc<Market>) -> Self {
        Self { market: Some(market), ..self }
    }

    /// What is known of this cluster's pods.
    pub fn market(&self) -> Option<&Arc<Market>> {
        self.market.as_ref()
    }

    /// The resources that are expected, with their shapes.
    pub fn shapes(&self) -> impl Iterator<Item = (&ResourceName, &[Shape])> {
        self.shapes.iter().map(|(resource, shapes)| (resource, shapes.as_slice()))
    }

    /// What a node could still take, each shape by itself, in thousandths of a GPU.
    pub fn value(&self, gpus: &[GpuState]) -> u64 {
        let copies = |resource: &ResourceName| -> u32 { gpus.iter().map(|gpu| gpu.copies(resource)).sum() };
        self.shapes().map(|(resource, shapes)| worth(shapes, copies(resource))).sum()
    }

    /// What a GPU could take again when one of those who use it leaves, in thousandths of a GPU, summed over them.
    ///
    /// Of two places that take away equally much, the better one leaves more of this: pods come and go, and room
    /// that comes back in large pieces is worth more than the same room between pods that stay.
    pub(super) fn returns(&self, gpu: &GpuState) -> u64 {
        let single = |(resource, shapes): (_, &[Shape]), gpu: &GpuState| {
            worth(shapes.get(..1).unwrap_or_default(), gpu.copies(resource))
        };
        let value = |gpu: &GpuState| -> u64 { self.shapes().map(|shape| single(shape, gpu)).sum() };
        let now = value(gpu);
        let mut without = gpu.clone();
        let mut sum = 0;
        for (offer, of) in gpu.gpu.kind.offers().iter().enumerate() {
            // Shares come and go in a GPU that stays as it is: only slices leave larger pieces.
            if of.part == Part::Whole {
                continue;
            }
            let leavers = u64::from(gpu.occupancy.in_use(offer));
            if leavers > 0 {
                without.occupancy.give_back(offer);
                sum += leavers * value(&without).saturating_sub(now);
                without.occupancy.take(offer);
            }
        }
        sum
    }
}

/// Whether an offer is a slice with media engines on a GPU that offers slices of that size without them.
fn is_twin(kind: &GpuKind, offer: &Offer) -> bool {
    let Part::Slice(slice) = &offer.part else { return false };
    let plain = |other: &MigSlice| !other.media_engines && other.size == slice.size;
    slice.media_engines && kind.offers().iter().any(|other| matches!(&other.part, Part::Slice(s) if plain(s)))
}

/// What `copies` single devices on one node are worth to requests of these shapes.
pub(super) fn worth(shapes: &[Shape], copies: u32) -> u64 {
    shapes.iter().map(|shape| u64::from(copies / shape.count.max(1)) * shape.milli).sum()
}
