//! `kubectl stowage advise`: a whole GPU, a MIG slice, a share or no GPU, from what a model needs and what the cluster has.
//!
//! Which strategy comes first is the table of `docs/strategies.md`; the cluster decides what there is of it, and of two
//! that would do the first with room wins. It is advice: it knows the model by a few numbers.

mod need;
mod offers;
mod page;

use anyhow::{Result, anyhow};
use serde::Serialize;
use serde_json::{Value, json};
use stowage_shared::share::ShareSize;
use stowage_shared::units::MemoryMib;

pub use self::need::{Need, Strategy};
use self::offers::{Request, largest, request};
use crate::answer::Answer;
use crate::page::Page;
use crate::world::World;

/// Reads an amount of memory as Kubernetes writes it.
///
/// # Errors
/// Where it is none, with what would be.
pub fn read_memory(text: &str) -> Result<MemoryMib> {
    let size =
        ShareSize::read(|key| (key == stowage_shared::contract::SHARE_MEMORY_ANNOTATION).then_some(text));
    match size {
        Ok(Some(ShareSize::Memory(memory))) => Ok(memory),
        _ => Err(anyhow!("{text:?} is no amount of memory from 1Mi on, such as 3Gi or 1500Mi")),
    }
}

/// One strategy, for this model on this cluster.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
struct Advice {
    strategy: Strategy,
    /// Absent without a GPU, and where the cluster has none that would do.
    #[serde(skip_serializing_if = "Option::is_none")]
    resource: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    count: Option<u32>,
    /// The memory that it gets.
    #[serde(skip_serializing_if = "Option::is_none")]
    memory_mib: Option<MemoryMib>,
    /// How many such pods fit now.
    #[serde(skip_serializing_if = "Option::is_none")]
    room: Option<u32>,
    reason: String,
}

/// The answer.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Advised {
    recommended: Advice,
    /// What to put into the pod template.
    manifest: Value,
    notes: Vec<String>,
    alternatives: Vec<Advice>,
}

/// Advises.
///
/// # Errors
/// Where the answer cannot be said.
pub fn advise(world: &World, need: &Need) -> Result<Answer> {
    let largest = largest(world);
    let (order, why) = need.order(largest);
    let found: Vec<(Strategy, Option<Request>)> =
        order.iter().map(|strategy| (*strategy, request(world, need, *strategy))).collect();
    let chosen = choose(&found, need);
    let (strategy, request) = &found[chosen];
    let mut reason = why;
    if chosen > 0 {
        let first = &found[0];
        let none = if first.1.is_some() { "has no room now" } else { "is not offered large enough" };
        reason = format!("{reason}, but {} {none}", first.0.word());
    } else if request.is_none() && *strategy != Strategy::Cpu {
        reason = format!("{reason}, but no node offers one that is large enough");
    }
    let recommended = tell(*strategy, request.as_ref(), reason);
    let others = found.iter().enumerate().filter(|(at, _)| *at != chosen);
    let alternatives = others.map(|(_, (strategy, request))| {
        tell(*strategy, request.as_ref(), against(*strategy, request.as_ref(), need))
    });
    let answer = Advised {
        manifest: manifest(request.as_ref(), world.schedulers.name()),
        notes: notes(need, request.as_ref(), largest),
        alternatives: alternatives.collect(),
        recommended,
    };
    let mut page = Page::default();
    page::write(&answer, need, &mut page);
    let nothing = *strategy != Strategy::Cpu && request.as_ref().is_none_or(|request| request.room == 0);
    Ok(Answer { found: nothing, ..Answer::new(page, &answer)? })
}

/// The first with room; else the first that is offered, which would wait; else the first. What keeps nothing apart is no
/// choice for who must be kept apart.
fn choose(found: &[(Strategy, Option<Request>)], need: &Need) -> usize {
    if found[0].0 == Strategy::Cpu {
        return 0;
    }
    let first = |wanted: &dyn Fn(&Request) -> bool| {
        found.iter().position(|(strategy, request)| {
            let apart = !need.isolation || *strategy != Strategy::TimeSlicing;
            apart && request.as_ref().is_some_and(wanted)
        })
    };
    first(&|request| request.room > 0).or_else(|| first(&|_| true)).unwrap_or(0)
}

