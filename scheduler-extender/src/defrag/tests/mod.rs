//! Who is moved, and how often.

mod pace;
mod random;
mod search;

use std::collections::BTreeSet;

use serde_json::{Value, json};

use super::search::{Found, Look, Moved};
use crate::planner::plan::want;
use crate::planner::tests::{Cluster, asks};
use crate::preempt::tests::snapshot;
use crate::state::Choice;

/// A running pod of a ReplicaSet, as the API server has it, with something changed.
fn tenant(name: &str, resource: &str, change: impl FnOnce(&mut Value)) -> Value {
    let mut pod = asks(name, resource, 1, &json!({}));
    pod["metadata"]["labels"] = json!({ "name": name });
    pod["metadata"]["annotations"] = json!({});
    pod["metadata"]["ownerReferences"] =
        json!([{ "kind": "ReplicaSet", "uid": format!("of-{name}"), "controller": true }]);
    pod["spec"]["priority"] = (-1).into();
    pod["status"]["phase"] = "Running".into();
    change(&mut pod);
    pod
}

/// Places a pod on a node, as kube-scheduler would have it; `false` where it does not fit.
fn put(cluster: &mut Cluster, pod: &mut Value, node: &str) -> bool {
    let uid = pod["metadata"]["uid"].as_str().unwrap().to_owned();
    let mut waits = pod.clone();
    waits["status"] = json!({ "phase": "Pending" });
    cluster.tell(&waits);
    let narrow = cluster.state.pod(&uid).unwrap();
    let Ok(Choice::Planned(_, plan)) = cluster.state.choose(&narrow, node, cluster.now) else {
        cluster.gone(&uid);
        return false;
    };
    pod["spec"]["nodeName"] = node.into();
    pod["metadata"]["annotations"]["stowage.dev/plan"] = plan.into();
    cluster.tell(pod);
    true
}

/// Who would be moved for a waiting pod.
fn search(cluster: &mut Cluster, pod: &Value) -> Result<Moved, BTreeSet<&'static str>> {
    let pod = cluster.tell(pod);
    let snapshot = snapshot(cluster);
    let want = want(&pod, &snapshot).unwrap();
    let mut found = Found::default();
    let now = cluster.now;
    for node in snapshot.nodes() {
        let look = Look { book: &cluster.book, state: &cluster.state, snapshot: &snapshot, now };
        found.look(&look, &pod, &want, &node.name);
    }
    if found.fits() {
        Err(BTreeSet::from(["it fits"]))
    } else {
        found.best(&cluster.book, &snapshot, &pod, now.monotonic)
    }
}
