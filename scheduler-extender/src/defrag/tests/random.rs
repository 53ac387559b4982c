//! Clusters where anything may be anywhere: whoever is moved may be, has another place, and lets the waiting pod in.

use proptest::prelude::*;
use serde_json::{Value, json};
use stowage_shared::audit::{Kind, audit};

use super::*;
use crate::preempt::tests::{THREE, cluster, protect, unschedulable};
use crate::state::NodeGpus;
use crate::synthetic::{SLICE, gpu_node_name};

const NODES: usize = 3;

/// What is random about a pod.
#[derive(Debug, Clone)]
struct Drawn {
    three: bool,
    node: usize,
    priority: i32,
    owner: usize,
    agrees: Option<bool>,
    safe: Option<bool>,
    phase: usize,
    scratch: bool,
    /// What its budget allows, if it has one.
    budget: Option<u32>,
    /// Whether it has left by the time that is looked.
    left: bool,
}

const OWNERS: [Option<&str>; 5] =
    [Some("ReplicaSet"), Some("Job"), Some("StatefulSet"), Some("DaemonSet"), None];

fn drawn() -> impl Strategy<Value = Drawn> {
    let seldom = |of: usize| (0..of).prop_map(|n| n == 0);
    (
        (prop::bool::weighted(0.2), 0..NODES, -1..=1, prop_oneof![3 => Just(0_usize), 1 => 1..5_usize]),
        (prop::option::weighted(0.4, prop::bool::weighted(0.8)), prop::option::weighted(0.2, any::<bool>())),
        (
            prop_oneof![6 => Just(0_usize), 1 => 1..3_usize],
            seldom(8),
            prop::option::weighted(0.2, 0_u32..2),
            seldom(3),
        ),
    )
        .prop_map(|((three, node, priority, owner), (agrees, safe), (phase, scratch, budget, left))| {
            Drawn { three, node, priority, owner, agrees, safe, phase, scratch, budget, left }
        })
}

fn pod(name: &str, drawn: &Drawn) -> Value {
    tenant(name, if drawn.three { THREE } else { SLICE }, |pod| {
        pod["spec"]["priority"] = drawn.priority.into();
        pod["metadata"]["ownerReferences"] = match OWNERS[drawn.owner] {
            Some(kind) => json!([{ "kind": kind, "uid": format!("of-{name}"), "controller": true }]),
            None => json!([]),
        };
        for (key, flag) in [
            ("stowage.dev/disruptable", drawn.agrees),
            ("cluster-autoscaler.kubernetes.io/safe-to-evict", drawn.safe),
        ] {
            if let Some(flag) = flag {
                pod["metadata"]["annotations"][key] = flag.to_string().into();
            }
        }
        if drawn.scratch {
            pod["spec"]["volumes"] = json!([{ "name": "v", "emptyDir": {} }]);
        }
        match drawn.phase {
            1 => pod["status"]["phase"] = "Pending".into(),
            2 => pod["metadata"]["deletionTimestamp"] = "2020-11-24T09:00:00Z".into(),
            _ => {}
        }
    })
}

/// Whether a pod may be moved for one of priority 0, said again in other words.
fn may_be_moved(drawn: &Drawn) -> bool {
    let agrees = drawn.agrees == Some(true);
    drawn.agrees != Some(false)
        && drawn.safe != Some(false)
        && drawn.phase == 0
        && drawn.budget != Some(0)
        && match OWNERS[drawn.owner] {
            None | Some("DaemonSet") => false,
            Some("ReplicaSet") => true,
            Some(_) => agrees,
        }
        && (!drawn.scratch || agrees || drawn.safe == Some(true))
        && (drawn.priority < 0 || drawn.priority == 0 && agrees)
}

/// Whether filter lets a pod onto a node.
fn is_let(cluster: &mut Cluster, uid: &str, node: &str) -> bool {
    let (want, pod) = (cluster.state.want_of(uid).unwrap(), cluster.state.pod(uid).unwrap());
    let mix = cluster.state.expected();
    let view = cluster.state.look_at(node).unwrap();
    let NodeGpus::Known(known) = &view.gpus else { panic!("{view:?}") };
    match &view.nominated {
        None => known.now.place(&want, &pod.namespace, &mix).is_ok(),
        Some(kept) => {
            let mut room = kept.without(known, pod.priority, uid, &mix);
            room.take(&want, &pod.namespace, &mix).is_some()
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn whoever_is_moved_may_be_has_another_place_and_lets_the_waiting_pod_in(
        drawn in proptest::collection::vec(drawn(), 4..24),
        wants_three in any::<bool>(),
    ) {
        let mut cluster = cluster(NODES);
        let mut pods = Vec::new();
        for (n, drawn) in drawn.iter().enumerate() {
            let name = format!("t{n}");
            let mut object = pod(&name, drawn);
            if put(&mut cluster, &mut object, &gpu_node_name(drawn.node)) {
                drawn.budget.iter().for_each(|allowed| protect(&mut cluster, &name, *allowed));
                pods.push((name, object, drawn));
            }
        }
        for (name, ..) in pods.iter().filter(|(.., drawn)| drawn.left) {
            cluster.gone(name);
        }
        let waits = unschedulable("p", if wants_three { THREE } else { SLICE }, 0, &json!({}));
        let Ok(moved) = search(&mut cluster, &waits) else { return Ok(()) };
        let (node, to) = (moved.candidate.node.to_string(), moved.to.to_string());
        let (name, object, drawn) = pods.iter().find(|(name, ..)| *name == moved.candidate.pod.uid).unwrap();
        prop_assert!(may_be_moved(drawn), "{:?}", drawn);
        prop_assert!((0..NODES).all(|n| !is_let(&mut cluster, "p", &gpu_node_name(n))), "it fitted before");

        // Room is kept; the next of its controller comes while the old one still ends.
        prop_assert!(cluster.state.make_room("p", &node, [name.clone()].into()));
        let mut next = object.clone();
        next["metadata"]["uid"] = "next".into();
        next["metadata"]["name"] = "next".into();
        // It is bound nowhere yet: else it would stand in its own way.
        next["spec"].as_object_mut().unwrap().remove("nodeName");
        let mut pending = next.clone();
        pending["status"] = json!({ "phase": "Pending" });
        cluster.tell(&pending);
        prop_assert!(is_let(&mut cluster, "next", &to), "{} has no place on {}", name, to);
        prop_assert!(put(&mut cluster, &mut next, &to));
        cluster.gone(name);
        prop_assert!(is_let(&mut cluster, "p", &node), "it does not help");
        prop_assert!(put(&mut cluster, &mut waits.clone(), &node));
        for view in cluster.state.audit_views() {
            // No kubelet tells here what pods that run have got.
            let findings = audit(&view).into_iter().filter(|finding| finding.kind != Kind::Missing);
            prop_assert_eq!(findings.collect::<Vec<_>>(), []);
        }
    }
}
