//! Three 1g slices before a 3g, and who must go.

use std::collections::BTreeSet;
use std::time::Duration;

use serde_json::{Value, json};
use stowage_shared::gpu_node::{GpuStatus, OfferStatus, SliceStatus};

use super::course::{Course, Ended, How, Next, PATIENCE};
use super::victims::{Price, Victim, pain, price};
use super::*;
use crate::book::objects::Budget;
use crate::planner::tests::{Cluster, asks};
use crate::state::event::{Change, Event, GpuNode, Node};
use crate::state::{Choice, Snapshot};
use crate::synthetic::{self, SLICE, gpu_node_name};
use crate::verbs::fits_without;

pub(crate) const THREE: &str = "nvidia.com/mig-3g.20gb";

/// A GPU that may be cut into seven 1g slices or two 3g slices.
fn gpu(node: &str, index: u32) -> GpuStatus {
    let offer = |resource: &str, profile: &str, start: u8, size: u8| OfferStatus {
        resource: resource.parse().unwrap(),
        uuid: format!("MIG-{node}-{index}-{size}-{start}"),
        slice: Some(SliceStatus { profile: profile.parse().unwrap(), start, size, media_engines: false }),
        replicas: None,
        distinct: false,
        capped: false,
        unhealthy: None,
    };
    let ones = (0..7).map(|start| offer(SLICE, "1g.5gb", start, 1));
    let threes = [0, 4].into_iter().map(|start| offer(THREE, "3g.20gb", start, 4));
    let template = synthetic::status(node, Vec::new(), crate::planner::tests::now()).gpus.remove(4);
    GpuStatus {
        uuid: synthetic::gpu_uuid(node, index),
        index,
        offers: ones.chain(threes).collect(),
        ..template
    }
}

/// Nodes with one such GPU each.
pub(crate) fn cluster(nodes: usize) -> Cluster {
    let mut cluster = Cluster::of(nodes);
    for name in (0..nodes).map(gpu_node_name) {
        let status = synthetic::status(&name, Vec::new(), cluster.now);
        let status = stowage_shared::gpu_node::GpuNodeStatus { gpus: vec![gpu(&name, 0)], ..status };
        let seen = GpuNode { name: name.clone(), status: Ok(status) };
        cluster.state.apply(Event::GpuNode(Change::Applied(seen)), cluster.now);
        let allocatable = [(SLICE, 7), (THREE, 2)].map(|(name, count)| (name.parse().unwrap(), count));
        let node = Node { allocatable: allocatable.into(), ..synthetic::node(&name) };
        cluster.state.apply(Event::Node(Change::Applied(node)), cluster.now);
        let site = json!({
            "metadata": { "name": name }, "spec": {},
            "status": { "allocatable": { "cpu": "16", "pods": "20", SLICE: "7", THREE: "2" } },
        });
        cluster.book.apply_node(Change::Applied(crate::book::tests::node(site)));
    }
    cluster
}

/// A pod that runs on a node.
fn run(cluster: &mut Cluster, name: &str, resource: &str, priority: i32, node: &str) -> Value {
    let mut pod = asks(name, resource, 1, &json!({ "priority": priority }));
    pod["metadata"]["labels"] = json!({ "name": name });
    cluster.tell(&pod);
    let narrow = cluster.state.pod(name).unwrap();
    let Ok(Choice::Planned(_, plan)) = cluster.state.choose(&narrow, node, cluster.now) else {
        panic!("{name}")
    };
    pod["spec"]["nodeName"] = node.into();
    pod["metadata"]["annotations"] = json!({ "stowage.dev/plan": plan });
    cluster.tell(&pod);
    pod
}

/// Asks for a pod's deletion: it is to be gone in so many seconds.
pub(crate) fn leaves(cluster: &Cluster, pod: &mut Value, seconds: i64) {
    let gone_by = cluster.now.wall + jiff::SignedDuration::from_secs(seconds);
    pod["metadata"]["deletionTimestamp"] = gone_by.to_string().into();
}

