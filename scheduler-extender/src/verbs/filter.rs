//! Where does the pod fit?

use std::sync::Arc;
use std::time::Instant;

use stowage_shared::belief::{KEPT_FOR_GPU_PODS, NO_GPUS};
use stowage_shared::policy::Want;

use super::judge::{Exactly, Verdict, ahead, held, verdict, verdicts};
use super::memo::{Judgement, Memo};
use super::template::Template;
use crate::state::Snapshot;
use crate::wire::{Asked, Name, Outcome, filter_result};

/// A node that is not in our cache: it came or went a moment ago.
const UNKNOWN_NODE: &str = "node is not known to Stowage yet";

/// Says of each node whether the pod fits there, and why not: an `ExtenderFilterResult`.
///
/// A pod whose place was chosen ahead gets that node alone: kube-scheduler has only asked before the nomination came to
/// it, and need not weigh the others.
///
/// Pure: a filter need not be followed by a bind, so it holds nothing. A pod whose last Binding may still succeed
/// fits the node where its devices are held.
pub fn filter(snapshot: &Snapshot, memo: &Memo, asked: &Asked<'_>, now: Instant) -> Vec<u8> {
    match asked.pod.want(&snapshot.names) {
        Ok(None) => without_gpus(snapshot, asked),
        Ok(Some(want)) => with_gpus(snapshot, memo, asked, &want, now),
        Err(error) => {
            let outcomes = [Outcome::Unresolvable(error.to_string())];
            filter_result(asked, &outcomes, &vec![0; asked.names().len()])
        }
    }
}

/// GPU nodes drop out while another node is in the list.
fn without_gpus(snapshot: &Snapshot, asked: &Asked<'_>) -> Vec<u8> {
    const OTHER: usize = 1;
    let is_gpu_node = |(at, name): (usize, &Name<'_>)| match snapshot.node(name.text()) {
        Some(node) => Some(node.is_gpu_node()),
        None => asked.nodes().get(at).map(|object| Template::of(object, &snapshot.names).has_gpus()),
    };
    let kind = |is_gpu_node: Option<bool>| match is_gpu_node {
        None => 0,
        Some(false) => OTHER,
        Some(true) => 2,
    };
    let kinds: Vec<usize> = asked.names().iter().enumerate().map(is_gpu_node).map(kind).collect();
    let gpu_nodes = if kinds.contains(&OTHER) { Outcome::Failed(KEPT_FOR_GPU_PODS) } else { Outcome::Fits };
    filter_result(asked, &[Outcome::Failed(UNKNOWN_NODE), Outcome::Fits, gpu_nodes], &kinds)
}

fn with_gpus(snapshot: &Snapshot, memo: &Memo, asked: &Asked<'_>, want: &Want, now: Instant) -> Vec<u8> {
    if let Some(ahead) = ahead(snapshot, asked)
        && let name = asked.names()[ahead].text()
        && let Verdict::Judged(Judgement::Fits(_)) = verdict(snapshot, memo, asked, want, name, now)
    {
        // The others have no outcome, so they are not told of.
        let mut places = vec![1; asked.names().len()];
        places[ahead] = 0;
        return filter_result::<&str>(asked, &[Outcome::Fits], &places);
    }
    let mut verdicts = verdicts(snapshot, memo, asked, want, Exactly::Fit, now);
    let outcome = |verdict: &Verdict| match verdict {
        Verdict::UnknownNode => Outcome::Failed(Arc::from(UNKNOWN_NODE)),
        Verdict::NoGpus => Outcome::Unresolvable(NO_GPUS.into()),
        Verdict::Closed(why) => Outcome::Unresolvable(why.text().into()),
        Verdict::Judged(Judgement::Fits(_)) => Outcome::Fits,
        Verdict::Judged(Judgement::DoesNot { text, permanent: false, .. }) => Outcome::Failed(text.clone()),
        Verdict::Judged(Judgement::DoesNot { text, permanent: true, .. }) => {
            Outcome::Unresolvable(text.clone())
        }
    };
    let mut outcomes: Vec<Outcome<Arc<str>>> = verdicts.all.iter().map(outcome).collect();
    if let Some(held) = held(snapshot, asked)
        && matches!(verdicts.all[verdicts.of[held]], Verdict::Judged(_))
    {
        outcomes.push(Outcome::Fits);
        verdicts.of[held] = outcomes.len() - 1;
    }
    filter_result(asked, &outcomes, &verdicts.of)
}
