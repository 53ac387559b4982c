//! What there is to say of each node of a request: once for all nodes that are alike.

use std::collections::{BTreeMap, HashMap};
use std::time::Instant;

use foldhash::fast::FixedState;
use stowage_shared::policy::Want;

use super::memo::{Judgement, Memo};
use super::template::Template;
use crate::state::{Barred, Class, KnownGpus, NodeView, Room, Snapshot, Unknown};
use crate::wire::Asked;

/// What there is to say of a node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Verdict {
    /// It is not in our cache.
    UnknownNode,
    /// It has no GPUs.
    NoGpus,
    /// It has some, and takes no GPU pods, whoever leaves.
    Closed(Unknown),
    /// Its GPUs are known.
    Judged(Judgement),
}

/// The verdicts of a request, and which of them is each node's.
#[derive(Debug)]
pub(super) struct Verdicts {
    /// The different ones.
    pub(super) all: Vec<Verdict>,
    /// By the place of a node in the request, the place of its verdict.
    pub(super) of: Vec<usize>,
}

/// Where verdicts stand: those that are always there, by [`Unknown`] where nodes are closed, and then those on classes.
const UNKNOWN_NODE: usize = 0;
const NO_GPUS: usize = 1;
const CLOSED: usize = 2;
const JUDGED: usize = CLOSED + Unknown::ALL.len();

/// How exactly nodes are judged.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Exactly {
    /// Whether the pod fits.
    Fit,
    /// Also what it costs there.
    Cost,
}

/// Judges every node of a request.
pub(super) fn verdicts(
    snapshot: &Snapshot,
    memo: &Memo,
    asked: &Asked<'_>,
    want: &Want,
    exactly: Exactly,
    now: Instant,
) -> Verdicts {
    let (policy, namespace) = (&want.policy, &*asked.pod.metadata.namespace);
    // By class and, where costs count, by what is idle.
    let mut places: HashMap<(Class, u64), usize, FixedState> = HashMap::default();
    // Where somebody minds others, which is seldom.
    let mut barred_places: BTreeMap<(Class, u64, Barred), usize> = BTreeMap::new();
    let mut classes: Vec<&KnownGpus> = Vec::new();
    // Where the pod itself is nominated, which is one node.
    let mut own: Vec<(usize, Judgement)> = Vec::new();
    let known = asked.names().iter().enumerate().map(|(at, name)| {
        let Some(node) = snapshot.node(name.text()) else { return UNKNOWN_NODE };
        let known = match node.usable(now) {
            Err(None) => return NO_GPUS,
            Err(Some(why)) => return CLOSED + why as usize,
            Ok(known) => match room(snapshot, node, known, asked) {
                Room::Class(known) => known,
                Room::Own(room) => {
                    own.push((at, Judgement::of_room(&room, want, namespace, &snapshot.mix)));
                    return UNKNOWN_NODE;
                }
            },
        };
        let judged = || {
            classes.push(known);
            JUDGED + classes.len() - 1
        };
        let barred = known.barred(policy, namespace);
        let idle = if exactly == Exactly::Cost { known.idle() } else { 0 };
        if barred.is_none() {
            *places.entry((known.class, idle)).or_insert_with(judged)
        } else {
            *barred_places.entry((known.class, idle, barred)).or_insert_with(judged)
        }
    });
    let mut of: Vec<usize> = known.collect();
    let mut all = vec![Verdict::UnknownNode, Verdict::NoGpus];
    all.extend(Unknown::ALL.map(Verdict::Closed));
    let judgements = match exactly {
        Exactly::Fit => memo.judge(snapshot, want, namespace, classes),
        Exactly::Cost => memo.weigh(snapshot, want, namespace, classes),
    };
    all.extend(judgements.into_iter().map(Verdict::Judged));
    for (at, judgement) in own {
        of[at] = all.len();
        all.push(Verdict::Judged(judgement));
    }
    judge_templates(snapshot, asked, want, &mut all, &mut of);
    Verdicts { all, of }
}

/// Judges one node of a request by itself.
pub(super) fn verdict(
    snapshot: &Snapshot,
    memo: &Memo,
    asked: &Asked<'_>,
    want: &Want,
    node: &str,
    now: Instant,
) -> Verdict {
    let namespace = &*asked.pod.metadata.namespace;
    let Some(node) = snapshot.node(node) else { return Verdict::UnknownNode };
    let known = match node.usable(now) {
        Ok(known) => known,
        Err(None) => return Verdict::NoGpus,
        Err(Some(why)) => return Verdict::Closed(why),
    };
    match room(snapshot, node, known, asked) {
        Room::Own(room) => Verdict::Judged(Judgement::of(room.rank(want, namespace, &snapshot.mix))),
        Room::Class(known) => {
            let judgements = memo.judge(snapshot, want, namespace, [known]);
            judgements.into_iter().next().map_or(Verdict::UnknownNode, Verdict::Judged)
        }
    }
}

/// What of a node this pod may use: not what is kept for pods that are nominated there and as important.
fn room<'a>(snapshot: &Snapshot, node: &'a NodeView, known: &'a KnownGpus, asked: &Asked<'_>) -> Room<'a> {
    node.nominated.as_ref().map_or(Room::Class(known), |kept| {
        kept.room(known, asked.pod.spec.priority, &asked.pod.metadata.uid, &snapshot.mix)
    })
}

/// Judges the nodes that come as API objects and are not known.
fn judge_templates(
    snapshot: &Snapshot,
    asked: &Asked<'_>,
    want: &Want,
    all: &mut Vec<Verdict>,
    of: &mut [usize],
) {
    let mut places: BTreeMap<Template, usize> = BTreeMap::new();
    for (object, of) in asked.nodes().iter().zip(of) {
        if *of != UNKNOWN_NODE {
            continue;
        }
        let template = Template::of(object, &snapshot.names);
        *of = if template.has_gpus() {
            let judgement = |template: &Template| {
                Verdict::Judged(template.judge(snapshot, want, &asked.pod.metadata.namespace))
            };
            *places.entry(template).or_insert_with_key(|template| {
                all.push(judgement(template));
                all.len() - 1
            })
        } else {
            NO_GPUS
        };
    }
}

/// The place of the node where devices are held for this pod, if it is in the request.
pub(super) fn held(snapshot: &Snapshot, asked: &Asked<'_>) -> Option<usize> {
    place_of(snapshot.assumed.get(&asked.pod.metadata.uid)?, asked)
}

/// The place of the node that was chosen ahead for this pod, if it is in the request.
pub(super) fn ahead(snapshot: &Snapshot, asked: &Asked<'_>) -> Option<usize> {
    place_of(snapshot.ahead.get(&asked.pod.metadata.uid)?, asked)
}

fn place_of(node: &str, asked: &Asked<'_>) -> Option<usize> {
    asked.names().iter().position(|name| name.text() == node)
}
