//! GPUs that are alike, and how large what they are offered as is.

use std::collections::BTreeMap;

use super::GPU_MILLI;
use crate::gpu::{GpuKind, Offer, Part};
use crate::resource::ResourceName;
use crate::share::ShareSize;
use crate::units::MemoryMib;

/// GPUs that are alike.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Stand {
    /// NVML's product name.
    pub model: String,
    /// Of one card.
    pub memory: MemoryMib,
    /// Under which names they are to be had, and how large one such device is.
    pub offers: BTreeMap<ResourceName, Size>,
    /// How many GPUs.
    pub gpus: u64,
}

/// How large a device is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Size {
    /// In thousandths of a GPU.
    pub milli: u16,
    /// Whether it is a slice.
    pub slice: bool,
}

impl Stand {
    /// So many GPUs that are alike, of which one is of this kind.
    pub fn new(kind: &GpuKind, gpus: u64) -> Self {
        let size = |offer: &Offer| {
            let milli = kind.milli(&offer.part).div_ceil(offer.device_count().max(1).into());
            Size { milli: u16::try_from(milli).unwrap_or(GPU_MILLI).max(1), slice: offer.part != Part::Whole }
        };
        let mut offers: BTreeMap<ResourceName, Size> = BTreeMap::new();
        for offer in kind.offers() {
            // Of several sizes under one name, the smallest.
            let size = size(offer);
            offers
                .entry(offer.resource.clone())
                .and_modify(|known| *known = size.min(*known))
                .or_insert(size);
        }
        Self { model: kind.model().to_owned(), memory: kind.memory(), offers, gpus }
    }

    /// Whether they are to be had in slices only.
    pub fn is_only_cut(&self) -> bool {
        self.offers.values().all(|size| size.slice)
    }

    /// How large one device is; `None` where it is larger than the GPU.
    pub fn size(&self, resource: &ResourceName, share: Option<ShareSize>) -> Option<Size> {
        let equal = *self.offers.get(resource)?;
        let milli = match share.filter(|_| !equal.slice) {
            None => u64::from(equal.milli),
            Some(ShareSize::Milli(milli)) => u64::from(milli),
            Some(ShareSize::Memory(MemoryMib(mib))) => {
                mib.saturating_mul(GPU_MILLI.into()).div_ceil(self.memory.0.max(1))
            }
        };
        let milli = u16::try_from(milli).ok().filter(|&milli| milli <= GPU_MILLI)?;
        Some(Size { milli, ..equal })
    }
}
