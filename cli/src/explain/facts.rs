//! What there is to say about a pod.

use std::collections::BTreeMap;

use serde::Serialize;
use stowage_shared::pack::Placement;

use super::numbers;
use crate::describe;
use crate::schedulers::Schedulers;
use crate::world::{Fit, NodeState, Not, PodFacts, Verdict, Who, World, in_tree};

/// A pod explained.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Explanation {
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// `Pending`, `Running` and so on.
    pub phase: String,
    /// The scheduler that it asks for.
    pub scheduler: String,
    /// Its priority.
    pub priority: i32,
    /// The node it is on.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub node: Option<String>,
    /// What each container asks for.
    pub asks: Vec<String>,
    /// What it wants of its placement, where that is not the default.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub policy: String,
    /// What was planned, or why its plan is none.
    pub plan: Vec<String>,
    /// What the kubelet gave it.
    pub holds: Vec<String>,
    /// What keeps it waiting whatever nodes there are.
    pub held_up: Vec<String>,
    /// What kube-scheduler said last.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub scheduler_says: Option<String>,
    /// The nodes where it fits, the best first.
    pub fits: Vec<Best>,
    /// The nodes where it does not, by reason, the most common first.
    pub does_not_fit: Vec<Group>,
    /// What was not looked at.
    pub not_looked_at: Vec<&'static str>,
}

/// A node where the pod fits, with what it would take away there: the less the better, in the order of the fields.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Best {
    /// The node.
    pub node: String,
    /// Where on it.
    pub devices: String,
    /// What of the node's GPUs is in use, in thousandths; only where the pod wants to spread.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub in_use: Option<u64>,
    /// The terms of the cost, by name.
    pub cost: Vec<(&'static str, String)>,
}

/// Nodes that say the same.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Group {
    /// Whether kube-scheduler's own filters say so, before Stowage is asked.
    pub by_kube_scheduler: bool,
    /// The sentence in the pod's event.
    pub reason: String,
    /// The numbers behind it.
    pub numbers: Vec<String>,
    /// The nodes.
    pub nodes: Vec<String>,
}

impl Explanation {
    /// Explains a pod. One that is bound is explained by what it has, not by where else it might be.
    pub fn of(world: &World, pod: &PodFacts) -> Self {
        let waits = pod.node().is_empty();
        let verdicts = if waits { world.judge(pod) } else { Vec::new() };
        let condition = pod.object.status.iter().flat_map(|status| status.conditions.iter().flatten());
        let said = condition.filter(|c| waits && c.type_ == "PodScheduled" && c.status == "False");
        let policy = pod.policy.as_ref().map(ToString::to_string);
        Self {
            namespace: pod.namespace().into(),
            name: pod.name().into(),
            phase: pod.phase().into(),
            scheduler: pod.scheduler().into(),
            priority: pod.priority(),
            node: Some(pod.node().to_owned()).filter(|node| !node.is_empty()),
            asks: pod.asks(),
            policy: policy.unwrap_or_default(),
            plan: plan(world, pod),
            holds: holds(world, pod),
            held_up: if waits { held_up(pod, &world.schedulers) } else { Vec::new() },
            scheduler_says: said.filter_map(|c| c.message.clone()).next(),
            fits: best(world, pod, &verdicts),
            does_not_fit: groups(world, pod, &verdicts),
            not_looked_at: if waits { in_tree::not_looked_at(pod.spec()) } else { Vec::new() },
        }
    }
}

/// What keeps a pod waiting whatever nodes there are.
pub fn held_up(pod: &PodFacts, schedulers: &Schedulers) -> Vec<String> {
    let mut why = Vec::new();
    if pod.object.metadata.deletion_timestamp.is_some() {
        why.push("it is being deleted".to_owned());
    }
    let gates: Vec<&str> = pod.spec().scheduling_gates.iter().flatten().map(|gate| &*gate.name).collect();
    if !gates.is_empty() {
        why.push(format!("scheduling gates: no scheduler looks at it before {} are gone", gates.join(", ")));
    }
    if !pod.is_ours {
        why.push(format!(
            "it asks for scheduler {:?}, which does not ask Stowage: set schedulerName: {}",
            pod.scheduler(),
            schedulers.name()
        ));
    }
    why.extend(pod.request.as_ref().err().map(ToString::to_string));
    why.extend(pod.policy.as_ref().err().map(ToString::to_string));
    why
}

