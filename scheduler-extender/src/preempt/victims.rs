//! Who must go from a node, and from which node: chosen as kube-scheduler chooses.
//!
//! Pure. Only pods of lower priority are considered, the fewest and least important of them are taken, and no
//! PodDisruptionBudget is broken.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;

use crate::book::Book;
use crate::book::amounts::Amounts;
use crate::book::objects::Pod;
use crate::clock::Now;
use crate::planner::left::LEAVING_MAX;
use crate::state::{Snapshot, State};
use crate::verbs::{Asker, fits_without};

/// What it takes to make room on a node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Price {
    /// Nothing: the pod fits, or will once those are gone who are leaving.
    Free,
    /// These pods go.
    Victims(Vec<Victim>),
}

/// A pod that is to go.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Victim {
    /// Its UID.
    pub uid: String,
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// Its priority.
    pub priority: i32,
    /// When it was made, in seconds since 1970.
    pub created: i64,
}

/// What it takes to make room for a waiting pod on a node; `None` where nothing that is allowed helps.
pub fn price(
    book: &Book,
    state: &State,
    snapshot: &Snapshot,
    pod: &Pod,
    asker: &Asker<'_>,
    node: &str,
    now: Now,
) -> Option<Price> {
    book.node(node).filter(|known| pod.rules.admit(&known.site))?;
    // Those who use GPUs: where only cpu or memory is short, kube-scheduler's own preemption helps.
    let users = state.users(node).filter(|(_, priority)| *priority < pod.priority);
    let mut lower: Vec<&Pod> =
        users.filter_map(|(user, _)| book.pod(&user.uid)).filter(|user| !user.deleting).collect();
    // The most important first: kube-scheduler lets the older of equals stay.
    lower.sort_by(|one, two| {
        (Reverse(one.priority), one.created, &one.uid).cmp(&(Reverse(two.priority), two.created, &two.uid))
    });
    let fits = |gone: &BTreeSet<&str>| {
        has_the_rest(book, snapshot, pod, node, gone)
            && fits_without(state, snapshot, asker, node, gone, now.monotonic)
    };
    let leaving = leaving(book, node, now.wall);
    if fits(&BTreeSet::new()) || !leaving.is_empty() && fits(&leaving) {
        return Some(Price::Free);
    }
    let mut gone: BTreeSet<&str> = lower.iter().map(|user| &*user.uid).collect();
    if gone.is_empty() || !fits(&gone) {
        return None;
    }
    // Whoever is protected stays if it can be, then the most important.
    let (protected, others): (Vec<&Pod>, Vec<&Pod>) =
        lower.iter().partition(|user| book.budgets_of(user).next().is_some());
    for user in protected.into_iter().chain(others) {
        gone.remove(&*user.uid);
        if !fits(&gone) {
            gone.insert(&user.uid);
        }
    }
    let victims: Vec<&Pod> = lower.into_iter().filter(|user| gone.contains(&*user.uid)).collect();
    budgets_allow(book, &victims).then(|| Price::Victims(victims.into_iter().map(victim).collect()))
}

/// The pods that leave a node soon, whatever we do: they are being deleted, and are to be gone within [`LEAVING_MAX`].
///
/// Those that should have been gone for as long are not among them: nobody knows when they will be.
pub fn leaving<'a>(book: &'a Book, node: &str, now: Timestamp) -> BTreeSet<&'a str> {
    let soon = |gone_by: i64| gone_by.abs_diff(now.as_second()) < LEAVING_MAX.as_secs();
    book.on_node(node).filter(|user| user.gone_by.is_some_and(soon)).map(|user| &*user.uid).collect()
}

/// Whether a node has the cpu, memory and the like for a pod once others are gone.
///
/// Not GPUs: what the kubelet counts of them now says nothing of what there is then. Of slices that are built on demand it
/// counts none while others are in their place.
pub fn has_the_rest(book: &Book, snapshot: &Snapshot, pod: &Pod, node: &str, gone: &BTreeSet<&str>) -> bool {
    let Some(known) = book.node(node) else { return false };
    let mut used = Amounts::default();
    book.on_node(node).filter(|user| !gone.contains(&*user.uid)).for_each(|user| used.add(&user.wants));
    pod.wants.fits_but(&known.allocatable, &used, |name| snapshot.names.is_gpu(name))
}

/// A pod that is to go.
pub fn victim(pod: &Pod) -> Victim {
    Victim {
        uid: pod.uid.clone(),
        namespace: pod.namespace.clone(),
        name: pod.name.clone(),
        priority: pod.priority,
        created: pod.created,
    }
}

/// Whether every budget allows as many evictions as there would be.
fn budgets_allow(book: &Book, victims: &[&Pod]) -> bool {
    let mut wanted: BTreeMap<&str, (u32, u32)> = BTreeMap::new();
    for (key, budget) in victims.iter().flat_map(|pod| book.budgets_of(pod)) {
        wanted.entry(key).or_insert((0, budget.allowed)).0 += 1;
    }
    wanted.values().all(|(wanted, allowed)| wanted <= allowed)
}

/// How bad it is to lose these pods; less is better. As kube-scheduler ranks nodes: the most important victim, then the
/// sum of their importance, then how many there are, then how long they have run.
pub fn pain(victims: &[Victim]) -> (i32, i64, usize, Reverse<i64>) {
    let highest = victims.iter().map(|victim| victim.priority).max().unwrap_or(i32::MIN);
    // As kube-scheduler does it: so that many pods of negative priority are not better than few.
    let sum = victims.iter().map(|victim| i64::from(victim.priority) + i64::from(i32::MAX) + 1).sum();
    let earliest =
        victims.iter().filter(|victim| victim.priority == highest).map(|victim| victim.created).min();
    (highest, sum, victims.len(), Reverse(earliest.unwrap_or(i64::MAX)))
}
