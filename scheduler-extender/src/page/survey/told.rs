//! The answer, as the page reads it.

use serde::Serialize;
use stowage_shared::occupancy::GpuState;
use stowage_shared::tally::Tally;

/// What the nodes say.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(in crate::page) struct Survey {
    /// What it asks for, in words.
    pub(super) asks: String,
    /// What else it wants of its placement, in words.
    pub(super) policy: String,
    /// On how many nodes it fits.
    pub(super) fits: usize,
    /// Where it would go.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) best: Option<Best>,
    /// The next best nodes.
    pub(super) next: Vec<String>,
    /// The others, by what they say; most nodes first.
    pub(super) does_not_fit: Vec<Group>,
}

/// Where it would go.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Best {
    pub(super) node: String,
    /// `[index of the GPU, its UUID, resource, profile, start]` for each device.
    pub(super) devices: Vec<(u32, String, String, String, u8)>,
    pub(super) cost: CostTold,
    /// The node before and after, in thousandths of a GPU.
    pub(super) before: TallyTold,
    pub(super) after: TallyTold,
}

/// [`Cost`](stowage_shared::pack::Cost), with names for a browser.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct CostTold {
    pub(super) lost: u64,
    pub(super) wakes_node: bool,
    pub(super) wakes_gpus: u32,
    pub(super) returns_less: i64,
    pub(super) room_left: u32,
}

/// [`Tally`], with names for a browser.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct TallyTold {
    pub(super) in_use: u64,
    pub(super) free: u64,
    pub(super) stranded: u64,
}

impl TallyTold {
    pub(super) fn of(gpus: &[GpuState]) -> Self {
        let Tally { in_use, free, stranded, .. } = Tally::of(gpus);
        Self { in_use, free, stranded }
    }
}

/// Nodes that say the same.
#[derive(Debug, Serialize)]
pub(super) struct Group {
    pub(super) text: String,
    pub(super) nodes: usize,
    /// Whether it would still be so if every pod left.
    pub(super) permanent: bool,
    /// The numbers behind it.
    pub(super) numbers: Vec<String>,
    /// Some of the nodes.
    pub(super) some: Vec<String>,
}
