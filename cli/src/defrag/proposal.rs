//! Which pods to move, and what it gains. Pure: the search itself is `stowage_shared::moves`.

use std::collections::BTreeMap;

use k8s_openapi::api::policy::v1::PodDisruptionBudget;
use serde::Serialize;
use stowage_shared::moves::{self, Cluster, Limits, Move, Who};
use stowage_shared::pack::{Chosen, Demand};
use stowage_shared::policy::ShareWith;
use stowage_shared::resource::ResourceName;

use super::Options;
use super::stays::{controller, why_it_stays};
use crate::describe;
use crate::world::{NodeState, PodFacts, World, in_tree};

/// Arrangements that are looked at: some seconds on a large cluster.
const TRIES: u32 = 20_000;

/// What is proposed.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Proposal {
    /// Moves that belong together, most gain first. Each builds on those before it.
    pub steps: Vec<Step>,
    /// Why pods that hold GPUs were left alone, and how many.
    pub stay: BTreeMap<String, usize>,
    /// How many pods that hold GPUs there are.
    pub pods: usize,
    /// What the cluster could take of everything that is expected, each by itself, in thousandths of a GPU.
    pub value: u64,
}

/// Moves of which none helps without the others.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Step {
    /// The moves.
    pub moves: Vec<Planned>,
    /// What fits more afterwards, each expected request by itself, in thousandths of a GPU.
    pub gained_milli: u64,
    /// The pod that then fits, where one was asked about.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub lets_in: Option<String>,
}

/// One pod that moves.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Planned {
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// Its UID.
    pub uid: String,
    /// Its priority.
    pub priority: i32,
    /// Where it is.
    pub from: String,
    /// And what it has there.
    pub from_devices: String,
    /// Where it should go.
    pub to: String,
    /// And what it would get there.
    pub to_devices: String,
}

/// Looks for moves; `waiting` is a pod that they should let in.
pub fn propose(
    world: &World,
    budgets: &[PodDisruptionBudget],
    waiting: Option<&PodFacts>,
    options: &Options,
) -> Proposal {
    let (pods, holders, stay) = holders(world, budgets, options);
    let states = world.nodes.iter().map(|node| node.states().to_vec()).collect();
    let mut cluster = Cluster::new(states, world.mix.clone());
    let value = cluster.value();
    let may = |who: Who, node: usize| match who {
        Who::Waiting => waiting.is_some_and(|pod| may_go(pod, &world.nodes[node])),
        Who::Holder(holder) => may_go(pods[holder], &world.nodes[node]),
    };
    let limits = Limits { moves: options.max_moves, tries: TRIES };
    let planned = |step: &Move| planned(world, pods[step.holder], &holders[step.holder], step);
    let steps = match waiting.map(|pod| (pod, pod.request.as_ref().map(|request| request.demand()))) {
        Some((pod, Ok(demand))) => {
            let room = moves::make_room(&mut cluster, &holders, &demand, &may, limits);
            let step = room.filter(|room| !room.moves.is_empty()).map(|room| Step {
                moves: room.moves.iter().map(planned).collect(),
                gained_milli: u64::try_from(-room.lost).unwrap_or(0),
                lets_in: Some(format!("{} on {}", pod.key(), world.nodes[room.node].name())),
            });
            step.into_iter().collect()
        }
        Some((_, Err(_))) => Vec::new(),
        None => moves::gather(&mut cluster, &holders, &may, limits)
            .iter()
            .map(|gain| Step {
                moves: gain.moves.iter().map(planned).collect(),
                gained_milli: gain.gained,
                lets_in: None,
            })
            .collect(),
    };
    Proposal { steps, stay, pods: pods.len(), value }
}

