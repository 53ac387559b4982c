//! What there is to tell beside nodes: how many there are, and which pods wait for GPUs and for what.

use std::collections::BTreeMap;
use std::time::Instant;

use serde_json::{Value, json};
use stowage_shared::contract::MAP_WAITING_MAX;
use stowage_shared::policy::Want;

use super::survey::asks;
use crate::state::{Broken, Snapshot, Store, WaitingPod};
use crate::stock::Outlook;
use crate::verbs::Memo;

/// The JSON, with names and without:
/// `{plainNodes, waiting, reasons: {reason: pods}, pods: [[uid, namespace, name, priority, what, reason, node]]}`.
///
/// # Errors
/// [`Broken`].
pub(super) fn cluster(
    store: &Store,
    snapshot: &Snapshot,
    memo: &Memo,
    now: Instant,
) -> Result<[String; 2], Broken> {
    let ((pods, all), alike) =
        store.change(|state| (state.waiting_pods(MAP_WAITING_MAX), state.waiting()))?;
    let outlook = Outlook::of(snapshot, memo, now);
    let mut known: BTreeMap<(Option<&Want>, &str), &'static str> = BTreeMap::new();
    let mut reason =
        |want, namespace| *known.entry((want, namespace)).or_insert_with(|| outlook.reason(want, namespace));
    let mut reasons: BTreeMap<&str, usize> = BTreeMap::new();
    for alike in &alike {
        *reasons.entry(reason(alike.want.as_ref(), &alike.namespace)).or_default() += alike.pods;
    }
    let row = |pod: &WaitingPod| {
        let WaitingPod { uid, namespace, name, priority, nominated, want } = pod;
        let what = want.as_ref().map_or_else(|| "annotations that cannot be read".to_owned(), asks);
        json!([uid, namespace, name, priority, what, "", nominated])
    };
    let mut rows: Vec<Value> = pods.iter().map(row).collect();
    for (row, pod) in rows.iter_mut().zip(&pods) {
        row[5] = reason(pod.want.as_ref(), &pod.namespace).into();
    }
    let plain = snapshot.nodes().filter(|node| !node.is_gpu_node()).count();
    let told = |pods: &[Value]| {
        json!({ "plainNodes": plain, "waiting": all, "reasons": reasons, "pods": pods }).to_string()
    };
    Ok([told(&rows), told(&[])])
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::Now;
    use crate::state::event::{Change, Event};
    use crate::synthetic;

    #[test]
    fn pods_that_wait_are_listed_with_their_reason_and_counted_for_those_who_may_not_see_them() {
        let now = Now::read();
        let store = Store::new(synthetic::state(1, 0, now));
        let waits = [(synthetic::WHOLE, 1), (synthetic::WHOLE, 5), ("nvidia.com/mig-3g.20gb", 1)];
        for (at, (resource, count)) in waits.into_iter().enumerate() {
            let pod = synthetic::pod(&format!("p{at}"), &format!("u{at}"), resource, count);
            store.change(|state| state.apply(Event::Pod(Change::Applied(pod)), now)).unwrap();
        }
        let [with, without] = cluster(&store, &store.snapshot(), &Memo::default(), now.monotonic).unwrap();
        let (with, without): (Value, Value) =
            (serde_json::from_str(&with).unwrap(), serde_json::from_str(&without).unwrap());
        assert_eq!(with["reasons"], json!({ "fits": 1, "not_offered": 1, "too_few": 1 }));
        assert_eq!(with["pods"][1], json!(["u1", "models", "p1", 0, "5 x nvidia.com/gpu", "too_few", ""]));
        assert_eq!((&without["pods"], &without["waiting"]), (&json!([]), &json!(3)));
    }
}
