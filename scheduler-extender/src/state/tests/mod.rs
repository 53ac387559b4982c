mod assumed;
mod believed;
mod expected;
mod nominated;
mod world;

use std::time::Duration;

use jiff::Timestamp;
use stowage_shared::occupancy::GpuState;
use stowage_shared::resource::ResourceName;

use super::event::{Change, Event, GpuNode, Node, Pod};
use super::*;
use crate::synthetic;

const NODE: &str = "gpu-node-0";

fn start() -> Now {
    Now { monotonic: std::time::Instant::now(), wall: Timestamp::from_second(1_795_510_800).unwrap() }
}

fn later(now: Now, seconds: i64) -> Now {
    let by = Duration::from_secs(seconds.unsigned_abs());
    Now { monotonic: now.monotonic + by, wall: now.wall + by }
}

fn pod_applied(pod: &Pod) -> Event {
    Event::Pod(Change::Applied(pod.clone()))
}

/// The pod as the watch shows it once a Binding with this plan was carried out.
fn bound(pod: &Pod, node: &str, plan: &str) -> Pod {
    Pod { node: node.to_owned(), plan: Some(plan.to_owned()), ..pod.clone() }
}

/// Devices in use of a node's GPU, whichever offer they belong to.
fn in_use(state: &mut State, node: &str, gpu: usize) -> u32 {
    let view = state.view(node).unwrap();
    let NodeGpus::Known(known) = &view.gpus else { panic!("{view:?}") };
    count(&known.now.gpus[gpu])
}

fn count(gpu: &GpuState) -> u32 {
    (0..gpu.gpu.kind.offers().len()).map(|offer| gpu.occupancy.in_use(offer)).sum()
}

/// Devices in use of the whole node.
fn all_in_use(state: &mut State, node: &str) -> u32 {
    (0..synthetic::GPUS_PER_NODE as usize).map(|gpu| in_use(state, node, gpu)).sum()
}

/// What can be compared of two snapshots: not the numbers of classes, and not moments.
fn look(snapshot: &Snapshot) -> Vec<(String, Option<Vec<GpuState>>, Option<Unknown>)> {
    let node = |node: &NodeView| match &node.gpus {
        NodeGpus::None => (node.name.to_string(), None, None),
        NodeGpus::Unknown(why) => (node.name.to_string(), None, Some(*why)),
        NodeGpus::Known(known) => (node.name.to_string(), Some(known.now.gpus.clone()), None),
    };
    snapshot.nodes().map(node).collect()
}
