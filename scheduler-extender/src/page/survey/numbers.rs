//! The numbers behind a reason. kube-scheduler groups nodes by equal texts, so the texts have none; here they are.

use std::collections::{BTreeSet, HashMap};
use std::time::Instant;

use stowage_shared::count::Devices;
use stowage_shared::pack::NoFit;
use stowage_shared::policy::{NotAllowed, WhyNot};
use stowage_shared::resource::ResourceName;

use super::{Asker, NAMED, room, with_room};
use crate::state::{Class, NodeView, Room, Snapshot};

/// The numbers behind what some nodes say: what is wanted, and the most that one of them has.
pub(super) fn numbers(snapshot: &Snapshot, asker: &Asker, nodes: &[&NodeView], now: Instant) -> Vec<String> {
    let Some(first) = nodes.first() else { return Vec::new() };
    let why = with_room(snapshot, first, asker, now, |room| {
        room.place(&asker.want, &asker.namespace, &snapshot.mix).err()
    });
    match why.flatten() {
        Some(WhyNot::NoFit(NoFit::TooFew(resource) | NoFit::Unhealthy(resource) | NoFit::Full(resource))) => {
            devices(snapshot, asker, nodes, &resource, now)
        }
        Some(WhyNot::NoFit(NoFit::TooLarge(_)) | WhyNot::NotAllowed(NotAllowed::Memory)) => {
            let gpus =
                nodes.iter().filter_map(|node| node.usable(now).ok()).flat_map(|known| &known.now.gpus);
            let most = gpus.map(|state| state.gpu.kind.memory()).max().unwrap_or_default();
            vec![format!("the largest GPU of these nodes has {most}")]
        }
        Some(WhyNot::NotAllowed(NotAllowed::Model)) => {
            let gpus =
                nodes.iter().filter_map(|node| node.usable(now).ok()).flat_map(|known| &known.now.gpus);
            let models: BTreeSet<&str> = gpus.map(|state| state.gpu.kind.model()).collect();
            let models: Vec<&str> = models.into_iter().take(NAMED).collect();
            vec![format!("models there: {}", models.join(", "))]
        }
        // Which namespaces are there is not said: not everybody may know.
        Some(WhyNot::NotAllowed(_) | WhyNot::NoFit(NoFit::NotOffered(_))) | None => Vec::new(),
    }
}

fn devices(
    snapshot: &Snapshot,
    asker: &Asker,
    nodes: &[&NodeView],
    resource: &ResourceName,
    now: Instant,
) -> Vec<String> {
    let demand = &asker.want.demand;
    let wants = demand.devices.get(resource).copied().unwrap_or(0);
    // Nodes of one class have the same.
    let mut of_class: HashMap<Class, Devices> = HashMap::new();
    let mut most: Option<(Devices, &NodeView)> = None;
    let mut free_in_all: u64 = 0;
    for node in nodes {
        let Ok(known) = node.usable(now) else { continue };
        let has = match room(snapshot, node, known, asker) {
            Room::Class(known) => *of_class
                .entry(known.class)
                .or_insert_with(|| Devices::of(&known.now.gpus, resource, demand.share)),
            Room::Own(room) => Devices::of(&room.gpus, resource, demand.share),
        };
        free_in_all += u64::from(has.free);
        // The first by name of those with the most.
        if most.is_none_or(|(best, _)| has.free > best.free) {
            most = Some((has, node));
        }
    }
    let Some((has, node)) = most else { return Vec::new() };
    let mut lines = vec![has.beside(wants, &node.name)];
    if has.free >= wants && demand.devices.len() > 1 {
        lines.push("what is free there does not fit together with the other devices that it asks for".into());
    }
    if wants > has.free && free_in_all >= u64::from(wants) {
        lines.push(format!("{free_in_all} are free on all these nodes together, scattered"));
    }
    lines
}
