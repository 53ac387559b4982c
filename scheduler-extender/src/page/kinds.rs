//! Kinds of GPUs, each told once: thousands of GPUs share a few.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde_json::{Value, json};
use stowage_shared::gpu::{GpuKind, Part};

/// The kinds seen so far, numbered in the order of their appearance.
#[derive(Debug, Default)]
pub(super) struct Kinds {
    numbers: BTreeMap<Arc<GpuKind>, usize>,
    last: Option<(Arc<GpuKind>, usize)>,
    /// Those that nobody was told of.
    new: Vec<String>,
}

impl Kinds {
    /// The number of a kind.
    pub(super) fn number(&mut self, kind: &Arc<GpuKind>) -> usize {
        // A node's GPUs are mostly of one kind, and alike means the same in memory.
        if let Some((last, number)) = &self.last
            && Arc::ptr_eq(last, kind)
        {
            return *number;
        }
        let next = self.numbers.len();
        let number = *self.numbers.entry(kind.clone()).or_insert_with(|| {
            self.new.push(told(kind).to_string());
            next
        });
        self.last = Some((kind.clone(), number));
        number
    }

    /// The JSON of those that came up since the last call.
    pub(super) fn take_new(&mut self) -> Vec<String> {
        std::mem::take(&mut self.new)
    }
}

/// `{model, memoryMib, offers: [[resource, profile, start, size, replicas]]}`; the whole GPU has no profile and no size,
/// what is exclusive no replicas.
fn told(kind: &GpuKind) -> Value {
    let offer = |offer: &stowage_shared::gpu::Offer| {
        let (profile, start, size) = match &offer.part {
            Part::Whole => ("", 0, 0),
            Part::Slice(slice) => (slice.profile.as_str(), slice.start, slice.size),
        };
        json!([offer.resource.as_str(), profile, start, size, offer.replicas.unwrap_or(0)])
    };
    let offers: Vec<Value> = kind.offers().iter().map(offer).collect();
    json!({ "model": kind.model(), "memoryMib": kind.memory().0, "offers": offers })
}
