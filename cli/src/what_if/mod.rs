//! `kubectl stowage what-if -f POD.yaml`: where pods that do not exist yet would go, what each would strand, and
//! what would then no longer fit. Nothing is created.

pub mod read;

use std::collections::BTreeMap;

use anyhow::Result;
use k8s_openapi::api::core::v1::Pod;
use serde::Serialize;
use stowage_shared::tally::Tally;

use crate::answer::Answer;
use crate::describe::{self, count};
use crate::explain::terms;
use crate::page::{Page, Tone, plain, toned};
use crate::world::{Fit, NodeState, PodFacts, Verdict, World, in_tree};

/// The answer.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct WhatIf {
    /// The pods, in the order of the file, each placed beside those before it.
    pub pods: Vec<Placed>,
    /// Requests of which fewer fit afterwards.
    pub fewer: Vec<Fewer>,
    /// What should be known beside it.
    pub notes: Vec<String>,
}

/// What would become of a pod.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Placed {
    /// Its namespace and name.
    pub pod: String,
    /// The node; absent where it fits none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub node: Option<String>,
    /// Where on it.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub devices: String,
    /// The terms of the cost, by name.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub cost: Vec<(&'static str, String)>,
    /// How much more of the node's GPUs nobody could have, in thousandths of a GPU; below 0 where it is less.
    pub strands_milli: i64,
    /// Why it fits nowhere: reasons and how many nodes say so, the most common first.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub reasons: Vec<(String, usize)>,
}

/// A request of which fewer fit.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Fewer {
    /// The resource.
    pub resource: String,
    /// How many of it one pod asks for.
    pub count: u32,
    /// How many such pods would fit before, if nothing else came.
    pub before: u64,
    /// And afterwards.
    pub after: u64,
}

/// Asks where the pods would go, one after another.
///
/// # Errors
/// Where the answer cannot be said.
pub fn what_if(world: &World, pods: Vec<Pod>) -> Result<Answer> {
    let mut after = world.clone();
    let pods: Vec<PodFacts> =
        pods.into_iter().map(|pod| PodFacts::of(pod, &world.names, &world.schedulers)).collect();
    let placed: Vec<Placed> = pods.iter().map(|pod| place(&mut after, pod)).collect();
    let answer = WhatIf { fewer: fewer(world, &after), notes: notes(world, &pods), pods: placed };
    let mut page = Page::default();
    write(&answer, &mut page);
    let found = answer.pods.iter().any(|pod| pod.node.is_none());
    Ok(Answer { found, ..Answer::new(page, &answer)? })
}

fn place(world: &mut World, pod: &PodFacts) -> Placed {
    let verdicts = world.judge(pod);
    let nowhere = Placed {
        pod: pod.key(),
        node: None,
        devices: String::new(),
        cost: Vec::new(),
        strands_milli: 0,
        reasons: Vec::new(),
    };
    let best = World::best(&verdicts).and_then(|at| match &verdicts[at] {
        Verdict::Fits(fit) => Some((at, fit)),
        Verdict::Not(_) => None,
    });
    let Some((at, fit)) = best else { return Placed { reasons: reasons(&verdicts), ..nowhere } };
    let stranded = |node: &NodeState| i64::try_from(Tally::of(node.states()).stranded).unwrap_or(i64::MAX);
    let before = stranded(&world.nodes[at]);
    let (Fit { placement, .. }, cost) = (fit, terms(fit));
    let devices = placement.as_ref().map(|p| describe::placement(world.nodes[at].states(), p));
    world.settle(pod, at, fit);
    Placed {
        node: Some(world.nodes[at].name().to_owned()),
        devices: devices.unwrap_or_default(),
        cost,
        strands_milli: stranded(&world.nodes[at]) - before,
        ..nowhere
    }
}

fn reasons(verdicts: &[Verdict]) -> Vec<(String, usize)> {
    let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
    for verdict in verdicts {
        if let Verdict::Not(not) = verdict {
            *counts.entry(&not.text).or_default() += 1;
        }
    }
    let mut reasons: Vec<(String, usize)> =
        counts.into_iter().map(|(text, n)| (text.to_owned(), n)).collect();
    reasons.sort_by_key(|(_, nodes)| std::cmp::Reverse(*nodes));
    reasons
}

