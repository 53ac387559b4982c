//! Pods and nodes as they are written, and what the book makes of them.

use serde_json::{Value, json};

use super::amounts::PODS;
use super::objects::{Node, Pod};
use super::read::{NodeObject, PodObject};
use super::rules::LeftAlone;
use super::*;

pub(crate) fn pod(object: Value) -> Pod {
    Pod::of(serde_json::from_value::<PodObject>(object).unwrap(), &mut Names::default())
}

pub(crate) fn node(object: Value) -> Node {
    Node::of(serde_json::from_value::<NodeObject>(object).unwrap(), &mut Names::default())
}

/// A pod of ours with this spec, made at that second.
pub(crate) fn waiting(name: &str, created: i64, mut spec: Value) -> Pod {
    spec["schedulerName"] = "stowage-scheduler".into();
    let made = jiff::Timestamp::from_second(1_795_510_800 + created).unwrap().to_string();
    pod(json!({
        "metadata": { "name": name, "namespace": "ns", "uid": name, "resourceVersion": "1", "creationTimestamp": made },
        "spec": spec,
    }))
}

#[test]
fn a_pod_is_read_with_what_it_says_about_its_node() {
    let pod = pod(json!({
        "metadata": {
            "name": "p", "namespace": "ns", "uid": "u", "resourceVersion": "7", "labels": { "app": "x" },
            "creationTimestamp": "2026-11-24T09:00:00Z", "managedFields": [{}],
            "annotations": { "other": "x", "controller.kubernetes.io/pod-deletion-cost": "5" },
            "ownerReferences": [{ "kind": "Node", "uid": "n" }, { "kind": "ReplicaSet", "uid": "r", "controller": true }],
        },
        "spec": {
            "schedulerName": "stowage-scheduler", "priority": 7, "preemptionPolicy": "Never",
            "nodeSelector": { "a": "b" }, "tolerations": [{ "operator": "Exists" }], "schedulingGates": [{ "name": "x" }],
            "volumes": [{ "name": "v", "emptyDir": {} }, { "name": "w", "projected": {} }],
            "containers": [{ "name": "main", "image": "x", "env": [{}], "resources": {
                "requests": { "cpu": "500m", "nvidia.com/gpu": "1" }, "limits": { "nvidia.com/gpu": "1" } } }],
        },
        "status": { "phase": "Pending", "nominatedNodeName": "n1",
            "conditions": [{ "type": "PodScheduled", "status": "False", "reason": "Unschedulable" }] },
    }));
    assert!(pod.ours && !pod.preempts && pod.gated && pod.unschedulable && !pod.deleting);
    assert_eq!((pod.priority, &*pod.nominated, pod.left_alone), (7, "n1", None));
    assert_eq!((pod.wants.get("cpu"), pod.wants.get("nvidia.com/gpu"), pod.wants.get(PODS)), (500, 1, 1));
    assert_eq!(pod.owner, Some(("ReplicaSet".into(), "r".into())));
    assert_eq!(pod.deletion_cost.as_deref(), Some("5"));
    assert_eq!(pod.asks.containers.len(), 1);
    assert_eq!(pod.rules.selector.len(), 1);
}

#[test]
fn nulls_are_no_error() {
    let pod = pod(json!({
        "metadata": { "name": "p", "labels": null, "annotations": null, "ownerReferences": null },
        "spec": { "affinity": null, "tolerations": null, "volumes": null, "containers": null, "priority": null,
            "nodeSelector": null, "overhead": null, "resources": null },
        "status": null,
    }));
    assert_eq!(pod.left_alone, None);
    node(
        json!({ "metadata": { "name": "n" }, "spec": { "taints": null, "unschedulable": null }, "status": null }),
    );
}

#[test]
fn a_pod_that_only_kube_scheduler_can_weigh_is_left_alone() {
    let prefers = "preferredDuringSchedulingIgnoredDuringExecution";
    let requires = "requiredDuringSchedulingIgnoredDuringExecution";
    for (spec, why) in [
        (json!({ "affinity": { "nodeAffinity": { prefers: [{}] } } }), Some(LeftAlone::PreferredNodes)),
        (json!({ "affinity": { "nodeAffinity": { requires: { "nodeSelectorTerms": [{}] } } } }), None),
        (json!({ "affinity": { "podAffinity": { requires: [{}] } } }), Some(LeftAlone::PodAffinity)),
        (json!({ "affinity": { "podAffinity": { prefers: [{}] } } }), Some(LeftAlone::PodAffinity)),
        (json!({ "affinity": { "podAntiAffinity": { requires: [{}] } } }), Some(LeftAlone::PodAffinity)),
        (json!({ "affinity": { "podAntiAffinity": { prefers: [{}] } } }), Some(LeftAlone::PodAffinity)),
        (json!({ "topologySpreadConstraints": [{}] }), Some(LeftAlone::TopologySpread)),
        (json!({ "volumes": [{ "name": "v", "persistentVolumeClaim": {} }] }), Some(LeftAlone::Volumes)),
        (json!({ "volumes": [{ "name": "v", "ephemeral": {} }] }), Some(LeftAlone::Volumes)),
        (json!({ "containers": [{ "ports": [{ "hostPort": 80 }] }] }), Some(LeftAlone::HostPorts)),
        (json!({ "containers": [{ "ports": [{ "containerPort": 80 }] }] }), None),
        (json!({ "resourceClaims": [{ "name": "c" }] }), Some(LeftAlone::ResourceClaims)),
        (json!({ "workloadRef": { "name": "w" } }), Some(LeftAlone::Group)),
        (json!({ "schedulingGroup": { "podGroupName": "w" } }), Some(LeftAlone::Group)),
    ] {
        assert_eq!(waiting("p", 0, spec.clone()).left_alone, why, "{spec}");
    }
}

