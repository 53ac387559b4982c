//! What every node says to one pod: where it would go and what that takes away, or why it goes nowhere, with the numbers.
//!
//! By the same judgements as filter and prioritize, with a memory of its own: nobody who looks at the map makes a filter
//! wait. What kube-scheduler itself looks at (cpu, memory, taints, affinity) is not looked at here, and the answer says so.

#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Instant;

use serde::Serialize;
use stowage_shared::belief::NO_GPUS;
use stowage_shared::gpu::Part;
use stowage_shared::occupancy::GpuState;
use stowage_shared::pack::{Cost, NoFit, Placement};
use stowage_shared::policy::{NotAllowed, Occupied, Rank, Want, WhyNot};
use stowage_shared::resource::ResourceName;
use stowage_shared::share::ShareSize;
use stowage_shared::tally::Tally;
use stowage_shared::topology::draw_together;

use crate::state::{Class, KnownGpus, NodeView, Room, Snapshot};
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

/// What the nodes say.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Survey {
    /// What it asks for, in words.
    asks: String,
    /// What else it wants of its placement, in words.
    policy: String,
    /// On how many nodes it fits.
    fits: usize,
    /// Where it would go.
    #[serde(skip_serializing_if = "Option::is_none")]
    best: Option<Best>,
    /// The next best nodes.
    next: Vec<String>,
    /// The others, by what they say; most nodes first.
    does_not_fit: Vec<Group>,
}

/// Where it would go.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Best {
    node: String,
    /// `[index of the GPU, its UUID, resource, profile, start]` for each device.
    devices: Vec<(u32, String, String, String, u8)>,
    cost: CostTold,
    /// The node before and after, in thousandths of a GPU.
    before: TallyTold,
    after: TallyTold,
}

/// [`Cost`], with names for a browser.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct CostTold {
    lost: u64,
    wakes_node: bool,
    wakes_gpus: u32,
    returns_less: i64,
    room_left: u32,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct TallyTold {
    in_use: u64,
    free: u64,
    stranded: u64,
}

/// Nodes that say the same.
#[derive(Debug, Serialize)]
struct Group {
    text: String,
    nodes: usize,
    /// Whether it would still be so if every pod left.
    permanent: bool,
    /// The numbers behind it.
    numbers: Vec<String>,
    /// Some of the nodes.
    some: Vec<String>,
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
        let device = |(resource, chosen): (&ResourceName, &stowage_shared::pack::Chosen)| {
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
            before: told(&room.gpus),
            after: told(&after.gpus),
        })
    });
    placed.flatten()
}

fn told(gpus: &[GpuState]) -> TallyTold {
    let Tally { in_use, free, stranded, .. } = Tally::of(gpus);
    TallyTold { in_use, free, stranded }
}

/// The numbers behind what some nodes say: what is wanted, and the most that one of them has.
fn numbers(snapshot: &Snapshot, asker: &Asker, nodes: &[&NodeView], now: Instant) -> Vec<String> {
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
            let models: std::collections::BTreeSet<&str> = gpus.map(|state| state.gpu.kind.model()).collect();
            let models: Vec<&str> = models.into_iter().take(NAMED).collect();
            vec![format!("models there: {}", models.join(", "))]
        }
        // Which namespaces are there is not said: not everybody may know.
        Some(WhyNot::NotAllowed(_) | WhyNot::NoFit(NoFit::NotOffered(_))) | None => Vec::new(),
    }
}

/// Devices of a resource on a node.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Devices {
    free: u32,
    in_use: u32,
    possible: u32,
    ill: u32,
}

impl Devices {
    fn of(states: &[GpuState], resource: &ResourceName, share: Option<ShareSize>) -> Self {
        let mut sum = Self { free: 0, in_use: 0, possible: 0, ill: 0 };
        for state in states {
            let offers = state.gpu.kind.offers_of(resource);
            let free = state.copies_for(resource, share);
            sum.free += free;
            sum.in_use += offers.map(|(offer, _)| state.occupancy.in_use(offer)).sum::<u32>();
            sum.possible += GpuState::idle(state.gpu.clone()).copies_for(resource, share);
            sum.ill +=
                state.occupancy.copies(&state.gpu.kind, resource).saturating_sub(state.copies(resource));
        }
        sum
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
    let Some((Devices { free, in_use, possible, ill }, node)) = most else { return Vec::new() };
    let ill = if ill == 0 { String::new() } else { format!(", {ill} unhealthy") };
    let mut lines = vec![format!(
        "wants {wants} on one node; the most free is {free}, on {} (of {possible} possible, {in_use} in use{ill})",
        node.name
    )];
    if free >= wants && demand.devices.len() > 1 {
        lines.push("what is free there does not fit together with the other devices that it asks for".into());
    }
    if wants > free && free_in_all >= u64::from(wants) {
        lines.push(format!("{free_in_all} are free on all these nodes together, scattered"));
    }
    lines
}
