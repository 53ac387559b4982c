//! GPUs that are not there.

use std::collections::BTreeMap;
use std::sync::Arc;

use stowage_shared::gpu::{Gpu, GpuKind};

/// The GPU of that number, all of whose slices are built when somebody takes them.
pub(crate) fn on_demand(kind: &Arc<GpuKind>, index: usize) -> Gpu {
    Gpu {
        uuid: format!("GPU-{index}").parse().expect("GPU- and a number is a GPU UUID"),
        index: u32::try_from(index).unwrap_or(u32::MAX),
        numa_node: None,
        near: Vec::new(),
        kind: kind.clone(),
        part_uuids: vec![String::new(); kind.offers().len()],
        foreign: Vec::new(),
        unhealthy: None,
        sick: BTreeMap::new(),
    }
}