pub(crate) fn unschedulable(name: &str, resource: &str, priority: i32, more: &Value) -> Value {
    let mut pod = asks(name, resource, 1, more);
    pod["spec"]["priority"] = priority.into();
    pod["status"]["conditions"] =
        json!([{ "type": "PodScheduled", "status": "False", "reason": "Unschedulable" }]);
    pod
}

pub(crate) fn snapshot(cluster: &mut Cluster) -> Snapshot {
    cluster.state.touch_any();
    cluster.book.refresh();
    cluster.state.snapshot().unwrap()
}

/// Who must go from a node for a pod; `None` where nothing helps.
fn asked(cluster: &mut Cluster, pod: &Value, node: &str) -> Option<Vec<String>> {
    let pod = cluster.tell(pod);
    let snapshot = snapshot(cluster);
    let want = want(&pod, &snapshot).unwrap();
    let asker = Asker { uid: &pod.uid, namespace: &pod.namespace, priority: pod.priority, want: &want };
    let price = price(&cluster.book, &cluster.state, &snapshot, &pod, &asker, node, cluster.now)?;
    Some(match price {
        Price::Free => Vec::new(),
        Price::Victims(victims) => victims.into_iter().map(|victim| victim.uid).collect(),
    })
}

pub(crate) fn protect(cluster: &mut Cluster, name: &str, allowed: u32) {
    let budget = json!({
        "metadata": { "name": name, "namespace": "ns" },
        "spec": { "selector": { "matchLabels": { "name": name } } },
        "status": { "disruptionsAllowed": allowed },
    });
    let budget = Budget::of(serde_json::from_value(budget).unwrap());
    cluster.book.apply_budget(Change::Applied(budget));
}

#[test]
fn the_least_important_whose_going_makes_room_must_go() {
    let mut cluster = cluster(1);
    let node = gpu_node_name(0);
    // 1g slices are taken from the high end, so four of them block the upper half and the lower takes a 3g.
    for (name, priority) in [("a", 1), ("b", 0), ("c", 2), ("d", 0)] {
        run(&mut cluster, name, SLICE, priority, &node);
    }
    let pod = |priority| unschedulable("p", THREE, priority, &json!({}));
    assert_eq!(asked(&mut cluster, &pod(0), &node), None, "nobody is less important");
    let victims = asked(&mut cluster, &pod(1), &node).unwrap();
    assert!(victims.iter().all(|uid| ["b", "d"].contains(&&**uid)), "{victims:?}");
    assert_eq!(
        asked(&mut cluster, &unschedulable("q", SLICE, 1, &json!({})), &node),
        Some(Vec::new()),
        "it fits"
    );
}

/// Where slices are built on demand the kubelet counts what is possible now, so the count of what is blocked is 0: that must
/// not look like a shortage that nobody's going would end.
#[test]
fn a_count_that_who_is_in_the_way_has_lowered_keeps_nobody_from_making_room() {
    let mut cluster = cluster(1);
    let node = gpu_node_name(0);
    for name in ["a", "b", "c", "d"] {
        run(&mut cluster, name, SLICE, 0, &node);
    }
    let mut pod = unschedulable("p", THREE, 1, &json!({}));
    pod["spec"]["containers"][0]["resources"]["limits"]["cpu"] = "2".into();
    for (cpu, threes, goes) in [("16", "0", true), ("1", "2", false), ("1", "0", false)] {
        let site = json!({
            "metadata": { "name": node }, "spec": {},
            "status": { "allocatable": { "cpu": cpu, "pods": "20", SLICE: "7", THREE: threes } },
        });
        cluster.book.apply_node(Change::Applied(crate::book::tests::node(site)));
        let victims = asked(&mut cluster, &pod, &node);
        assert_eq!(
            victims.is_some_and(|victims| !victims.is_empty()),
            goes,
            "{cpu} cpu, {threes} of {THREE}"
        );
    }
}

