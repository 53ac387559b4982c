//! What the cluster has for a need: one request for each strategy, and how many such pods fit now.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::Pod;
use serde_json::json;
use stowage_shared::contract::{GPU_MEMORY_MIN_ANNOTATION, SHARE_MEMORY_ANNOTATION};
use stowage_shared::gpu::{GpuKind, Offer, Part};
use stowage_shared::resource::ResourceName;
use stowage_shared::units::MemoryMib;

use super::need::{Need, Strategy};
use crate::world::{NodeState, PodFacts, Verdict, World};

/// As many pods as fit are counted, up to here.
pub const ROOM_MAX: u32 = 50;

/// A request that would do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Request {
    /// The way of using a GPU.
    pub strategy: Strategy,
    /// The resource name.
    pub resource: ResourceName,
    /// How many of it.
    pub count: u32,
    /// The annotations of the pod.
    pub annotations: BTreeMap<String, String>,
    /// The memory that it gets: of each device, or of the GPU that the share is of.
    pub memory: MemoryMib,
    /// How many such pods fit now, each beside the others; [`ROOM_MAX`] and more are one.
    pub room: u32,
}

/// The largest GPU that is known.
pub fn largest(world: &World) -> Option<MemoryMib> {
    kinds(world).map(|(_, kind)| kind.memory()).max()
}

/// The request of a strategy; `None` where the cluster has nothing of the kind that is large enough.
pub fn request(world: &World, need: &Need, strategy: Strategy) -> Option<Request> {
    match strategy {
        Strategy::Dedicated => dedicated(world, need),
        Strategy::Mig => slice(world, need),
        Strategy::TimeSlicing => share(world, need),
        Strategy::Cpu => None,
    }
}

/// Every GPU of the nodes that may take pods, by its kind.
fn kinds(world: &World) -> impl Iterator<Item = (&NodeState, &GpuKind)> {
    let open = world.nodes.iter().filter(|node| !node.facts.unschedulable);
    open.flat_map(|node| node.states().iter().map(move |state| (node, &*state.gpu.kind)))
}

/// Every offer, with its GPU.
fn offers(world: &World) -> impl Iterator<Item = (&NodeState, &GpuKind, &Offer)> {
    kinds(world).flat_map(|(node, kind)| kind.offers().iter().map(move |offer| (node, kind, offer)))
}

fn dedicated(world: &World, need: &Need) -> Option<Request> {
    let whole =
        || offers(world).filter(|(_, _, offer)| offer.part == Part::Whole && offer.replicas.is_none());
    let wanted = need.with_spare();
    let mut annotations = BTreeMap::new();
    let sufficient =
        whole().filter(|(_, kind, _)| kind.memory() >= wanted).min_by_key(|(_, kind, _)| kind.memory());
    let (kind, offer, count) = match sufficient {
        Some((_, kind, offer)) => {
            if whole().any(|(_, other, same)| same.resource == offer.resource && other.memory() < wanted) {
                annotations.insert(GPU_MEMORY_MIN_ANNOTATION.to_owned(), format!("{}Mi", wanted.0));
            }
            (kind, offer, 1)
        }
        // No GPU is as large: several of the largest.
        None => {
            let (_, kind, offer) = whole().max_by_key(|(_, kind, _)| kind.memory())?;
            let memory = kind.memory();
            if whole().any(|(_, other, same)| same.resource == offer.resource && other.memory() < memory) {
                annotations.insert(GPU_MEMORY_MIN_ANNOTATION.to_owned(), format!("{}Mi", memory.0));
            }
            (kind, offer, u32::try_from(wanted.0.div_ceil(memory.0.max(1))).unwrap_or(u32::MAX))
        }
    };
    Some(counted(world, Strategy::Dedicated, &offer.resource, count, annotations, kind.memory()))
}