/// Everybody who holds GPUs, with what it has and whether it may be moved.
fn holders<'a>(
    world: &'a World,
    budgets: &[PodDisruptionBudget],
    options: &Options,
) -> (Vec<&'a PodFacts>, Vec<moves::Holder>, BTreeMap<String, usize>) {
    // Who gives way first: a level for each priority there is.
    let mut levels: Vec<i32> = world.pods.iter().map(PodFacts::priority).collect();
    levels.sort_unstable();
    levels.dedup();
    // Pods of one controller may go to the same nodes; others are of a kind of their own.
    let mut kinds: BTreeMap<String, u32> = BTreeMap::new();
    let (mut pods, mut holders, mut stay) = (Vec::new(), Vec::new(), BTreeMap::new());
    for (n, node) in world.nodes.iter().enumerate() {
        let mut here: BTreeMap<(&str, &str), BTreeMap<ResourceName, Vec<Chosen>>> = BTreeMap::new();
        for (gpu, on_gpu) in node.holders().iter().enumerate() {
            for holder in on_gpu {
                let devices = here.entry((&holder.namespace, &holder.pod)).or_default();
                let devices = devices.entry(holder.resource.clone()).or_default();
                devices
                    .extend(std::iter::repeat_n(Chosen { gpu, offer: holder.offer }, holder.count as usize));
            }
        }
        for ((namespace, name), devices) in here {
            // A holder that is no pod of ours is in the way, and stays.
            let Some(pod) = world.pod(namespace, name) else { continue };
            let demand: Demand = pod.request.as_ref().map(|request| request.demand()).unwrap_or_default();
            let has = devices.iter().map(|(resource, devices)| (resource, devices.len()));
            let whole = demand.devices.iter().map(|(resource, &count)| (resource, count as usize)).eq(has);
            let why = match why_it_stays(pod, budgets, options) {
                None if !whole => Some("what it holds is not what it asks for".to_owned()),
                None if demand.share.is_some() => Some("its shares have a size of their own".to_owned()),
                why => why,
            };
            let level = levels.binary_search(&pod.priority()).unwrap_or(0);
            let move_cost = match why {
                None => Some(1 + u32::try_from(level).unwrap_or(u32::MAX - 1)),
                Some(why) => {
                    *stay.entry(why).or_insert(0) += 1;
                    None
                }
            };
            let family = controller(pod).map_or_else(|| pod.uid(), |owner| &owner.uid).to_owned();
            let next = u32::try_from(kinds.len()).unwrap_or(u32::MAX);
            let kind = *kinds.entry(family).or_insert(next);
            pods.push(pod);
            holders.push(moves::Holder { kind, node: n, demand, devices, move_cost });
        }
    }
    (pods, holders, stay)
}

/// Whether a pod may go to a node, by everything but the GPUs' room. One that is there already starts there a second
/// time before it leaves, so it needs the room as anybody does.
fn may_go(pod: &PodFacts, node: &NodeState) -> bool {
    let mut spec = pod.spec().clone();
    spec.node_name = None;
    // GPU counts are the kubelet's view of now; placements are looked at instead.
    let short_of_gpus_alone = |reason: &String| {
        pod.request.as_ref().is_ok_and(|request| {
            request.total().keys().any(|resource| *reason == format!("Insufficient {resource}"))
        })
    };
    let keeps_others_off = |holder: &crate::world::Holder| {
        holder.share_with == ShareWith::Namespace && holder.namespace != pod.namespace()
    };
    in_tree::keeps_off(&spec, &pod.amounts, &node.facts).iter().all(short_of_gpus_alone)
        && !node.holders().iter().flatten().any(keeps_others_off)
        && node.keeps_none_from(pod)
}

fn planned(world: &World, pod: &PodFacts, holder: &moves::Holder, step: &Move) -> Planned {
    let devices = |node: &NodeState, devices: &BTreeMap<ResourceName, Vec<Chosen>>| {
        let placement =
            stowage_shared::pack::Placement { devices: devices.clone(), cost: Default::default() };
        describe::placement(node.states(), &placement)
    };
    let (from, to) = (&world.nodes[holder.node], &world.nodes[step.node]);
    Planned {
        namespace: pod.namespace().into(),
        name: pod.name().into(),
        uid: pod.uid().into(),
        priority: pod.priority(),
        from: from.name().into(),
        from_devices: devices(from, &holder.devices),
        to: to.name().into(),
        to_devices: devices(to, &step.devices),
    }
}
