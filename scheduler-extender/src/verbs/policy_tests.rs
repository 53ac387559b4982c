//! Pods with policies, and pods beside them.

use serde_json::{Value, json};
use stowage_shared::contract::SHARE_WITH_ANNOTATION;
use stowage_shared::plan::Plan;
use stowage_shared::policy::Reserve;

use super::*;
use crate::clock::Now;
use crate::state::event::{Change, Event, Node, Pod};
use crate::state::{Choice, State};
use crate::synthetic::{self, SHARE, WHOLE};

const NODE: &str = "gpu-node-0";
const ALONE: (&str, &str) = (SHARE_WITH_ANNOTATION, "namespace");
const KEPT: &str =
    "no free placement on a GPU whose pods share with other namespaces (stowage.dev/share-with)";
const OTHERS: &str = "no free placement on a GPU without other namespaces (stowage.dev/share-with)";

fn verbs(state: State) -> Verbs {
    Verbs::new(Arc::new(Store::new(state)))
}

/// What kube-scheduler asks for a pod of a namespace with an annotation.
fn request(
    namespace: &str,
    (key, value): (&str, &str),
    resource: &str,
    count: u32,
    nodes: &[&str],
) -> Vec<u8> {
    let body = synthetic::request(resource, count, nodes.iter().copied());
    let mut body: Value = serde_json::from_slice(&body).unwrap();
    body["Pod"]["metadata"]["namespace"] = json!(namespace);
    body["Pod"]["metadata"]["annotations"] = json!({ key: value });
    body.to_string().into_bytes()
}

/// Why a pod does not fit the node, for now or for ever; nothing where it fits.
fn why_not(verbs: &Verbs, body: &[u8], now: Now) -> (Value, Value) {
    let answer: Value = serde_json::from_slice(&verbs.filter(body, now.monotonic).body).unwrap();
    let why = |key: &str| answer.get(key).map_or(Value::Null, |nodes| nodes[NODE].clone());
    (why("FailedNodes"), why("FailedAndUnresolvableNodes"))
}

fn scores(verbs: &Verbs, body: &[u8], now: Now) -> Vec<u64> {
    let answer: Value = serde_json::from_slice(&verbs.prioritize(body, now.monotonic).body).unwrap();
    answer.as_array().unwrap().iter().map(|score| score["Score"].as_u64().unwrap()).collect()
}

/// A waiting pod of a namespace with an annotation.
fn pod(name: &str, namespace: &str, (key, value): (&str, &str), resource: &str, count: u64) -> Pod {
    let annotations = [(key, value.to_owned())].into_iter().collect();
    Pod { namespace: namespace.into(), annotations, ..synthetic::pod(name, name, resource, count) }
}

/// Binds it, as the watch shows it then. Answers with the places of its GPUs.
fn run(state: &mut State, pod: &Pod, node: &str, now: Now) -> Vec<String> {
    state.apply(Event::Pod(Change::Applied(pod.clone())), now);
    let Ok(Choice::Planned(_, text)) = state.choose(pod, node, now) else { panic!("{}", pod.name) };
    let bound = Pod { node: node.into(), plan: Some(text.clone()), ..pod.clone() };
    state.apply(Event::Pod(Change::Applied(bound)), now);
    let plan = Plan::parse(&text).unwrap();
    let devices = plan.containers.values().flat_map(|resources| resources.values()).flatten();
    devices.map(|device| device.gpu.to_string()).collect()
}

#[test]
fn models_sizes_and_distinct_gpus_are_looked_at() {
    let now = Now::read();
    let verbs = verbs(synthetic::state(1, 0, now));
    let ask = |key, value, count| why_not(&verbs, &request("a", (key, value), SHARE, count, &[NODE]), now);
    let fits = (Value::Null, Value::Null);
    assert_eq!(ask("stowage.dev/gpu-model", "*A100*", 8), fits);
    let model = json!("no GPU of a model that stowage.dev/gpu-model allows");
    assert_eq!(ask("stowage.dev/gpu-model", "*H100*|*L4", 1), (Value::Null, model));
    assert_eq!(ask("stowage.dev/gpu-memory-min", "40Gi", 1), fits);
    let memory = json!("no GPU with the memory that stowage.dev/gpu-memory-min asks for");
    assert_eq!(ask("stowage.dev/gpu-memory-min", "41Gi", 1), (Value::Null, memory));
    assert_eq!(ask("stowage.dev/distinct-gpus", "true", 2), fits);
    let distinct = json!("no free placement on as many different GPUs as stowage.dev/distinct-gpus wants");
    assert_eq!(ask("stowage.dev/distinct-gpus", "true", 3), (distinct, Value::Null));
}

