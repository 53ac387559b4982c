#![allow(clippy::unwrap_used)]
use super::*;
use crate::book::NodeBook;
use crate::inventory::{HollowNode, WHOLE};

fn state() -> State {
    let node = HollowNode::elastic(0, "n", "T4", 1, 1000, 1024).unwrap();
    let mut state = State::default();
    state.books.insert("n".into(), NodeBook::new(node.status("uid")).unwrap());
    state.written.insert("n".into(), Instant::now());
    state
}

fn pod(name: &str, planned: bool) -> Seen {
    let plan = format!(
        r#"{{"v":1,"uid":"{name}","node":"n","c":{{"main":{{"{WHOLE}":[{{"gpu":"GPU-00000000-0000-4000-8000-000000000000"}}]}}}}}}"#
    );
    let mut pod = json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": {"name": name, "namespace": "default", "uid": name, "annotations": {}},
        "spec": {"nodeName": "n"}, "status": {"phase": "Pending"},
    });
    if planned {
        pod["metadata"]["annotations"][PLAN_ANNOTATION] = json!(plan);
    }
    serde_json::from_value(pod).unwrap()
}

#[test]
fn a_bound_pod_is_confirmed_and_then_runs() {
    let (mut state, now) = (state(), Instant::now());
    state.see(&pod("a", true), now);
    assert_eq!(state.take(now), (Vec::new(), vec![("a".to_owned(), RUNNING)]));
    let (nodes, _) = state.take(now + GPU_NODE_CONFIRM);
    assert_eq!(nodes.len(), 1);
    assert_eq!(nodes[0].1["status"]["allocations"][0]["pod"], "a");
    assert_eq!(state.take(now + GPU_NODE_CONFIRM), (Vec::new(), Vec::new()), "once");
}

#[test]
fn two_plans_for_one_gpu_leave_one_pod_out_and_are_counted() {
    let mut state = state();
    state.see(&pod("a", true), Instant::now());
    state.see(&pod("b", true), Instant::now());
    assert_eq!((state.counts.as_planned, state.counts.not_admitted), (1, 1));
    assert_eq!(state.take(Instant::now()).1, [("a".to_owned(), RUNNING), ("b".to_owned(), FAILED)]);
}

#[test]
fn what_a_deleted_pod_held_is_told_to_be_free() {
    let (mut state, now) = (state(), Instant::now());
    state.see(&pod("a", true), now);
    state.gone(&pod("a", true), now);
    let (nodes, _) = state.take(now);
    assert_eq!(nodes[0].1["status"]["allocations"], json!([]));
}

#[test]
fn a_pod_without_a_plan_runs_and_holds_nothing() {
    let mut state = state();
    state.see(&pod("a", false), Instant::now());
    assert_eq!(state.take(Instant::now()), (Vec::new(), vec![("a".to_owned(), RUNNING)]));
    assert_eq!(state.counts.unplanned, 1);
}

#[test]
fn a_gpu_node_is_written_before_it_would_be_stale() {
    let mut state = state();
    let (nodes, _) = state.take(Instant::now() + GPU_NODE_HEARTBEAT);
    assert_eq!((nodes.len(), state.counts.heartbeats), (1, 1));
}
