//! Would the pod fit once those who should go are gone?
//!
//! kube-scheduler finds victims by its own counts: pods whose going leaves enough of the same resource. Counts are not
//! placements, so a node drops out where the pod would not fit even then. Nobody is taken off a list: each of its pods
//! is needed for kube-scheduler's counts.
//!
//! kube-schedulers after 1.36 may send an empty list: by their counts nobody need go. Such a node stays if the pod fits
//! there.

use std::collections::BTreeSet;
use std::time::Instant;

use stowage_shared::policy::{Occupied, Want};

use crate::state::{Broken, Snapshot, State, Store};
use crate::wire::{Candidates, MetaVictim, Pod, Victims};

/// Keeps the candidates that would help.
///
/// # Errors
/// [`Broken`].
pub fn preempt(
    store: &Store,
    snapshot: &Snapshot,
    pod: &Pod,
    candidates: Candidates,
    now: Instant,
) -> Result<Candidates, Broken> {
    let want = match pod.want(&snapshot.names) {
        // Not about GPUs: whatever kube-scheduler has found is right.
        Ok(None) => return Ok(candidates),
        Ok(Some(want)) => want,
        Err(_) => return Ok(Candidates::new()),
    };
    let (uid, namespace) = (&pod.metadata.uid, &pod.metadata.namespace);
    let asker = Asker { uid, namespace, priority: pod.spec.priority, want: &want };
    store.change(|state| {
        let helps = |node: &str, victims: &Victims<MetaVictim>| {
            let gone = victims.pods.iter().map(|victim| &*victim.uid).collect();
            fits_without(state, snapshot, &asker, node, &gone, now)
        };
        candidates.into_iter().filter(|(node, victims)| helps(node, victims)).collect()
    })
}

/// Who wants room, and how much.
#[derive(Debug, Clone, Copy)]
pub struct Asker<'a> {
    /// The pod's UID.
    pub uid: &'a str,
    /// Its namespace.
    pub namespace: &'a str,
    /// Its priority.
    pub priority: i32,
    /// What it wants.
    pub want: &'a Want,
}

/// Whether a pod fits a node once some pods are gone, beside what is kept for others that are as important.
pub fn fits_without(
    state: &State,
    snapshot: &Snapshot,
    asker: &Asker<'_>,
    node: &str,
    gone: &BTreeSet<&str>,
    now: Instant,
) -> bool {
    room_without(state, snapshot, asker, node, gone, now)
        .is_some_and(|room| room.place(asker.want, asker.namespace, &snapshot.mix).is_ok())
}

/// What of a node is in use once some pods are gone, with what is kept for others that are as important as who asks;
/// `None` where that is not known.
pub fn room_without(
    state: &State,
    snapshot: &Snapshot,
    asker: &Asker<'_>,
    node: &str,
    gone: &BTreeSet<&str>,
    now: Instant,
) -> Option<Occupied> {
    let mut room = state.without(node, gone, now).ok()?;
    let kept = snapshot.node(node).and_then(|view| view.nominated.as_ref());
    for nominee in kept.into_iter().flat_map(|kept| kept.nominees()) {
        if nominee.uid != asker.uid && nominee.priority >= asker.priority {
            nominee.settle(&mut room, &snapshot.mix);
        }
    }
    Some(room)
}
