//! The explanation for people.

use super::facts::{Best, Explanation, Group};
use crate::describe::{count, gpus, some};
use crate::page::{Page, Span, Tone, plain, toned};

/// The most nodes of a table: the best ones are what matters.
const NODES_SHOWN: usize = 10;

/// Writes it down.
pub fn write(pod: &Explanation, page: &mut Page) {
    let tone = if pod.phase == "Pending" { Tone::Warn } else { Tone::Good };
    let at = pod.node.as_ref().map(|node| format!(" on {node}")).unwrap_or_default();
    page.line(vec![
        toned(Tone::Strong, format!("{}/{}", pod.namespace, pod.name)),
        plain("  "),
        toned(tone, pod.phase.clone()),
        plain(format!("{at}  scheduler {}  priority {}", pod.scheduler, pod.priority)),
    ]);
    if pod.asks.is_empty() {
        page.say("Asks for no GPU");
    }
    list(page, Tone::Plain, "Asks for", &pod.asks);
    if !pod.policy.is_empty() {
        list(page, Tone::Plain, "Wants", &pod.policy.split(", ").map(str::to_owned).collect::<Vec<_>>());
    }
    list(page, Tone::Bad, "Held up", &pod.held_up);
    list(page, Tone::Plain, "Planned", &pod.plan);
    list(page, Tone::Plain, "The kubelet gave it", &pod.holds);
    if pod.node.is_some() {
        if pod.plan.is_empty() && !pod.asks.is_empty() {
            page.say("No plan: another scheduler bound it, and the device plugin chooses its devices");
        }
        if pod.holds.is_empty() && !pod.asks.is_empty() {
            page.say("The kubelet has not told yet which devices it holds");
        }
        return;
    }
    if let Some(said) = &pod.scheduler_says {
        list(page, Tone::Dim, "kube-scheduler said last", std::slice::from_ref(said));
    }
    fits(page, &pod.fits);
    does_not(page, &pod.does_not_fit);
    if !pod.not_looked_at.is_empty() {
        page.tone(Tone::Dim, format!("Not looked at: {}", pod.not_looked_at.join(", ")));
    }
}

fn list(page: &mut Page, tone: Tone, head: &str, lines: &[String]) {
    if !lines.is_empty() {
        page.say(head);
        lines.iter().for_each(|line| page.line(vec![plain("  "), toned(tone, line.clone())]));
    }
}

fn fits(page: &mut Page, fits: &[Best]) {
    let Some(first) = fits.first() else {
        return page.tone(Tone::Bad, "Fits no node");
    };
    let order = if fits.len() > 1 { ", best first" } else { "" };
    page.tone(Tone::Good, format!("Fits {}{order}", count(fits.len(), "node")));
    let spreads = first.in_use.is_some();
    let mut head = vec!["NODE"];
    head.extend(spreads.then_some("IN USE"));
    head.extend(first.cost.iter().map(|(name, _)| heading(name)));
    head.extend((!first.devices.is_empty()).then_some("WHERE"));
    let row = |best: &Best| -> Vec<Span> {
        let mut row = vec![plain(best.node.clone())];
        row.extend(best.in_use.map(|milli| plain(gpus(milli))));
        row.extend(best.cost.iter().map(|(_, term)| plain(term.clone())));
        row.push(plain(best.devices.clone()));
        row
    };
    page.table(2, &head, fits.iter().take(NODES_SHOWN).map(row).collect());
    if fits.len() > NODES_SHOWN {
        page.tone(Tone::Dim, format!("  and {} more", fits.len() - NODES_SHOWN));
    }
}

/// A cost's field as a heading.
fn heading(name: &str) -> &'static str {
    match name {
        "wastes" => "WASTES",
        "lost" => "LOST",
        "wakesNode" => "WAKES NODE",
        "wakesGpus" => "WAKES GPUS",
        "returnsLess" => "RETURNS LESS",
        "roomLeft" => "ROOM LEFT",
        _ => "COST",
    }
}

fn does_not(page: &mut Page, groups: &[Group]) {
    let all: usize = groups.iter().map(|group| group.nodes.len()).sum();
    if all > 0 {
        page.say(format!("Does not fit {}", count(all, "node")));
    }
    for group in groups {
        let who = if group.by_kube_scheduler { " (kube-scheduler's own filters)" } else { "" };
        page.line(vec![
            plain(format!("  {:>3}  ", group.nodes.len())),
            toned(Tone::Warn, group.reason.clone()),
            toned(Tone::Dim, who),
        ]);
        group.numbers.iter().for_each(|line| page.say(format!("       {line}")));
        page.tone(Tone::Dim, format!("       {}", some(&group.nodes)));
    }
}