#[test]
fn slices_that_the_kubelet_counts_none_of_while_others_are_in_their_place_are_room_all_the_same() {
    let mut cluster = cluster(1);
    let node = gpu_node_name(0);
    for name in ["a", "b", "c", "d"] {
        run(&mut cluster, name, SLICE, 0, &node);
    }
    // Built on demand: what cannot be built now is unhealthy, so it is not allocatable.
    let site = json!({ "metadata": { "name": node }, "spec": {},
        "status": { "allocatable": { "cpu": "16", "pods": "20", SLICE: "7", THREE: "0" } } });
    cluster.book.apply_node(Change::Applied(crate::book::tests::node(site)));
    let victims = asked(&mut cluster, &unschedulable("p", THREE, 1, &json!({})), &node);
    assert!(victims.is_some_and(|victims| !victims.is_empty()));
}

#[test]
fn a_budget_is_never_broken_and_who_is_not_protected_goes_first() {
    let mut cluster = cluster(1);
    let node = gpu_node_name(0);
    run(&mut cluster, "low", THREE, 0, &node);
    run(&mut cluster, "high", THREE, 1, &node);
    let pod = unschedulable("p", THREE, 5, &json!({}));
    assert_eq!(asked(&mut cluster, &pod, &node), Some(vec!["low".into()]));
    protect(&mut cluster, "low", 0);
    assert_eq!(asked(&mut cluster, &pod, &node), Some(vec!["high".into()]), "the other is not protected");
    protect(&mut cluster, "high", 0);
    assert_eq!(asked(&mut cluster, &pod, &node), None);
    protect(&mut cluster, "low", 1);
    assert_eq!(asked(&mut cluster, &pod, &node), Some(vec!["low".into()]));
}

/// A pod that was ending, which nobody may evict, counted as if it stayed, and another one had to go.
#[test]
fn nobody_goes_where_room_is_being_made_already() {
    let mut cluster = cluster(1);
    let node = gpu_node_name(0);
    let mut important = run(&mut cluster, "important", THREE, 9, &node);
    run(&mut cluster, "low", THREE, 0, &node);
    let pod = unschedulable("p", THREE, 5, &json!({}));
    for (seconds, goes) in [(30, None), (-30, None), (3600, Some("low")), (-3600, Some("low"))] {
        leaves(&cluster, &mut important, seconds);
        cluster.tell(&important);
        let victims: Vec<String> = goes.into_iter().map(str::to_owned).collect();
        assert_eq!(asked(&mut cluster, &pod, &node), Some(victims), "gone in {seconds} s");
    }
}

#[test]
fn nobody_goes_where_the_pod_may_not_run() {
    let mut cluster = cluster(1);
    let node = gpu_node_name(0);
    run(&mut cluster, "a", THREE, 0, &node);
    run(&mut cluster, "b", THREE, 0, &node);
    let elsewhere = json!({ "nodeSelector": { "x": "y" } });
    assert_eq!(asked(&mut cluster, &unschedulable("p", THREE, 5, &elsewhere), &node), None);
    let mut big = unschedulable("q", THREE, 5, &json!({}));
    big["spec"]["containers"][0]["resources"]["limits"]["cpu"] = "17".into();
    assert_eq!(asked(&mut cluster, &big, &node), None);
}

#[test]
fn what_would_be_free_once_pods_are_gone_is_reckoned_without_them() {
    let mut cluster = cluster(1);
    let node = gpu_node_name(0);
    run(&mut cluster, "a", THREE, 0, &node);
    run(&mut cluster, "b", THREE, 0, &node);
    let snapshot = snapshot(&mut cluster);
    let pod = cluster.tell(&unschedulable("p", THREE, 0, &json!({})));
    let want = want(&pod, &snapshot).unwrap();
    let asker = Asker { uid: "p", namespace: &pod.namespace, priority: 0, want: &want };
    let fits = |gone: &[&str]| {
        let gone: BTreeSet<&str> = gone.iter().copied().collect();
        fits_without(&cluster.state, &snapshot, &asker, &node, &gone, cluster.now.monotonic)
    };
    assert_eq!([fits(&[]), fits(&["a"]), fits(&["b"]), fits(&["x"])], [false, true, true, false]);
}