#[test]
fn a_policy_that_cannot_be_read_places_the_pod_nowhere() {
    let now = Now::read();
    let mut state = synthetic::state(1, 0, now);
    let wrong = ("stowage.dev/share-with", "nobody");
    let waiting = pod("p", "a", wrong, SHARE, 1);
    let text = r#"annotation stowage.dev/share-with is "nobody": use namespace or anyone"#;
    assert_eq!(state.choose(&waiting, NODE, now).unwrap_err().to_string(), text);
    let verbs = verbs(state);
    let body = request("a", wrong, SHARE, 1, &[NODE]);
    assert_eq!(why_not(&verbs, &body, now), (Value::Null, json!(text)));
    assert_eq!(scores(&verbs, &body, now), [0]);
    let long = "x".repeat(5000);
    let (_, why) = why_not(&verbs, &request("a", ("stowage.dev/gpu-model", &long), SHARE, 1, &[NODE]), now);
    assert_eq!(why, json!("annotation stowage.dev/gpu-model has more than 1024 bytes"));
    // Who asks for no GPU wants nothing of one.
    let (_, why) = why_not(&verbs, &request("a", wrong, "cpu", 1, &[NODE]), now);
    assert_eq!(why, Value::Null);
}

#[test]
fn namespaces_are_kept_apart_where_either_side_wants_it() {
    let now = Now::read();
    // Two GPUs of four shares each.
    let mut state = synthetic::state(1, 0, now);
    let first = run(&mut state, &pod("one", "a", ALONE, SHARE, 1), NODE, now);
    let second = run(&mut state, &pod("two", "b", ("x", ""), SHARE, 1), NODE, now);
    assert_ne!(first, second);
    assert_eq!(run(&mut state, &pod("three", "a", ALONE, SHARE, 1), NODE, now), first);
    let verbs = verbs(state);
    let ask =
        |namespace, policy, count| why_not(&verbs, &request(namespace, policy, SHARE, count, &[NODE]), now).0;
    let nothing = ("x", "");
    assert_eq!(
        [ask("a", nothing, 5), ask("b", nothing, 3), ask("c", nothing, 3)],
        [Value::Null, Value::Null, Value::Null]
    );
    assert_eq!([ask("b", nothing, 4), ask("c", nothing, 4)], [json!(KEPT), json!(KEPT)]);
    assert_eq!([ask("a", ALONE, 2), ask("b", ALONE, 3)], [Value::Null, Value::Null]);
    assert_eq!([ask("a", ALONE, 3), ask("c", ALONE, 1)], [json!(OTHERS), json!(OTHERS)]);
    assert_eq!(why_not(&verbs, &request("c", nothing, WHOLE, 4, &[NODE]), now).0, Value::Null);
}

#[test]
fn a_pod_that_spreads_goes_where_least_is_in_use() {
    let now = Now::read();
    let mut state = synthetic::state(3, 0, now);
    run(&mut state, &synthetic::pod("one", "one", SHARE, 1), "gpu-node-0", now);
    run(&mut state, &synthetic::pod("two", "two", SHARE, 3), "gpu-node-1", now);
    let verbs = verbs(state);
    let nodes = ["gpu-node-0", "gpu-node-1", "gpu-node-2"];
    let spread = request("a", ("stowage.dev/placement", "spread"), SHARE, 1, &nodes);
    assert_eq!(scores(&verbs, &spread, now), [9, 8, 10]);
    assert_eq!(scores(&verbs, &synthetic::request(SHARE, 1, nodes), now)[2], 8);
}

#[test]
fn a_pod_without_a_policy_is_judged_once_for_all_namespaces_where_nobody_minds() {
    let now = Now::read();
    let mut state = synthetic::state(4, 0, now);
    let pods = ["a", "b", "c"];
    for (name, node) in pods.iter().zip(["gpu-node-0", "gpu-node-1", "gpu-node-2"]) {
        run(&mut state, &pod(name, name, ("x", ""), SHARE, 1), node, now);
    }
    let nodes = ["gpu-node-0", "gpu-node-1", "gpu-node-2", "gpu-node-3"];
    let remembered = |verbs: &Verbs| -> Vec<usize> {
        let ask = |namespace: &&str| {
            verbs.filter(&request(namespace, ("x", ""), SHARE, 1, &nodes), now.monotonic);
            verbs.remembered()
        };
        pods.iter().map(ask).collect()
    };
    let verbs_of = |state: State| remembered(&verbs(state));
    // The shape, the class of nodes with one share in use, and that of the idle one.
    assert_eq!(verbs_of(state), [3, 3, 3]);
    let mut state = synthetic::state(4, 0, now);
    run(&mut state, &pod("a", "a", ALONE, SHARE, 1), "gpu-node-0", now);
    // Where somebody minds, it matters whether it is the pod's namespace; which other one it is does not.
    assert_eq!(verbs_of(state), [3, 4, 4]);
}