/// The smallest slice that is large enough; of those, the smallest that fits now.
fn slice(world: &World, need: &Need) -> Option<Request> {
    let mut known: BTreeMap<&ResourceName, MemoryMib> = BTreeMap::new();
    for (node, _, offer) in offers(world).filter(|(_, _, offer)| offer.replicas.is_none()) {
        let Part::Slice(slice) = &offer.part else { continue };
        let profiles = node.published.as_ref().map(|told| &told.profiles);
        // A slice whose memory nobody told may be too small.
        let Some(memory) = profiles.and_then(|profiles| profiles.get(&slice.profile)) else { continue };
        let least = known.entry(&offer.resource).or_insert(*memory);
        *least = (*least).min(*memory);
    }
    let mut large: Vec<(MemoryMib, &ResourceName)> = known
        .into_iter()
        .filter(|(_, memory)| *memory >= need.with_spare())
        .map(|(resource, memory)| (memory, resource))
        .collect();
    // Those with attributes, such as media engines of their own, are for who asks for them.
    large.sort_by_key(|(memory, resource)| (*memory, resource.as_str().len()));
    let requests = large
        .into_iter()
        .map(|(memory, resource)| counted(world, Strategy::Mig, resource, 1, BTreeMap::new(), memory));
    let requests: Vec<Request> = requests.collect();
    requests.iter().find(|request| request.room > 0).or(requests.first()).cloned()
}

fn share(world: &World, need: &Need) -> Option<Request> {
    let wanted = need.with_spare();
    let is_large_enough = |kind: &GpuKind, at: usize, offer: &Offer| {
        let most = if offer.capped { kind.equal_share(at).unwrap_or_default() } else { kind.memory() };
        offer.part == Part::Whole && offer.replicas.is_some() && most >= wanted
    };
    let mut known: BTreeMap<&ResourceName, MemoryMib> = BTreeMap::new();
    for (_, kind) in kinds(world) {
        for (at, offer) in kind.offers().iter().enumerate() {
            if is_large_enough(kind, at, offer) {
                let most = known.entry(&offer.resource).or_default();
                *most = kind.memory().max(*most);
            }
        }
    }
    let annotations = BTreeMap::from([(SHARE_MEMORY_ANNOTATION.to_owned(), format!("{}Mi", wanted.0))]);
    let requests = known.into_iter().map(|(resource, memory)| {
        counted(world, Strategy::TimeSlicing, resource, 1, annotations.clone(), memory)
    });
    requests.max_by_key(|request| request.room)
}

fn counted(
    world: &World,
    strategy: Strategy,
    resource: &ResourceName,
    count: u32,
    annotations: BTreeMap<String, String>,
    memory: MemoryMib,
) -> Request {
    let pod: Pod = serde_json::from_value(json!({
        "metadata": { "name": "advised", "namespace": "default", "annotations": annotations },
        "spec": { "schedulerName": world.schedulers.name(), "containers": [
            { "name": "main", "resources": { "limits": { resource.as_str(): count.to_string() } } },
        ] },
    }))
    .unwrap_or_default();
    let room = room(world, &PodFacts::of(pod, &world.names, &world.schedulers));
    Request { strategy, resource: resource.clone(), count, annotations, memory, room }
}

/// How many such pods fit, as far as GPUs go: one after another, each where the extender would put it.
fn room(world: &World, pod: &PodFacts) -> u32 {
    let mut world = world.clone();
    let judge = |world: &World, at: usize| {
        let node = &world.nodes[at];
        let open = !node.facts.unschedulable;
        match world.fit_of(node, pod) {
            Some(Verdict::Fits(fit)) if open => Some(fit),
            _ => None,
        }
    };
    let mut fits: Vec<_> = (0..world.nodes.len()).map(|at| judge(&world, at)).collect();
    for placed in 0..ROOM_MAX {
        let best = fits.iter().enumerate().filter_map(|(at, fit)| Some((fit.as_ref()?.rank, at))).min();
        let Some((at, fit)) = best.and_then(|(_, at)| Some((at, fits[at].clone()?))) else { return placed };
        world.settle(pod, at, &fit);
        fits[at] = judge(&world, at);
    }
    ROOM_MAX
}
