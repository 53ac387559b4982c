//! `kubectl stowage defrag`: the fewest pod moves that gain the most placements, or that let one waiting pod in.
//!
//! Without `--apply` it proposes, and changes nothing.

pub mod apply;
mod evict;
mod one;
mod proposal;
mod stays;
#[cfg(test)]
mod tests;

use std::time::Duration;

use anyhow::{Result, bail};
use k8s_openapi::api::policy::v1::PodDisruptionBudget;
use serde::Serialize;

use crate::answer::Answer;
use crate::describe::{count, gpus};
use crate::explain::held_up;
use crate::page::{Page, Tone, plain, toned};
use crate::world::{PodFacts, World};

pub use self::apply::{Done, apply};
pub use self::evict::{Live, budgets};
pub use self::proposal::{Planned, Proposal, Step, propose};

/// What is asked for.
#[derive(Debug, Clone)]
pub struct Options {
    /// The most pods that are moved.
    pub max_moves: usize,
    /// Namespace and name of a waiting pod that the moves should let in.
    pub lets_in: Option<(String, String)>,
    /// Whether pods of StatefulSets may be moved.
    pub stateful_sets: bool,
    /// How long a replacement may take to run.
    pub timeout: Duration,
}

impl Default for Options {
    fn default() -> Self {
        Self { max_moves: 5, lets_in: None, stateful_sets: false, timeout: Duration::from_secs(300) }
    }
}

/// The pod that waits, or is bound meanwhile. One that moves would not let in is refused: others must not be evicted for
/// nothing.
fn find<'a>(world: &'a World, (namespace, name): &(String, String)) -> Result<&'a PodFacts> {
    let Some(pod) = world.pod(namespace, name) else {
        bail!("no pod {name:?} in namespace {namespace:?} that runs or waits")
    };
    if pod.request.as_ref().is_ok_and(|request| request.is_empty()) {
        bail!("pod {} asks for no GPU", pod.key());
    }
    if !pod.node().is_empty() {
        return Ok(pod);
    }
    let why = held_up(pod, &world.schedulers);
    if !why.is_empty() {
        bail!("no move would let {} in: {}", pod.key(), why.join("; "));
    }
    if !pod.policy.as_ref().is_ok_and(|policy| policy.is_default()) {
        bail!(
            "{} has placement policies, which this search does not look at; the extender's --defrag does",
            pod.key()
        );
    }
    Ok(pod)
}

/// Proposes.
///
/// # Errors
/// Where the pod that is to be let in is not there, does not wait, or is one that moves would not let in.
pub fn dry_run(world: &World, budgets: &[PodDisruptionBudget], options: &Options) -> Result<Answer> {
    let waiting = options.lets_in.as_ref().map(|name| find(world, name)).transpose()?;
    if let Some(pod) = waiting.filter(|pod| !pod.node().is_empty()) {
        bail!("pod {} does not wait: it is on {}", pod.key(), pod.node());
    }
    let proposal = propose(world, budgets, waiting, options);
    let mut page = Page::default();
    write(&proposal, waiting, &mut page);
    Answer::new(page, &proposal)
}

fn write(proposal: &Proposal, waiting: Option<&PodFacts>, page: &mut Page) {
    let moves: usize = proposal.steps.iter().map(|step| step.moves.len()).sum();
    if moves == 0 {
        page.say(match waiting {
            Some(pod) => format!("No moves let {} in.", pod.key()),
            None => "No move gains anything.".to_owned(),
        });
    }
    for (number, step) in (1..).zip(&proposal.steps) {
        let gain = match &step.lets_in {
            Some(pod) => format!("lets in {pod}"),
            None => format!("gains {} GPUs of requests that fit", gpus(step.gained_milli)),
        };
        page.line(vec![
            toned(Tone::Strong, format!("Step {number}")),
            plain(format!("  {}, ", count(step.moves.len(), "move"))),
            toned(Tone::Good, gain),
        ]);
        let row = |planned: &Planned| {
            vec![
                plain(format!("{}/{}", planned.namespace, planned.name)),
                plain(format!("{} {}", planned.from, planned.from_devices)),
                plain(format!("{} {}", planned.to, planned.to_devices)),
                plain(planned.priority.to_string()),
            ]
        };
        page.table(2, &["POD", "FROM", "TO", "PRIORITY"], step.moves.iter().map(row).collect());
    }
    page.gap();
    page.say(format!(
        "{} of {} moved{}",
        moves,
        count(proposal.pods, "GPU pod"),
        if moves > 0 { ". Nothing was changed: --apply evicts them, one at a time." } else { "." }
    ));
    if !proposal.stay.is_empty() {
        page.say("Left where they are");
        for (why, pods) in &proposal.stay {
            page.tone(Tone::Dim, format!("  {pods:>3}  {why}"));
        }
    }
}

/// What was done.
#[derive(Serialize)]
struct Report<'a> {
    done: &'a Done,
}

/// What was done, for people and programs.
///
/// # Errors
/// Where the answer cannot be said.
pub fn report(done: &Done) -> Result<Answer> {
    let mut page = Page::default();
    let sign = if done.gained_milli < 0 { "-" } else { "" };
    let moved = done.moved.iter().filter(|moved| moved.replacement.is_some()).count();
    let lost = match done.moved.len() - moved {
        0 => String::new(),
        lost => format!(", {lost} evicted and not replaced"),
    };
    page.say(format!(
        "{} moved{lost}, {sign}{} GPUs of requests more fit. Ended: {}.",
        count(moved, "pod"),
        gpus(done.gained_milli.unsigned_abs()),
        done.ended
    ));
    Ok(Answer { found: done.failed, ..Answer::new(page, &Report { done })? })
}