#[test]
fn room_kept_for_a_pod_of_its_own_is_closed_to_others() {
    let now = Now::read();
    let mut state = synthetic::state(1, 0, now);
    let nominated = Pod { nominated: NODE.into(), ..pod("one", "a", ALONE, SHARE, 1) };
    state.apply(Event::Pod(Change::Applied(nominated)), now);
    let verbs = verbs(state);
    let ask =
        |namespace, count| why_not(&verbs, &request(namespace, ("x", ""), SHARE, count, &[NODE]), now).0;
    assert_eq!([ask("b", 4), ask("a", 7), ask("b", 5)], [Value::Null, Value::Null, json!(KEPT)]);
}

#[test]
fn preempt_knows_who_stays() {
    let now = Now::read();
    let mut state = synthetic::state(1, 0, now);
    for (name, namespace) in [("one", "a"), ("two", "b")] {
        run(&mut state, &pod(name, namespace, ALONE, SHARE, 2), NODE, now);
    }
    let verbs = verbs(state);
    let ask = |namespace: &str, gone: &str| {
        let body = request(namespace, ALONE, SHARE, 3, &[]);
        let pod = serde_json::from_slice::<Value>(&body).unwrap()["Pod"].clone();
        let victims = json!({ NODE: { "Pods": [{ "UID": gone }], "NumPDBViolations": 0 } });
        let body = json!({ "Pod": pod, "NodeNameToVictims": null, "NodeNameToMetaVictims": victims });
        let answer = verbs.preempt(body.to_string().as_bytes(), now.monotonic);
        let answer: Value = serde_json::from_slice(&answer.body).unwrap();
        answer["NodeNameToMetaVictims"].as_object().unwrap().len()
    };
    assert_eq!([ask("c", "one"), ask("a", "two"), ask("a", "nobody")], [1, 1, 0]);
}

#[test]
fn whole_gpus_are_kept_for_large_pods_where_the_node_says_so() {
    let now = Now::read();
    // Four whole GPUs on each.
    let mut state = synthetic::state(3, 0, now);
    for (name, label) in [(NODE, "3"), ("gpu-node-1", "three")] {
        let node = Node { reserve: Reserve::of(Some(label)), ..synthetic::node(name) };
        state.apply(Event::Node(Change::Applied(node)), now);
    }
    run(&mut state, &synthetic::pod("small", "small", WHOLE, 1), NODE, now);
    let refused = state.choose(&synthetic::pod("next", "next", WHOLE, 2), NODE, now).unwrap_err().to_string();
    let kept = "no free placement beside the whole GPUs that the node keeps for large pods (stowage.dev/reserve-whole-gpus)";
    assert_eq!(refused, format!("{kept} any more"));
    let verbs = verbs(state);
    let nodes = [NODE, "gpu-node-1", "gpu-node-2"];
    let ask = |resource, count| {
        let body = synthetic::request(resource, count, nodes);
        let answer: Value = serde_json::from_slice(&verbs.filter(&body, now.monotonic).body).unwrap();
        let unreadable = &answer["FailedAndUnresolvableNodes"]["gpu-node-1"];
        assert_eq!(*unreadable, json!("node label stowage.dev/reserve-whole-gpus is no number from 0 to 64"));
        (answer["NodeNames"].clone(), answer["FailedNodes"].clone())
    };
    assert_eq!(ask(WHOLE, 1), (json!(["gpu-node-2"]), json!({ NODE: kept })));
    assert_eq!(ask(WHOLE, 3), (json!([NODE, "gpu-node-2"]), json!({})));
    assert_eq!(ask(SHARE, 8), (json!([NODE, "gpu-node-2"]), json!({})), "shares are of other GPUs");
}

#[test]
fn a_label_that_comes_or_goes_counts_at_once() {
    let now = Now::read();
    let mut state = synthetic::state(1, 0, now);
    let tell = |state: &mut State, label| {
        let node = Node { reserve: Reserve::of(label), ..synthetic::node(NODE) };
        state.apply(Event::Node(Change::Applied(node)), now);
    };
    let pod = synthetic::pod("p", "p", WHOLE, 1);
    tell(&mut state, Some("4"));
    assert!(state.choose(&pod, NODE, now).is_err());
    tell(&mut state, None);
    assert!(state.choose(&pod, NODE, now).is_ok());
}