fn seen(book: &mut Book, pod: Pod) -> Vec<Settled> {
    book.apply_pod(Change::Applied(pod))
}

fn queue(book: &Book) -> Vec<&str> {
    book.waiting(None).map(|(_, pod)| &*pod.uid).collect()
}

#[test]
fn the_queue_is_in_kube_schedulers_order() {
    let mut book = Book::default();
    for (name, created, priority) in
        [("late", 9, 0), ("first", 1, 0), ("second", 1, 0), ("vip", 20, 5), ("low", 0, -1)]
    {
        seen(&mut book, waiting(name, created, json!({ "priority": priority })));
    }
    // An update leaves its place.
    let first = waiting("first", 1, json!({ "nodeSelector": { "a": "b" } }));
    seen(&mut book, Pod { nominated: "n1".into(), ..first.clone() });
    assert_eq!(queue(&book), ["vip", "first", "second", "late", "low"]);
    assert_eq!(book.nominated().map(|pod| &*pod.uid).collect::<Vec<_>>(), ["first"]);
    seen(&mut book, first);
    assert_eq!(book.nominated().count(), 0);
}

#[test]
fn what_becomes_of_a_waiting_pod_is_told_once() {
    let mut book = Book::default();
    let bound = |name: &str| Pod { node: "n1".into(), ..waiting(name, 0, json!({})) };
    seen(&mut book, waiting("a", 0, json!({})));
    let settled = seen(&mut book, bound("a"));
    assert_eq!(
        settled.iter().map(|it| (&*it.pod.uid, it.node.as_deref())).collect::<Vec<_>>(),
        [("a", Some("n1"))]
    );
    assert_eq!(seen(&mut book, bound("a")), []);
    assert_eq!(book.apply_pod(Change::Deleted("a".into())), []);
    seen(&mut book, waiting("b", 0, json!({})));
    assert_eq!(book.apply_pod(Change::Deleted("b".into()))[0].node, None);
    seen(&mut book, waiting("c", 0, json!({})));
    for change in [Change::ListBegins, Change::Listed(bound("d"))] {
        assert_eq!(book.apply_pod(change), []);
    }
    assert_eq!(book.apply_pod(Change::ListEnds)[0].pod.uid, "c");
    assert_eq!(queue(&book), Vec::<&str>::new());
}

#[test]
fn what_is_in_use_of_a_node_is_what_its_pods_ask_for() {
    let mut book = Book::default();
    let bound = |name: &str, cpu: &str| {
        let spec = json!({ "containers": [{ "resources": { "requests": { "cpu": cpu } } }] });
        Pod { node: "n1".into(), ours: false, ..waiting(name, 0, spec) }
    };
    let used = |book: &mut Book| {
        book.refresh();
        book.used("n1").map_or((0, 0), |used| (used.get("cpu"), used.get(PODS)))
    };
    seen(&mut book, bound("a", "1"));
    seen(&mut book, bound("b", "2"));
    assert_eq!(used(&mut book), (3000, 2));
    seen(&mut book, bound("b", "3"));
    assert_eq!(used(&mut book), (4000, 2));
    seen(&mut book, Pod { terminal: true, ..bound("a", "1") });
    assert_eq!(used(&mut book), (3000, 1));
    book.apply_pod(Change::Deleted("b".into()));
    assert_eq!(used(&mut book), (0, 0));
}

#[test]
fn a_running_pods_anti_affinity_may_repel_others() {
    let requires = "requiredDuringSchedulingIgnoredDuringExecution";
    let term = |term: Value| json!({ "affinity": { "podAntiAffinity": { requires: [term] } } });
    let labelled = |app: &str| {
        let mut pod = waiting("p", 0, json!({}));
        pod.labels.insert("app".into(), app.into());
        pod
    };
    for (spec, repelled) in [
        (term(json!({ "labelSelector": { "matchLabels": { "app": "a" } } })), true),
        (term(json!({ "labelSelector": { "matchLabels": { "app": "b" } } })), false),
        (term(json!({ "labelSelector": {} })), true),
        (term(json!({})), false),
        (term(json!({ "labelSelector": {}, "namespaces": ["other"] })), false),
        (term(json!({ "labelSelector": {}, "namespaces": ["other"], "namespaceSelector": {} })), true),
    ] {
        let mut book = Book::default();
        seen(&mut book, Pod { node: "n1".into(), ..waiting("q", 0, spec.clone()) });
        assert_eq!(book.may_be_repelled(&labelled("a")), repelled, "{spec}");
        book.apply_pod(Change::Deleted("q".into()));
        assert!(!book.may_be_repelled(&labelled("a")));
    }
}

#[test]
fn a_budget_protects_whom_it_selects_in_its_namespace() {
    let budget = |value| Budget::of(serde_json::from_value(value).unwrap());
    let mut pod = waiting("p", 0, json!({}));
    pod.labels.insert("app".into(), "a".into());
    let of = |namespace: &str, spec: Value| {
        budget(
            json!({ "metadata": { "name": "b", "namespace": namespace }, "spec": spec, "status": { "disruptionsAllowed": 1 } }),
        )
    };
    assert!(of("ns", json!({ "selector": { "matchLabels": { "app": "a" } } })).protects(&pod));
    assert!(of("ns", json!({ "selector": {} })).protects(&pod), "an empty selector means all");
    assert!(!of("ns", json!({})).protects(&pod));
    assert!(!of("other", json!({ "selector": {} })).protects(&pod));
    assert_eq!(of("ns", json!({})).allowed, 1);
}
