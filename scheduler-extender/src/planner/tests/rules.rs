//! Who is nominated, and where.

use serde_json::{Value, json};
use stowage_shared::policy::Reserve;

use super::*;
use crate::book::tests::pod as pod_of;
use crate::planner::left::{self, Fits};
use crate::state::event::Node;
use crate::synthetic::{SLICE, WHOLE};

#[track_caller]
fn check(cluster: &mut Cluster, want: &[(&str, &str)]) {
    let got = cluster.nominate(64);
    let got: Vec<(&str, &str)> = got.iter().map(|(pod, node)| (&**pod, &**node)).collect();
    assert_eq!(got, want);
}

#[test]
fn pods_are_placed_over_the_whole_cluster_and_packed() {
    let mut cluster = Cluster::of(40);
    for name in ["a", "b"] {
        cluster.tell(&asks(name, WHOLE, 2, &json!({})));
    }
    cluster.tell(&asks("c", WHOLE, 4, &json!({})));
    check(&mut cluster, &[("a", "gpu-node-0"), ("b", "gpu-node-0"), ("c", "gpu-node-1")]);
    check(&mut cluster, &[]);
    assert_eq!(cluster.plan(64).resume, None);
}

#[test]
fn a_pod_that_fits_nowhere_holds_nobody_up() {
    let mut cluster = Cluster::of(1);
    cluster.tell(&asks("a", WHOLE, 5, &json!({ "priority": 9 })));
    cluster.tell(&asks("b", WHOLE, 5, &json!({ "priority": 9 })));
    cluster.tell(&asks("c", WHOLE, 4, &json!({})));
    check(&mut cluster, &[("c", "gpu-node-0")]);
}

#[test]
fn the_more_important_and_then_the_older_goes_first() {
    let mut cluster = Cluster::of(1);
    cluster.tell(&asks("low", WHOLE, 4, &json!({ "priority": -1 })));
    cluster.tell(&asks("mid", WHOLE, 4, &json!({})));
    cluster.tell(&asks("mid-later", WHOLE, 4, &json!({})));
    check(&mut cluster, &[("mid", "gpu-node-0")]);
    // What is kept for a less important pod gives way to a more important one, where nothing else is free.
    cluster.tell(&asks("high", WHOLE, 4, &json!({ "priority": 5 })));
    check(&mut cluster, &[("high", "gpu-node-0")]);
    cluster.gone("high");
    cluster.gone("mid");
    check(&mut cluster, &[("mid-later", "gpu-node-0")]);
}

#[test]
fn what_is_nominated_counts_as_placed_whatever_its_priority_while_there_is_other_room() {
    let mut cluster = Cluster::of(2);
    cluster.tell(&asks("low", WHOLE, 3, &json!({ "priority": -1 })));
    check(&mut cluster, &[("low", "gpu-node-0")]);
    cluster.tell(&asks("high", WHOLE, 3, &json!({ "priority": 5 })));
    check(&mut cluster, &[("high", "gpu-node-1")]);
}

#[test]
fn cpu_memory_and_room_for_pods_are_counted_as_well() {
    let mut cluster = Cluster::of(2);
    let cpu = |name: &str, cpu: &str| {
        let mut pod = asks(name, WHOLE, 1, &json!({}));
        pod["spec"]["containers"][0]["resources"]["limits"]["cpu"] = cpu.into();
        pod
    };
    cluster.tell(&cpu("a", "9"));
    cluster.tell(&cpu("b", "9"));
    cluster.tell(&cpu("c", "9"));
    check(&mut cluster, &[("a", "gpu-node-0"), ("b", "gpu-node-1")]);
    // A pod of another scheduler, which asks for no GPU, takes what is left of the first node.
    let mut other = cpu("d", "7");
    other["spec"]["schedulerName"] = "default-scheduler".into();
    other["spec"]["nodeName"] = "gpu-node-0".into();
    other["spec"]["containers"][0]["resources"]["limits"] = json!({ "cpu": "7" });
    cluster.tell(&other);
    cluster.tell(&cpu("e", "1"));
    check(&mut cluster, &[("e", "gpu-node-1")]);
}

#[test]
fn a_pod_is_only_nominated_where_its_rules_admit_the_node() {
    let mut cluster = Cluster::of(3);
    let tell = |cluster: &mut Cluster, name: &str, spec: Value| {
        cluster.book.apply_node(Change::Applied(node(site(name, 16, &spec))));
    };
    tell(&mut cluster, "gpu-node-0", json!({ "taints": [{ "key": "k", "effect": "NoSchedule" }] }));
    tell(&mut cluster, "gpu-node-1", json!({ "unschedulable": true }));
    cluster.tell(&asks("plain", SLICE, 1, &json!({})));
    cluster.tell(&asks(
        "tolerant",
        SLICE,
        1,
        &json!({ "tolerations": [{ "key": "k", "operator": "Exists" }],
        "nodeSelector": { "kubernetes.io/hostname": "gpu-node-0" } }),
    ));
    cluster.tell(&asks(
        "nowhere",
        SLICE,
        1,
        &json!({ "nodeSelector": { "kubernetes.io/hostname": "gpu-node-1" } }),
    ));
    check(&mut cluster, &[("plain", "gpu-node-2"), ("tolerant", "gpu-node-0")]);
}

