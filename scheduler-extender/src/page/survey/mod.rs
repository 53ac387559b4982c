//! What every node says to one pod: where it would go and what that takes away, or why it goes nowhere, with the numbers.
//!
//! By the same judgements as filter and prioritize, with a memory of its own: nobody who looks at the map makes a filter
//! wait. What kube-scheduler itself looks at (cpu, memory, taints, affinity) is not looked at here, and the answer says so.

mod numbers;
#[cfg(test)]
mod tests;
mod told;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Instant;

use stowage_shared::belief::NO_GPUS;
use stowage_shared::gpu::Part;
use stowage_shared::pack::{Chosen, Cost, Placement};
use stowage_shared::policy::{Occupied, Rank, Want};
use stowage_shared::resource::ResourceName;
use stowage_shared::share::ShareSize;
use stowage_shared::topology::draw_together;

use self::numbers::numbers;
use self::told::{Best, CostTold, Group, Survey, TallyTold};
use crate::state::{KnownGpus, NodeView, Room, Snapshot};
use crate::verbs::{Judgement, Memo};

/// Nodes that are named beside the best one, and of each reason.
const NAMED: usize = 5;

/// Who asks.
#[derive(Debug, Clone)]
pub(super) struct Asker {
    /// Its UID; empty where it does not exist.
    pub(super) uid: String,
    /// Its namespace.
    pub(super) namespace: String,
    /// Its priority.
    pub(super) priority: i32,
    /// What it wants.
    pub(super) want: Want,
}

/// What a pod asks for, in words: `2 x nvidia.com/gpu.shared of 3072 MiB`.
pub(super) fn asks(want: &Want) -> String {
    let size = match want.demand.share {
        None => String::new(),
        Some(ShareSize::Memory(memory)) => format!(" of {memory}"),
        Some(ShareSize::Milli(milli)) => format!(" of {milli}/1000 GPU"),
    };
    let one = |(resource, count): (&ResourceName, &u32)| format!("{count} x {resource}{size}");
    want.demand.devices.iter().map(one).collect::<Vec<_>>().join(", ")
}

/// Asks every node.
pub(super) fn survey(snapshot: &Snapshot, memo: &Memo, asker: &Asker, now: Instant) -> Survey {
    let mut fits: Vec<(Rank, &NodeView)> = Vec::new();
    let mut groups: BTreeMap<(bool, Arc<str>), Vec<&NodeView>> = BTreeMap::new();
    // One look-up for all nodes that are judged by their class.
    let (mut by_class, mut known): (Vec<&NodeView>, Vec<&KnownGpus>) = (Vec::new(), Vec::new());
    let mut judged: Vec<(&NodeView, Judgement)> = Vec::new();
    for node in snapshot.nodes() {
        match node.usable(now) {
            Err(None) => groups.entry((true, NO_GPUS.into())).or_default().push(node),
            Err(Some(why)) => groups.entry((true, why.text().into())).or_default().push(node),
            Ok(gpus) => match room(snapshot, node, gpus, asker) {
                Room::Class(gpus) => {
                    by_class.push(node);
                    known.push(gpus);
                }
                Room::Own(room) => {
                    let judgement = Judgement::of_room(&room, &asker.want, &asker.namespace, &snapshot.mix);
                    judged.push((node, judgement));
                }
            },
        }
    }
    let judgements = memo.weigh(snapshot, &asker.want, &asker.namespace, known);
    for (node, judgement) in judged.into_iter().chain(by_class.into_iter().zip(judgements)) {
        match judgement {
            Judgement::Fits(rank) => fits.push((rank, node)),
            Judgement::DoesNot { text, permanent, .. } => {
                groups.entry((permanent, text)).or_default().push(node)
            }
        }
    }
    fits.sort_by(|one, two| (one.0, &one.1.name).cmp(&(two.0, &two.1.name)));
    let group = |((permanent, text), nodes): ((bool, Arc<str>), Vec<&NodeView>)| Group {
        numbers: numbers(snapshot, asker, &nodes, now),
        text: text.to_string(),
        nodes: nodes.len(),
        permanent,
        some: nodes.iter().take(NAMED).map(|node| node.name.to_string()).collect(),
    };
    let mut does_not_fit: Vec<Group> = groups.into_iter().map(group).collect();
    // What may change comes first: it is what a person can do something about.
    does_not_fit.sort_by_key(|group| (group.permanent, std::cmp::Reverse(group.nodes)));
    Survey {
        asks: asks(&asker.want),
        policy: asker.want.policy.to_string(),
        fits: fits.len(),
        best: fits.first().and_then(|(_, node)| best(snapshot, node, asker, now)),
        next: fits.iter().skip(1).take(NAMED).map(|(_, node)| node.name.to_string()).collect(),
        does_not_fit,
    }
}

fn room<'a>(snapshot: &Snapshot, node: &'a NodeView, known: &'a KnownGpus, asker: &Asker) -> Room<'a> {
    node.nominated
        .as_ref()
        .map_or(Room::Class(known), |kept| kept.room(known, asker.priority, &asker.uid, &snapshot.mix))
}

fn with_room<T>(
    snapshot: &Snapshot,
    node: &NodeView,
    asker: &Asker,
    now: Instant,
    look: impl FnOnce(&Occupied) -> T,
) -> Option<T> {
    let known = node.usable(now).ok()?;
    Some(match room(snapshot, node, known, asker) {
        Room::Class(known) => look(&known.now),
        Room::Own(room) => look(&room),
    })
}

fn best(snapshot: &Snapshot, node: &NodeView, asker: &Asker, now: Instant) -> Option<Best> {
    let Asker { want, namespace, .. } = asker;
    let placed = with_room(snapshot, node, asker, now, |room| {
        let mut placement: Placement = room.place(want, namespace, &snapshot.mix).ok()?;
        // As bind does.
        draw_together(&mut placement, &room.gpus, &[]);
        let mut after = room.clone();
        after.settle(&placement, want, namespace);
        let device = |(resource, chosen): (&ResourceName, &Chosen)| {
            let gpu = &room.gpus[chosen.gpu].gpu;
            let (profile, start) = match &gpu.kind.offers()[chosen.offer].part {
                Part::Whole => (String::new(), 0),
                Part::Slice(slice) => (slice.profile.to_string(), slice.start),
            };
            (gpu.index, gpu.uuid.to_string(), resource.to_string(), profile, start)
        };
        let devices =
            placement.devices.iter().flat_map(|(resource, all)| all.iter().map(move |one| (resource, one)));
        let Cost { lost, wakes_node, wakes_gpus, returns_less, room_left } = placement.cost;
        Some(Best {
            node: node.name.to_string(),
            devices: devices.map(device).collect(),
            cost: CostTold { lost, wakes_node, wakes_gpus, returns_less, room_left },
            before: TallyTold::of(&room.gpus),
            after: TallyTold::of(&after.gpus),
        })
    });
    placed.flatten()
}