#[test]
fn nodes_are_ranked_as_kube_scheduler_ranks_them() {
    let victims = |list: &[(i32, i64)]| -> Vec<Victim> {
        let victim = |&(priority, created): &(i32, i64)| Victim {
            uid: String::new(),
            namespace: String::new(),
            name: String::new(),
            priority,
            created,
        };
        list.iter().map(victim).collect()
    };
    let better = |one: &[(i32, i64)], two: &[(i32, i64)]| {
        assert!(pain(&victims(one)) < pain(&victims(two)), "{one:?} {two:?}")
    };
    better(&[(1, 0), (1, 0)], &[(2, 0)]);
    better(&[(2, 0)], &[(2, 0), (1, 0)]);
    better(&[(-5, 0)], &[(-5, 0), (-5, 0)]);
    better(&[(1, 9)], &[(1, 3)]);
}

fn victim(uid: &str) -> Victim {
    Victim { uid: uid.into(), namespace: "ns".into(), name: uid.into(), priority: 0, created: 0 }
}

fn ended(uid: &str, how: How) -> Next {
    Next::End(Ended { uid: uid.into(), how })
}

#[test]
fn room_is_made_for_one_pod_at_a_time_and_kept_until_it_is_bound() {
    let mut cluster = cluster(1);
    let node = gpu_node_name(0);
    run(&mut cluster, "a", THREE, 0, &node);
    run(&mut cluster, "b", THREE, 0, &node);
    let pod = unschedulable("p", THREE, 5, &json!({}));
    let told = cluster.tell(&pod);
    cluster.tell(&unschedulable("q", THREE, 4, &json!({})));
    let start = cluster.now.monotonic;
    let after = |seconds| start + Duration::from_secs(seconds);
    let mut course = Course::new(10, PATIENCE);
    assert_eq!(course.next(&cluster.book, start), Next::Nothing, "kube-scheduler has its turn first");
    let Next::LookFor(found) = course.next(&cluster.book, after(5)) else { panic!() };
    assert_eq!(found.uid, "p", "the most important first");
    let making = course.begin(&told, &node, vec![victim("a")], after(5)).unwrap();
    assert_eq!(course.next(&cluster.book, after(6)), Next::Evict(Box::new(making), victim("a")));
    course.evicted("a");
    assert_eq!(course.next(&cluster.book, after(7)), Next::Nothing, "it has grace");
    cluster.gone("a");
    assert!(matches!(course.next(&cluster.book, after(8)), Next::Nominate(_)));
    assert_eq!(course.next(&cluster.book, after(9)), Next::Nothing);
    let mut bound = pod;
    bound["spec"]["nodeName"] = (*node).into();
    cluster.tell(&bound);
    assert_eq!(course.next(&cluster.book, after(10)), ended("p", How::There));
    let Next::LookFor(next) = course.next(&cluster.book, after(11)) else { panic!() };
    assert_eq!(next.uid, "q");
    assert_eq!(course.next(&cluster.book, after(12)), Next::Nothing, "it was looked at a second ago");
}

#[test]
fn room_that_nobody_takes_is_not_kept_for_ever() {
    let mut cluster = cluster(1);
    let pod = cluster.tell(&unschedulable("p", THREE, 5, &json!({})));
    let start = cluster.now.monotonic;
    let mut course = Course::new(1, PATIENCE);
    course.begin(&pod, "gpu-node-0", vec![victim("a")], start).unwrap();
    course.evicted("a");
    assert!(matches!(course.next(&cluster.book, start), Next::Nominate(_)));
    assert_eq!(course.next(&cluster.book, start + Duration::from_secs(59)), Next::Nothing);
    assert_eq!(course.next(&cluster.book, start + Duration::from_secs(60)), ended("p", How::InVain));
    assert_eq!(course.begin(&pod, "gpu-node-0", vec![victim("b")], start), None, "one an hour");
}

#[test]
fn who_may_not_preempt_does_not() {
    for more in [
        json!({ "preemptionPolicy": "Never" }),
        json!({ "schedulingGates": [{ "name": "x" }] }),
        json!({ "topologySpreadConstraints": [{}] }),
    ] {
        let mut cluster = cluster(1);
        cluster.tell(&unschedulable("p", THREE, 5, &more));
        let start = cluster.now.monotonic;
        let mut course = Course::new(1, PATIENCE);
        course.next(&cluster.book, start);
        assert_eq!(course.next(&cluster.book, start + Duration::from_secs(9)), Next::Nothing, "{more}");
    }
}
