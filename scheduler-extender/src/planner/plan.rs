//! Which waiting pods should be tried on which node first.
//!
//! Pure: a snapshot of the GPUs, the book, and whom to leave out go in, nominations come out; the same input gives the
//! same answer. Pods are taken in the order of kube-scheduler's queue. Each is placed over the whole cluster as
//! `prioritize` would rank it, on a node that its rules admit and that has the cpu, memory and room for it; nodes whose
//! GPUs are alike are judged once. Everything that is nominated already counts as placed, and so does what this round
//! has nominated before.
//!
//! A pod that fits nowhere holds nobody up. One that fits only where less important pods are nominated goes there.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Instant;

use stowage_shared::host::Host;
use stowage_shared::policy::Want;
use stowage_shared::request::Request;

use super::table::Table;
use crate::book::amounts::Amounts;
use crate::book::objects::Pod;
use crate::book::rules::Rules;
use crate::book::{Book, Place};
use crate::state::Snapshot;
use crate::verbs::Memo;

/// Different requests that are looked at in one round; the next round goes on with the rest.
const TRIES_MAX: usize = 200;

/// A pod that should be tried on a node first.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Nomination {
    /// The pod's UID.
    pub uid: String,
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// The version that was looked at.
    pub resource_version: String,
    /// The node.
    pub node: Arc<str>,
}

/// What a round decided.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Round {
    /// In the order of the queue.
    pub nominations: Vec<Nomination>,
    /// Where the next round goes on, if this one has not come to the end of the queue.
    pub resume: Option<Place>,
}

/// What is looked at.
pub struct Scene<'a> {
    /// The GPUs.
    pub snapshot: &'a Snapshot,
    /// What was judged before.
    pub memo: &'a Memo,
    /// Everything else.
    pub book: &'a Book,
    /// This moment.
    pub now: Instant,
}

/// Plans for at most `limit` pods, from a place in the queue on. `leave_out` says whom not to look at.
pub fn plan(scene: &Scene<'_>, from: Option<Place>, limit: usize, leave_out: impl Fn(&str) -> bool) -> Round {
    let mut round = Round::default();
    let mut open =
        scene.book.waiting(from).filter(|(_, pod)| !leave_out(&pod.uid) && may_be_nominated(pod)).peekable();
    // A table looks at every node.
    if limit == 0 || open.peek().is_none() {
        return round;
    }
    let mut table = Table::new(scene);
    let mut hopeless: HashSet<(i32, Want, Option<&str>, &Amounts, &Rules)> = HashSet::new();
    for (place, pod) in open {
        if round.nominations.len() >= limit || hopeless.len() >= TRIES_MAX {
            round.resume = Some(place);
            break;
        }
        if table.has_a_place(pod) {
            continue;
        }
        let Some(want) = want(pod, scene.snapshot) else { continue };
        let alike = (pod.priority, want.clone(), table.scope(pod, &want), &pod.wants, &*pod.rules);
        if hopeless.contains(&alike) || scene.book.may_be_repelled(pod) {
            continue;
        }
        match table.choose(pod, &want) {
            Some(at) => round.nominations.push(table.nominate(at, pod, want)),
            None => drop(hopeless.insert(alike)),
        }
    }
    round
}

/// Whether a pod may be nominated at all, whatever room there is.
pub fn may_be_nominated(pod: &Pod) -> bool {
    pod.node.is_empty() && !pod.deleting && !pod.gated && pod.nominated.is_empty() && pod.left_alone.is_none()
}

/// What a pod wants of a node; `None` where it asks for no GPU, or for what nobody can serve.
pub fn want(pod: &Pod, snapshot: &Snapshot) -> Option<Want> {
    let annotation = |key: &str| pod.annotations.get(key);
    let request = Request::of_pod(&pod.asks, annotation, |name| snapshot.names.is_gpu(name)).ok()?;
    let host = Host::of_bytes(pod.wants.get("cpu"), pod.wants.get("memory"));
    Some(Want { host, ..Want::of(&request, annotation).ok()?? })
}
