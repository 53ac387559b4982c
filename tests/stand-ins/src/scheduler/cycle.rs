//! One scheduling cycle: one pod, from the in-tree filters to the chosen node.

use std::error::Error;

use rand_chacha::ChaCha8Rng;

use super::cache::Cache;
use super::choose::{Unfit, feasible, scores, select_host};
use super::extender::{Extender, ExtenderError};
use super::objects::Pod;
use super::score::ScoreWeights;

/// Why a cycle ended without a node.
#[derive(Debug)]
pub(super) enum NoNode {
    /// No node takes the pod.
    Unfit(Unfit),
    /// Something went wrong; the text is the whole chain of causes.
    Error(String),
}

/// Chooses a node: in-tree filters, then the extenders' filters one after another, each seeing what the
/// one before left; a single node that is left is taken without any scoring.
pub(super) async fn cycle(
    cache: &Cache,
    extenders: &[Extender],
    pod: &Pod,
    weights: ScoreWeights,
    random: &mut ChaCha8Rng,
) -> Result<String, NoNode> {
    let (mut fit, mut unfit) = feasible(cache, pod);
    let mut names: Vec<String> = fit.iter().map(|view| view.node.name.clone()).collect();
    let interested = || extenders.iter().filter(|extender| extender.is_interested(pod));
    for extender in interested() {
        if names.is_empty() {
            break;
        }
        match extender.filter(pod, &names).await {
            Ok(filtered) => {
                unfit.by.extender |= filtered.nodes.len() < names.len();
                filtered.reasons.values().for_each(|why| unfit.say(why));
                names = filtered.nodes;
            }
            Err(error) if extender.options.ignorable => {
                tracing::debug!(%error, "An ignorable extender was passed over.");
            }
            Err(error) => return Err(NoNode::Error(chain(&error))),
        }
    }
    if let [only] = names.as_slice() {
        return Ok(only.clone());
    }
    fit.retain(|view| names.contains(&view.node.name));
    let mut total = scores(&fit, pod, weights);
    for extender in interested().filter(|_| !names.is_empty()) {
        match extender.prioritize(pod, &names).await {
            Ok(points) => {
                total.iter_mut().for_each(|(name, score)| *score += points.get(name).copied().unwrap_or(0));
            }
            // As kube-scheduler: the others may decide.
            Err(error) => tracing::debug!(error = chain(&error), "An extender gave no scores."),
        }
    }
    select_host(&total, random).ok_or(NoNode::Unfit(unfit))
}

/// An error with its causes, in one line.
pub(super) fn chain(error: &ExtenderError) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text.push_str(": ");
        text.push_str(&cause.to_string());
        source = cause.source();
    }
    text
}
