//! Three 1g slices on one GPU, and a 3g that waits.

use serde_json::{Value, json};

use super::super::search::{NO_OTHER_PLACE, NO_POD_HELPS};
use super::*;
use crate::preempt::tests::{THREE, cluster, leaves, protect, unschedulable};
use crate::synthetic::{SLICE, gpu_node_name};

/// A pod that stays whatever happens.
fn firm(pod: &mut Value) {
    pod["metadata"]["ownerReferences"][0]["kind"] = "DaemonSet".into();
}

/// Two nodes with a GPU each. On the first a 3g and one 1g in the way of the other half, on the second three halves' worth
/// of 1g slices; the first's 1g pod is changed.
fn crowded(change: impl FnOnce(&mut Value)) -> Cluster {
    let mut cluster = cluster(2);
    let (one, two) = (gpu_node_name(0), gpu_node_name(1));
    assert!(put(&mut cluster, &mut tenant("half", THREE, firm), &one));
    assert!(put(&mut cluster, &mut tenant("small", SLICE, change), &one));
    for n in 0..6 {
        assert!(put(&mut cluster, &mut tenant(&format!("other-{n}"), SLICE, firm), &two));
    }
    cluster
}

/// Who is moved and where to, or why nobody is.
#[track_caller]
fn check(mut cluster: Cluster, want: Result<(&str, usize), &[&'static str]>) {
    let moved = search(&mut cluster, &unschedulable("p", THREE, 0, &json!({})));
    let moved = moved.map(|moved| (moved.candidate.pod.uid, moved.to.to_string()));
    let want = want.map(|(uid, node)| (uid.to_owned(), gpu_node_name(node)));
    let moved = moved.map_err(|mut why| {
        // Half a GPU would be free without those who stay whatever happens.
        why.remove("daemon_set");
        why
    });
    assert_eq!(moved, want.map_err(|why| why.iter().copied().collect()));
}

#[test]
fn the_pod_in_the_way_is_moved_where_it_has_another_place() {
    check(crowded(|_| {}), Ok(("small", 1)));
}

#[test]
fn a_pod_that_must_stay_says_why() {
    let annotation = |key: &'static str, value: &'static str| {
        move |pod: &mut Value| pod["metadata"]["annotations"][key] = value.into()
    };
    check(crowded(annotation("stowage.dev/disruptable", "false")), Err(&["not_disruptable"]));
    let safe = "cluster-autoscaler.kubernetes.io/safe-to-evict";
    check(crowded(annotation(safe, "false")), Err(&["not_safe_to_evict"]));
    check(crowded(|pod| pod["metadata"]["ownerReferences"] = json!([])), Err(&["no_controller"]));
    check(
        crowded(|pod| pod["metadata"]["deletionTimestamp"] = "2020-11-24T09:00:00Z".into()),
        Err(&["does_not_run"]),
    );
    check(crowded(|pod| pod["status"]["phase"] = "Pending".into()), Err(&["does_not_run"]));
    let scratch = json!([{ "name": "v", "emptyDir": {} }]);
    check(crowded(|pod| pod["spec"]["volumes"] = scratch), Err(&["local_storage"]));
    check(crowded(|pod| pod["spec"]["topologySpreadConstraints"] = json!([{}])), Err(&["not_looked_at"]));
    let mut protected = crowded(|_| {});
    protect(&mut protected, "small", 0);
    check(protected, Err(&["disruption_budget"]));
    let mut allowed = crowded(|_| {});
    protect(&mut allowed, "small", 1);
    check(allowed, Ok(("small", 1)));
}

#[test]
fn who_is_as_important_gives_way_only_if_its_author_has_agreed() {
    let equal = |pod: &mut Value| pod["spec"]["priority"] = 0.into();
    check(crowded(equal), Err(&["priority"]));
    check(
        crowded(|pod| {
            equal(pod);
            pod["metadata"]["annotations"]["stowage.dev/disruptable"] = "true".into();
        }),
        Ok(("small", 1)),
    );
    check(crowded(|pod| pod["spec"]["priority"] = 1.into()), Err(&["priority"]));
}

#[test]
fn nobody_is_moved_who_has_no_other_place() {
    // Whoever replaces it may run on no node that is there.
    let bound =
        |pod: &mut Value| pod["spec"]["nodeSelector"] = json!({ "kubernetes.io/hostname": "gpu-node-0" });
    check(crowded(bound), Err(&[NO_OTHER_PLACE]));
    let mut full = crowded(|_| {});
    let mut last = tenant("last", SLICE, firm);
    assert!(put(&mut full, &mut last, &gpu_node_name(1)));
    check(full, Err(&[NO_OTHER_PLACE]));
}

#[test]
fn nobody_is_moved_where_one_move_is_not_enough_or_none_is_needed() {
    let mut cluster = cluster(1);
    for n in 0..6 {
        assert!(put(&mut cluster, &mut tenant(&format!("s-{n}"), SLICE, |_| {}), &gpu_node_name(0)));
    }
    check(cluster, Err(&[NO_POD_HELPS]));
    let mut roomy = crowded(|_| {});
    roomy.gone("half");
    check(roomy, Err(&["it fits"]));
}

/// Somebody was moved although a pod that the waiting one fits in the place of was ending already.
#[test]
fn nobody_is_moved_where_room_is_being_made_already() {
    for (seconds, want) in [(30, Err(&["it fits"][..])), (3600, Ok(("small", 1)))] {
        let mut half = crowded(|_| {});
        half.gone("half");
        let mut pod = tenant("half", THREE, firm);
        leaves(&half, &mut pod, seconds);
        assert!(put(&mut half, &mut pod, &gpu_node_name(0)));
        check(half, want);
    }
    // Only what it takes of the node's CPU is in the way.
    let mut roomy = crowded(|_| {});
    roomy.gone("half");
    let mut plain = asks("plain", "example.com/disk", 1, &json!({ "nodeName": gpu_node_name(0) }));
    plain["spec"]["containers"][0]["resources"]["limits"]["cpu"] = "16".into();
    roomy.tell(&plain);
    leaves(&roomy, &mut plain, 30);
    roomy.tell(&plain);
    check(roomy, Err(&["it fits"]));
}

#[test]
fn of_several_the_least_important_is_moved() {
    let mut cluster = cluster(3);
    for (node, priority) in [(0, -1), (1, -5)] {
        let name = gpu_node_name(node);
        assert!(put(&mut cluster, &mut tenant(&format!("half-{node}"), THREE, firm), &name));
        let with = |pod: &mut Value| pod["spec"]["priority"] = priority.into();
        assert!(put(&mut cluster, &mut tenant(&format!("small-{node}"), SLICE, with), &name));
    }
    for n in 0..5 {
        assert!(put(&mut cluster, &mut tenant(&format!("other-{n}"), SLICE, firm), &gpu_node_name(2)));
    }
    let moved = search(&mut cluster, &unschedulable("p", THREE, 0, &json!({})));
    assert_eq!(moved.map(|moved| moved.candidate.pod.uid), Ok("small-1".into()));
}
