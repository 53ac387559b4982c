//! The numbers behind a reason. kube-scheduler groups nodes by equal texts, so the texts have none; here they are.

use std::collections::BTreeSet;

use stowage_shared::count::Devices;
use stowage_shared::pack::NoFit;
use stowage_shared::policy::{NotAllowed, WhyNot};
use stowage_shared::resource::ResourceName;

use crate::describe;
use crate::world::{NodeState, Not, PodFacts, Verdict, World};

/// What is wanted and the most that one of the nodes has, for nodes that say the same.
pub fn behind(world: &World, pod: &PodFacts, not: &Not, nodes: &[&NodeState]) -> Vec<String> {
    match &not.why {
        Some(WhyNot::NoFit(no)) => devices(pod, no, nodes),
        Some(WhyNot::NotAllowed(no)) => policy(pod, *no, nodes),
        None => in_tree(world, pod, &not.text, nodes),
    }
}

fn devices(pod: &PodFacts, no: &NoFit, nodes: &[&NodeState]) -> Vec<String> {
    let resource = match no {
        NoFit::NotOffered(_) => return Vec::new(),
        NoFit::TooLarge(_) => return share(pod, nodes),
        NoFit::TooFew(resource) | NoFit::Unhealthy(resource) | NoFit::Full(resource) => resource,
    };
    let total = pod.request.as_ref().map(|request| request.total()).unwrap_or_default();
    let wants = total.get(resource).copied().unwrap_or(0);
    let most = nodes.iter().map(|node| (Devices::of(node.states(), resource, None), node.name()));
    // The first by name of those with the most.
    let Some((has, name)) = most.max_by_key(|(has, name)| (has.free, std::cmp::Reverse(*name))) else {
        return Vec::new();
    };
    let mut lines = vec![has.beside(wants, name)];
    if has.free >= wants && total.len() > 1 {
        lines.push("what is free does not fit together with the other devices that it asks for".into());
    }
    lines
}

/// How large a share is wanted, and the largest card.
fn share(pod: &PodFacts, nodes: &[&NodeState]) -> Vec<String> {
    let Some(size) = pod.share() else { return Vec::new() };
    let gpus = nodes
        .iter()
        .flat_map(|node| node.states().iter().map(|state| (state.gpu.kind.memory(), node.name())));
    // The first by name of those with the most.
    let Some((most, name)) = gpus.max_by_key(|(memory, name)| (*memory, std::cmp::Reverse(*name))) else {
        return Vec::new();
    };
    let wants = size.of(most);
    vec![format!("wants shares of {wants}; the largest GPU has {most}, on {name}")]
}

fn policy(pod: &PodFacts, no: NotAllowed, nodes: &[&NodeState]) -> Vec<String> {
    let Ok(policy) = &pod.policy else { return Vec::new() };
    let states = || nodes.iter().flat_map(|node| node.states());
    match no {
        NotAllowed::Model => {
            let models: BTreeSet<&str> = states().map(|state| state.gpu.kind.model()).collect();
            vec![format!("models there: {}", describe::some(&models.into_iter().collect::<Vec<_>>()))]
        }
        NotAllowed::Memory => {
            let largest = states().map(|state| state.gpu.kind.memory()).max().unwrap_or_default();
            vec![format!("wants {}; the largest card there has {largest}", policy.gpu_memory_min)]
        }
        NotAllowed::OtherNamespace | NotAllowed::Kept => {
            let holders = nodes.iter().flat_map(|node| node.holders()).flatten();
            let others: BTreeSet<&str> =
                holders.map(|holder| &*holder.namespace).filter(|name| *name != pod.namespace()).collect();
            vec![format!(
                "other namespaces there: {}",
                describe::some(&others.into_iter().collect::<Vec<_>>())
            )]
        }
        NotAllowed::Reserved => kept(nodes),
        NotAllowed::Distinct | NotAllowed::ReserveUnreadable => Vec::new(),
    }
}

/// How many whole GPUs the node keeps that keeps most.
fn kept(nodes: &[&NodeState]) -> Vec<String> {
    let kept = nodes.iter().filter_map(|node| Some((node.kept_whole_gpus()?, node)));
    // The first by name of those with the most.
    let most = kept.max_by_key(|(kept, node)| (*kept, std::cmp::Reverse(node.name())));
    let line = |(kept, node): (usize, &&NodeState)| {
        let name = node.name();
        let kept = describe::count(kept, "whole GPU");
        format!("{name} keeps {kept} for pods that ask for as many; idle there: {}", node.idle_whole_gpus())
    };
    most.map(line).into_iter().collect()
}

/// How a node without any is told.
const NONE: &str = " (of 0 possible, 0 in use)";

/// kube-scheduler's own filters count what the kubelets report, which may lag behind what is possible.
fn in_tree(world: &World, pod: &PodFacts, text: &str, nodes: &[&NodeState]) -> Vec<String> {
    let mut lines = Vec::new();
    for (name, wants) in pod.amounts.iter().filter(|(name, _)| text.contains(&format!("Insufficient {name}")))
    {
        let resource: Option<ResourceName> = name.parse().ok().filter(|_| world.names.is_gpu(name));
        // Where nothing is free anywhere, a node that has some in use says more than one that has none at all.
        let most = nodes.iter().max_by_key(|node| {
            let devices =
                resource.as_ref().map(|resource| Devices::of(node.states(), resource, None).possible);
            (node.facts.free.get(name), devices, std::cmp::Reverse(node.name()))
        });
        let Some(most) = most else { continue };
        let unit = |amount: i64| if name == "cpu" { format!("{amount}m") } else { amount.to_string() };
        let devices = resource.map(|resource| {
            let Devices { in_use, possible, ill, .. } = Devices::of(most.states(), &resource, None);
            let ill = if ill == 0 { String::new() } else { format!(", {ill} unhealthy") };
            format!(" (of {possible} possible, {in_use} in use{ill})")
        });
        if world.names.is_gpu(name) && most.facts.free.get(name) == 0 && devices.as_deref() == Some(NONE) {
            lines.push(format!("wants {wants} {name}; none of these nodes offers any"));
            continue;
        }
        lines.push(format!(
            "wants {} {name}; the most free is {}, on {}{}",
            unit(wants),
            unit(most.facts.free.get(name)),
            most.name(),
            devices.unwrap_or_default()
        ));
    }
    let only_devices = text
        .split(", ")
        .all(|reason| reason.strip_prefix("Insufficient ").is_some_and(|name| world.names.is_gpu(name)));
    let fits = |node: &&&NodeState| matches!(world.fit_of(node, pod), Some(Verdict::Fits(_)));
    if only_devices && let Some(node) = nodes.iter().find(fits) {
        lines.push(format!(
            "{} has a free placement that its kubelet does not count yet; it follows within some seconds",
            node.name()
        ));
    }
    lines
}
