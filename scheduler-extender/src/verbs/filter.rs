//! Where does the pod fit?

use std::sync::Arc;
use std::time::Instant;

use stowage_shared::belief::{KEPT_FOR_GPU_PODS, NO_GPUS};
use stowage_shared::pack::Demand;
use stowage_shared::request::Request;

use super::memo::{Judgement, Memo};
use crate::state::{KnownGpus, NodeView, Snapshot};
use crate::wire::{Asked, Filtered, Reason};

/// A node that is not in our cache: it came or went a moment ago.
const UNKNOWN_NODE: &str = "node is not known to Stowage yet";

/// Says of each node whether the pod fits there, and why not.
///
/// Pure: a filter need not be followed by a bind, so it holds nothing. A pod whose last Binding may still succeed
/// fits the node where its devices are held.
pub fn filter<'a>(snapshot: &'a Snapshot, memo: &Memo, asked: &'a Asked<'_>, now: Instant) -> Filtered<'a> {
    match Request::of(&asked.pod.spec, |name| snapshot.names.is_gpu(name)) {
        Ok(request) if request.is_empty() => without_gpus(snapshot, asked),
        Ok(request) => with_gpus(snapshot, memo, asked, &request.total(), now),
        Err(error) => {
            let reason: Arc<str> = error.to_string().into();
            let all = asked.names().map(|name| (name, Reason::Shared(reason.clone())));
            Filtered { unresolvable: all.collect(), ..Filtered::default() }
        }
    }
}

/// GPU nodes drop out while another node is in the list.
fn without_gpus<'a>(snapshot: &Snapshot, asked: &'a Asked<'_>) -> Filtered<'a> {
    let is_gpu_node = |name: &str| snapshot.node(name).map(NodeView::is_gpu_node);
    let others = asked.names().any(|name| is_gpu_node(name) == Some(false));
    let mut filtered = Filtered::default();
    for name in asked.names() {
        match is_gpu_node(name) {
            None => filtered.failed.push((name, Reason::Fixed(UNKNOWN_NODE))),
            Some(true) if others => filtered.failed.push((name, Reason::Fixed(KEPT_FOR_GPU_PODS))),
            Some(_) => filtered.fitting.push(name),
        }
    }
    filtered
}

fn with_gpus<'a>(
    snapshot: &'a Snapshot,
    memo: &Memo,
    asked: &'a Asked<'_>,
    demand: &Demand,
    now: Instant,
) -> Filtered<'a> {
    let held = held(snapshot, asked);
    let mut filtered = Filtered::default();
    for (name, verdict) in verdicts(snapshot, memo, asked, demand, now) {
        match verdict {
            Verdict::UnknownNode => filtered.failed.push((name, Reason::Fixed(UNKNOWN_NODE))),
            Verdict::Closed(why) => filtered.unresolvable.push((name, Reason::Fixed(why))),
            Verdict::Judged(_) if held.is_some_and(|node| &**node == name) => filtered.fitting.push(name),
            Verdict::Judged(Judgement::Fits(_)) => filtered.fitting.push(name),
            Verdict::Judged(Judgement::DoesNot { text, permanent }) => {
                let list = if permanent { &mut filtered.unresolvable } else { &mut filtered.failed };
                list.push((name, Reason::Shared(text)));
            }
        }
    }
    filtered
}

/// What there is to say of a node.
pub(super) enum Verdict {
    /// It is not in our cache.
    UnknownNode,
    /// It takes no GPU pods, whoever leaves.
    Closed(&'static str),
    /// Its GPUs are known.
    Judged(Judgement),
}

/// Judges every node of a request, in its order.
pub(super) fn verdicts<'a>(
    snapshot: &Snapshot,
    memo: &Memo,
    asked: &'a Asked<'_>,
    demand: &Demand,
    now: Instant,
) -> Vec<(&'a str, Verdict)> {
    let looks: Vec<(&str, Result<&KnownGpus, Verdict>)> = asked
        .names()
        .map(|name| {
            let look = match snapshot.node(name).map(|node| node.usable(now)) {
                None => Err(Verdict::UnknownNode),
                Some(Err(None)) => Err(Verdict::Closed(NO_GPUS)),
                Some(Err(Some(why))) => Err(Verdict::Closed(why.text())),
                Some(Ok(known)) => Ok(known),
            };
            (name, look)
        })
        .collect();
    let known = looks.iter().filter_map(|(_, look)| look.as_ref().ok().copied());
    let mut judgements = memo.judge(snapshot, demand, known).into_iter();
    let mut verdict = |look: Result<&KnownGpus, Verdict>| match look {
        Err(verdict) => verdict,
        // One judgement was asked for each of these.
        Ok(_) => judgements.next().map_or(Verdict::UnknownNode, Verdict::Judged),
    };
    looks.into_iter().map(|(name, look)| (name, verdict(look))).collect()
}

/// The node where devices are held for this pod, if any.
pub(super) fn held<'a>(snapshot: &'a Snapshot, asked: &Asked<'_>) -> Option<&'a Arc<str>> {
    snapshot.assumed.get(&asked.pod.metadata.uid)
}