/// For each request to come, by itself: how many of it still fit.
fn fewer(before: &World, after: &World) -> Vec<Fewer> {
    let fits = |world: &World, resource, count: u32| -> u64 {
        let on = |node: &NodeState| node.states().iter().map(|gpu| gpu.copies(resource)).sum::<u32>();
        let open = world.nodes.iter().filter(|node| !node.facts.unschedulable);
        open.map(|node| u64::from(on(node) / count.max(1))).sum()
    };
    let shapes =
        before.mix.shapes().flat_map(|(resource, shapes)| shapes.iter().map(move |s| (resource, s.count)));
    shapes
        .map(|(resource, count)| Fewer {
            resource: resource.to_string(),
            count,
            before: fits(before, resource, count),
            after: fits(after, resource, count),
        })
        .filter(|fewer| fewer.after < fewer.before)
        .collect()
}

fn notes(world: &World, pods: &[PodFacts]) -> Vec<String> {
    let mut notes = Vec::new();
    let others: Vec<&str> =
        pods.iter().filter(|pod| pod.asks_for_gpus() && !pod.is_ours).map(PodFacts::name).collect();
    if !others.is_empty() {
        notes.push(format!(
            "{} not ask for schedulerName: {}, so another scheduler would place {}: {}",
            if others.len() == 1 { "1 pod does".into() } else { format!("{} pods do", others.len()) },
            world.schedulers.name(),
            if others.len() == 1 { "it" } else { "them" },
            describe::some(&others),
        ));
    }
    let waiting = world.pods.iter().filter(|pod| pod.is_ours && pod.node().is_empty()).count();
    if waiting > 0 {
        notes.push(format!("{} already for Stowage, and may be placed first: not counted here", {
            if waiting == 1 { "1 pod waits".into() } else { format!("{waiting} pods wait") }
        }));
    }
    let mut unseen: Vec<&str> = pods.iter().flat_map(|pod| in_tree::not_looked_at(pod.spec())).collect();
    unseen.sort_unstable();
    unseen.dedup();
    if !unseen.is_empty() {
        notes.push(format!("not looked at: {}", unseen.join(", ")));
    }
    notes
}

fn write(answer: &WhatIf, page: &mut Page) {
    let placed: Vec<&Placed> = answer.pods.iter().filter(|pod| pod.node.is_some()).collect();
    let row = |pod: &&Placed| {
        let lost = pod.cost.iter().find(|(name, _)| *name == "lost").map(|(_, term)| term.clone());
        let amount = describe::gpus(pod.strands_milli.unsigned_abs());
        let sign = if pod.strands_milli < 0 { "-" } else { "" };
        let tone = if pod.strands_milli > 0 { Tone::Warn } else { Tone::Plain };
        vec![
            plain(pod.pod.clone()),
            toned(Tone::Good, pod.node.clone().unwrap_or_default()),
            plain(if pod.devices.is_empty() { "-".to_owned() } else { pod.devices.clone() }),
            plain(lost.unwrap_or_else(|| "0".into())),
            toned(tone, format!("{sign}{amount}")),
        ]
    };
    if !placed.is_empty() {
        page.table(0, &["POD", "NODE", "WHERE", "LOST", "STRANDS"], placed.iter().map(row).collect());
    }
    for pod in answer.pods.iter().filter(|pod| pod.node.is_none()) {
        page.line(vec![toned(Tone::Bad, pod.pod.clone()), plain(" fits no node")]);
        for (reason, nodes) in &pod.reasons {
            page.say(format!("  {nodes:>3}  {reason}"));
        }
    }
    page.gap();
    if answer.fewer.is_empty() {
        page.say("Whatever else may come fits as often as before.");
    } else {
        page.say(format!(
            "Of {} fewer fit then, each counted by itself",
            count(answer.fewer.len(), "request")
        ));
        let row = |fewer: &Fewer| {
            let tone = if fewer.after == 0 { Tone::Bad } else { Tone::Plain };
            let note = if fewer.after == 0 { "no longer fits" } else { "" };
            vec![
                plain(format!("{} x {}", fewer.count, fewer.resource)),
                plain(fewer.before.to_string()),
                toned(tone, fewer.after.to_string()),
                toned(Tone::Bad, note),
            ]
        };
        page.table(2, &["REQUEST", "BEFORE", "AFTER", ""], answer.fewer.iter().map(row).collect());
    }
    for note in &answer.notes {
        page.tone(Tone::Dim, format!("Note: {note}"));
    }
}