#[test]
fn who_must_not_be_nominated_is_not() {
    let mut cluster = Cluster::of(1);
    let gated = json!({ "schedulingGates": [{ "name": "x" }] });
    cluster.tell(&asks("gated", SLICE, 1, &gated));
    let soft = json!({ "topologySpreadConstraints": [{ "whenUnsatisfiable": "ScheduleAnyway" }] });
    cluster.tell(&asks("soft", SLICE, 1, &soft));
    let mut nominated = asks("nominated", SLICE, 1, &json!({}));
    nominated["status"]["nominatedNodeName"] = "gpu-node-0".into();
    cluster.tell(&nominated);
    let mut deleting = asks("deleting", SLICE, 1, &json!({}));
    deleting["metadata"]["deletionTimestamp"] = "2026-11-24T09:00:00Z".into();
    cluster.tell(&deleting);
    cluster.tell(&asks("no-gpu", "example.com/disk", 1, &json!({})));
    let mut other = asks("other", SLICE, 1, &json!({}));
    other["spec"]["schedulerName"] = "default-scheduler".into();
    cluster.tell(&other);
    check(&mut cluster, &[]);
    let mut free = asks("gated", SLICE, 1, &json!({}));
    free["metadata"]["resourceVersion"] = "2".into();
    cluster.tell(&free);
    check(&mut cluster, &[("gated", "gpu-node-0")]);
}

#[test]
fn a_round_goes_on_where_the_last_one_stopped() {
    let mut cluster = Cluster::of(2);
    for n in 0..6 {
        cluster.tell(&asks(&format!("p{n}"), SLICE, 1, &json!({})));
    }
    let round = cluster.plan(4);
    assert_eq!(round.nominations.len(), 4);
    assert!(round.resume.is_some());
}

#[test]
fn no_small_pod_is_nominated_to_what_a_node_keeps_for_large_ones() {
    let mut cluster = Cluster::of(2);
    let kept = Node { reserve: Reserve::of(Some("4")), ..synthetic::node("gpu-node-0") };
    cluster.state.apply(Event::Node(Change::Applied(kept)), cluster.now);
    cluster.tell(&asks("large", WHOLE, 4, &json!({ "priority": -1 })));
    for name in ["a", "b"] {
        cluster.tell(&asks(name, WHOLE, 3, &json!({})));
    }
    check(&mut cluster, &[("a", "gpu-node-1"), ("large", "gpu-node-0")]);
}

/// Whether a pod that is nominated by us fits its node.
fn fits(cluster: &mut Cluster, name: &str, count: u32, node: &str) -> Fits {
    let mut pod = asks(name, WHOLE, count, &json!({}));
    pod["status"]["nominatedNodeName"] = json!(node);
    pod["metadata"]["managedFields"] = json!([{
        "manager": "stowage-scheduler-extender", "operation": "Update", "subresource": "status", "apiVersion": "v1",
        "fieldsType": "FieldsV1", "fieldsV1": { "f:status": { "f:nominatedNodeName": {} } } }]);
    let pod = cluster.tell(&pod);
    assert!(pod.nominated_by_us);
    cluster.state.touch_any();
    let snapshot = cluster.state.snapshot().unwrap();
    left::fits(&cluster.book, &cluster.state, &snapshot, &pod, cluster.now.monotonic)
}

#[test]
fn a_nomination_is_of_use_while_the_pod_fits_or_will_when_others_have_left() {
    let mut cluster = Cluster::of(2);
    assert_eq!(fits(&mut cluster, "a", 3, "gpu-node-0"), Fits::Now);
    assert_eq!(fits(&mut cluster, "a", 5, "gpu-node-0"), Fits::No, "there are four");
    assert_eq!(fits(&mut cluster, "a", 1, "gone"), Fits::No);
    let mut user = asks("user", WHOLE, 2, &json!({ "nodeName": "gpu-node-0" }));
    cluster.tell(&user);
    assert_eq!(fits(&mut cluster, "a", 3, "gpu-node-0"), Fits::No);
    user["metadata"]["deletionTimestamp"] = json!("2026-11-24T10:00:00Z");
    cluster.tell(&user);
    assert_eq!(fits(&mut cluster, "a", 3, "gpu-node-0"), Fits::Soon);
    let cordoned = json!({ "unschedulable": true });
    cluster.book.apply_node(Change::Applied(node(site("gpu-node-1", 16, &cordoned))));
    assert_eq!(fits(&mut cluster, "a", 1, "gpu-node-1"), Fits::No);
    cluster.book.apply_node(Change::Applied(node(site("gpu-node-1", 0, &json!({})))));
    assert_eq!(fits(&mut cluster, "a", 1, "gpu-node-1"), Fits::No, "no cpu is left");
}

#[test]
fn only_what_our_account_wrote_is_our_nomination() {
    let entry = |manager: &str, field: &str| json!({ "manager": manager, "fieldsV1": { "f:status": { field: {} }, "f:spec": {} } });
    let ours = "stowage-scheduler-extender";
    let is_ours = |entries: Value| {
        let mut pod = asks("a", WHOLE, 1, &json!({}));
        pod["metadata"]["managedFields"] = entries;
        pod_of(pod).nominated_by_us
    };
    assert!(is_ours(json!([entry("kube-scheduler", "f:conditions"), entry(ours, "f:nominatedNodeName")])));
    for others in [
        json!([entry("kube-scheduler", "f:nominatedNodeName"), entry(ours, "f:conditions")]),
        json!([{ "manager": ours, "fieldsV1": {} }, { "manager": null, "fieldsV1": null }, {}]),
        json!([]),
        Value::Null,
    ] {
        assert!(!is_ours(others.clone()), "{others}");
    }
}
