//! How many devices of one resource a node has, and how many of them somebody could still get: what a person is told where a
//! pod does not fit.

use crate::occupancy::GpuState;
use crate::resource::ResourceName;
use crate::share::ShareSize;

/// Devices of a resource on a node; of shares, those as large as they are asked for.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Devices {
    /// Could be handed out now.
    pub free: u32,
    /// Are in use or promised.
    pub in_use: u32,
    /// Could be handed out if nothing were in use.
    pub possible: u32,
    /// Could be handed out if they were healthy.
    pub ill: u32,
}

impl Devices {
    /// Counts them.
    pub fn of(gpus: &[GpuState], resource: &ResourceName, share: Option<ShareSize>) -> Self {
        gpus.iter().fold(Self::default(), |sum, state| {
            let offers = state.gpu.kind.offers_of(resource);
            let ill =
                state.occupancy.copies(&state.gpu.kind, resource).saturating_sub(state.copies(resource));
            Self {
                free: sum.free + state.copies_for(resource, share),
                in_use: sum.in_use + offers.map(|(offer, _)| state.occupancy.in_use(offer)).sum::<u32>(),
                possible: sum.possible + GpuState::idle(state.gpu.clone()).copies_for(resource, share),
                ill: sum.ill + ill,
            }
        })
    }

    /// What is wanted of a node, beside what the one with the most has.
    pub fn beside(&self, wants: u32, node: &str) -> String {
        let Self { free, in_use, possible, ill } = self;
        let ill = if *ill == 0 { String::new() } else { format!(", {ill} unhealthy") };
        format!(
            "wants {wants} on one node; the most free is {free}, on {node} (of {possible} possible, {in_use} in use{ill})"
        )
    }
}