/// The plan's devices by container and resource.
fn plan(world: &World, pod: &PodFacts) -> Vec<String> {
    let plan = match &pod.plan {
        None => return Vec::new(),
        Some(Err(error)) => return vec![format!("ignored: {error}")],
        Some(Ok(plan)) => plan,
    };
    let told = world.node(pod.node()).and_then(|node| node.published.as_ref());
    let gpus = told.map_or(&[][..], |told| &told.gpus);
    let line = |(container, resources): (&String, &BTreeMap<_, Vec<_>>)| {
        let devices = resources
            .iter()
            .map(|(resource, devices)| {
                format!("{resource} on {}", describe::planned(gpus.iter().map(|gpu| &**gpu), devices))
            })
            .collect::<Vec<_>>();
        format!("{container}: {}", devices.join("; "))
    };
    plan.containers.iter().map(line).collect()
}

fn holds(world: &World, pod: &PodFacts) -> Vec<String> {
    let told = world.node(pod.node()).and_then(|node| node.published.as_ref());
    let mine = told.into_iter().flat_map(|told| &told.allocations).filter(|held| {
        held.namespace == pod.namespace()
            && held.pod == pod.name()
            && (held.uid.is_empty() || held.uid == pod.uid())
    });
    mine.map(|held| format!("{}: {} {}", held.container, held.resource, held.device_ids.join(", "))).collect()
}

fn best(world: &World, pod: &PodFacts, verdicts: &[Verdict]) -> Vec<Best> {
    let spreads = pod.policy.as_ref().is_ok_and(|p| p.placement == stowage_shared::policy::Packing::Spread);
    let mut fits: Vec<_> = world
        .nodes
        .iter()
        .zip(verdicts)
        .filter_map(|(node, verdict)| match verdict {
            Verdict::Fits(fit) => Some((node, fit)),
            Verdict::Not(_) => None,
        })
        .collect();
    fits.sort_by_key(|(node, fit)| (fit.rank, node.name()));
    fits.into_iter()
        .map(|(node, fit)| Best {
            node: node.name().into(),
            devices: fit
                .placement
                .as_ref()
                .map(|p| describe::placement(node.states(), p))
                .unwrap_or_default(),
            in_use: spreads.then_some(fit.rank.in_use),
            cost: terms(fit),
        })
        .collect()
}

/// The terms of a cost by the names of its fields, in the order in which they count.
pub fn terms(fit: &Fit) -> Vec<(&'static str, String)> {
    let Some(Placement { cost, .. }) = &fit.placement else { return Vec::new() };
    let yes = |flag: bool| if flag { "yes" } else { "no" }.to_owned();
    let wastes = fit.wastes.map(|milli| ("wastes", describe::gpus_more_or_less(milli)));
    let others = [
        ("lost", describe::gpus(cost.lost)),
        ("wakesNode", yes(cost.wakes_node)),
        ("wakesGpus", cost.wakes_gpus.to_string()),
        ("returnsLess", describe::gpus_more_or_less(cost.returns_less)),
        ("roomLeft", cost.room_left.to_string()),
    ];
    wastes.into_iter().chain(others).collect()
}

/// Nodes by what they say, the most common first.
fn groups(world: &World, pod: &PodFacts, verdicts: &[Verdict]) -> Vec<Group> {
    let mut groups: BTreeMap<(Who, &str), (&Not, Vec<&NodeState>)> = BTreeMap::new();
    for (node, verdict) in world.nodes.iter().zip(verdicts) {
        if let Verdict::Not(not) = verdict {
            groups.entry((not.who, &not.text)).or_insert((not, Vec::new())).1.push(node);
        }
    }
    let mut groups: Vec<Group> = groups
        .into_values()
        .map(|(not, nodes)| Group {
            by_kube_scheduler: not.who == Who::KubeScheduler,
            reason: not.text.clone(),
            numbers: numbers::behind(world, pod, not, &nodes),
            nodes: nodes.iter().map(|node| node.name().to_owned()).collect(),
        })
        .collect();
    groups.sort_by_key(|group| std::cmp::Reverse(group.nodes.len()));
    groups
}