fn tell(strategy: Strategy, request: Option<&Request>, reason: String) -> Advice {
    Advice {
        strategy,
        resource: request.map(|request| request.resource.to_string()),
        count: request.map(|request| request.count),
        memory_mib: request.map(|request| request.memory),
        room: request.map(|request| request.room),
        reason,
    }
}

/// Why not this one.
fn against(strategy: Strategy, request: Option<&Request>, need: &Need) -> String {
    match (strategy, request) {
        (Strategy::Cpu, _) if need.is_hurried() => {
            "measure it: a GPU is mostly needed for so little time".into()
        }
        (Strategy::Cpu, _) => "measure it first: where it is fast enough, nothing is cheaper".into(),
        (_, None) => "no node offers one that is large enough".into(),
        (Strategy::Dedicated, Some(request)) => {
            let all = request.memory.0.max(1) * u64::from(request.count);
            format!("the lowest latency; {} % of its memory would be used", need.memory.0 * 100 / all)
        }
        (Strategy::Mig, Some(_)) => "kept apart in hardware, and steady".into(),
        (Strategy::TimeSlicing, Some(_)) if need.isolation => "keeps neither memory nor faults apart".into(),
        (Strategy::TimeSlicing, Some(_)) if need.is_hurried() => "waits for its neighbours' turns".into(),
        (Strategy::TimeSlicing, Some(_)) => "the cheapest; waits for its neighbours' turns".into(),
    }
}

fn manifest(request: Option<&Request>, scheduler: &str) -> Value {
    let Some(request) = request else { return json!({}) };
    let limits = json!({ request.resource.as_str(): request.count });
    let mut manifest = json!({
        "spec": {
            "schedulerName": scheduler,
            "containers": [{ "resources": { "limits": limits } }],
        },
    });
    if !request.annotations.is_empty() {
        manifest["metadata"] = json!({ "annotations": request.annotations });
    }
    manifest
}

fn notes(need: &Need, request: Option<&Request>, largest: Option<MemoryMib>) -> Vec<String> {
    let mut notes = Vec::new();
    if largest.is_none() {
        notes.push("no node tells of GPUs that may be used: kubectl stowage nodes says why".to_owned());
    }
    if let Some(request) = request {
        if request.count > 1 {
            let count = request.count;
            notes.push(format!(
                "no GPU is as large: the server must spread the model over {count} (tensor parallel)"
            ));
        }
        if request.room == 0 {
            notes.push("it would wait now: kubectl stowage defrag proposes moves that make room".to_owned());
        }
        if request.strategy == Strategy::TimeSlicing {
            notes.push("without MPS nothing holds a share to its size: docs/sharing.md".to_owned());
        }
    }
    if let (Some(milli), Some(rate), Some(ms)) =
        (need.busy_milli(), need.requests_per_second, need.latency_ms)
    {
        // Two thirds busy leaves room for a burst.
        let replicas = milli.saturating_mul(3).div_ceil(2_000).max(1);
        notes.push(format!(
            "{rate} requests a second keep at most {replicas} replicas two thirds busy, if each takes all of its {ms} ms: \
             begin with fewer, and measure"
        ));
    }
    notes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_must_be_kept_apart_is_never_told_to_share() {
        use Strategy::{Cpu, Dedicated, Mig, TimeSlicing};
        let of = |strategy, room| {
            let (resource, memory) = ("nvidia.com/x".parse().unwrap(), MemoryMib(4_096));
            (strategy, Some(Request { strategy, resource, count: 1, annotations: [].into(), memory, room }))
        };
        let found = [of(Mig, 0), of(Dedicated, 0), of(TimeSlicing, 3), (Cpu, None)];
        let mut need = Need {
            memory: MemoryMib(3_072),
            latency_ms: None,
            requests_per_second: None,
            isolation: false,
            batch: false,
        };
        assert_eq!(choose(&found, &need), 2);
        need.isolation = true;
        assert_eq!((choose(&found, &need), choose(&[of(Mig, 0), of(Dedicated, 1)], &need)), (0, 1));
    }
}
