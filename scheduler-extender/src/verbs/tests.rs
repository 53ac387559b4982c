use serde_json::{Value, json};
use stowage_shared::contract::GPU_NODE_STALE;

use super::*;
use crate::clock::Now;
use crate::state::event::{Change, Event, Node, Pod};
use crate::state::{Choice, State};
use crate::synthetic::{self, SHARE, SLICE, WHOLE};

/// Two GPU nodes, one ordinary node, and one that is not ready.
fn cluster(pods_per_node: usize, now: Now) -> State {
    let mut state = synthetic::state(3, pods_per_node, now);
    let not_ready = Node { ready: false, ..synthetic::node("gpu-node-2") };
    let plain = Node { name: "cpu-node".into(), uid: "c".into(), ready: true, ..Node::default() };
    for node in [not_ready, plain] {
        state.apply(Event::Node(Change::Applied(node)), now);
    }
    state
}

fn verbs(state: State) -> Verbs {
    Verbs::new(Arc::new(Store::new(state)))
}

fn ask(verbs: &Verbs, body: &[u8], now: Now) -> Value {
    let answer = verbs.filter(body, now.monotonic);
    assert_eq!(answer.status, 200);
    serde_json::from_slice(&answer.body).unwrap()
}

const ALL: [&str; 5] = ["gpu-node-1", "cpu-node", "gone", "gpu-node-0", "gpu-node-2"];

#[test]
fn each_node_is_told_with_its_reason() {
    let now = Now::read();
    let verbs = verbs(cluster(0, now));
    let answer = ask(&verbs, &synthetic::request(WHOLE, 4, ALL), now);
    let want = json!({
        "Nodes": null, "NodeNames": ["gpu-node-1", "gpu-node-0"], "Error": "",
        "FailedNodes": { "gone": "node is not known to Stowage yet" },
        "FailedAndUnresolvableNodes": {
            "cpu-node": "node has no GPUs known to Stowage", "gpu-node-2": "GPU node is not Ready" },
    });
    assert_eq!(answer, want);
}

#[test]
fn full_now_and_never_possible_are_told_apart() {
    let now = Now::read();
    let verbs = verbs(cluster(3, now));
    let full = ask(&verbs, &synthetic::request(WHOLE, 4, ["gpu-node-0"]), now);
    assert_eq!(full["FailedNodes"], json!({ "gpu-node-0": "no free placement for nvidia.com/gpu" }));
    let never = ask(&verbs, &synthetic::request(WHOLE, 5, ["gpu-node-0"]), now);
    let want = json!({ "gpu-node-0": "fewer nvidia.com/gpu on this node than the pod asks for" });
    assert_eq!(never["FailedAndUnresolvableNodes"], want);
    let none = ask(&verbs, &synthetic::request("nvidia.com/mig-3g.20gb", 1, ["gpu-node-0"]), now);
    let want = json!({ "gpu-node-0": "no nvidia.com/mig-3g.20gb on this node" });
    assert_eq!(none["FailedAndUnresolvableNodes"], want);
    let absurd = ask(&verbs, &synthetic::request(WHOLE, 4_000_000_000, ["gpu-node-0"]), now);
    assert_eq!(absurd["NodeNames"], json!([]));
}

#[test]
fn placements_are_looked_at_and_not_counts() {
    let now = Now::read();
    // Two shares are free on each of two GPUs: the kubelet counts four, and four fit. Of slices, seven on each.
    let verbs = verbs(synthetic::state(1, 12, now));
    for (resource, count, fits) in
        [(SHARE, 4, true), (SHARE, 5, false), (SLICE, 10, true), (SLICE, 11, false)]
    {
        let answer = ask(&verbs, &synthetic::request(resource, count, ["gpu-node-0"]), now);
        assert_eq!(answer["NodeNames"].as_array().unwrap().len() == 1, fits, "{count} of {resource}");
    }
}

#[test]
fn shares_of_a_size_fit_where_their_memory_does() {
    let now = Now::read();
    // GPUs of 40,960 MiB, two of them shared.
    let verbs = verbs(synthetic::state(1, 0, now));
    let ask = |key: &str, size: &str, count| {
        let body = synthetic::request(SHARE, count, ["gpu-node-0"]);
        let mut body: Value = serde_json::from_slice(&body).unwrap();
        body["Pod"]["metadata"]["annotations"] = json!({ key: size });
        ask(&verbs, body.to_string().as_bytes(), now)
    };
    let fits = |answer: Value| answer["NodeNames"] == json!(["gpu-node-0"]);
    assert!(fits(ask("stowage.dev/gpu-memory", "30Gi", 2)));
    assert!(!fits(ask("stowage.dev/gpu-memory", "30Gi", 3)), "the kubelet would count eight");
    assert!(fits(ask("stowage.dev/gpu-milli", "250", 8)));
    let never = ask("stowage.dev/gpu-memory", "41Gi", 1)["FailedAndUnresolvableNodes"].clone();
    let text = "shares of nvidia.com/gpu.shared on this node are smaller than the pod asks for";
    assert_eq!(never, json!({ "gpu-node-0": text }));
    let unreadable = ask("stowage.dev/gpu-milli", "25%", 1)["FailedAndUnresolvableNodes"].to_string();
    assert!(unreadable.contains("say how many thousandths of a GPU a share needs"), "{unreadable}");
}

#[test]
fn a_pod_without_gpus_gets_gpu_nodes_only_where_there_is_no_other() {
    let now = Now::read();
    let verbs = verbs(cluster(0, now));
    let answer = ask(&verbs, &synthetic::request("example.com/other", 1, ALL), now);
    assert_eq!(answer["NodeNames"], json!(["cpu-node"]));
    let kept = "GPU node: kept for GPU pods";
    let unknown = "node is not known to Stowage yet";
    let want = json!({ "gpu-node-1": kept, "gone": unknown, "gpu-node-0": kept, "gpu-node-2": kept });
    assert_eq!(answer["FailedNodes"], want);
    let answer = ask(&verbs, &synthetic::request("cpu", 1, ["gpu-node-2", "gpu-node-0"]), now);
    assert_eq!(answer["NodeNames"], json!(["gpu-node-2", "gpu-node-0"]));
}

#[test]
fn a_node_that_stopped_publishing_takes_no_new_pods() {
    let now = Now::read();
    let verbs = verbs(cluster(0, now));
    let body = synthetic::request(WHOLE, 1, ["gpu-node-0"]);
    let old = Now { monotonic: now.monotonic + GPU_NODE_STALE, ..now };
    assert_eq!(ask(&verbs, &body, now)["NodeNames"], json!(["gpu-node-0"]));
    let answer = ask(&verbs, &body, old);
    let why = answer["FailedAndUnresolvableNodes"]["gpu-node-0"].as_str().unwrap();
    assert!(why.contains("older than 10 minutes"), "{why}");
}

#[test]
fn a_pod_whose_devices_are_held_fits_where_they_are() {
    let now = Now::read();
    let store = Arc::new(Store::new(synthetic::state(2, 0, now)));
    let verbs = Verbs::new(store.clone());
    let body = synthetic::request(WHOLE, 4, ["gpu-node-0", "gpu-node-1"]);
    let pod = synthetic::pod("llama-7f9c-x2x4z", "6a1f0f9e-2f7b-4c0d-9a57-0c7f3f2f9a11", WHOLE, 4);
    store.change(|state| state.choose(&pod, "gpu-node-1", now)).unwrap().unwrap();
    assert_eq!(ask(&verbs, &body, now)["NodeNames"], json!(["gpu-node-0", "gpu-node-1"]));
    let scores: Value = serde_json::from_slice(&verbs.prioritize(&body, now.monotonic).body).unwrap();
    assert_eq!(scores[1], json!({ "Host": "gpu-node-1", "Score": 10 }));
    let other = String::from_utf8(body).unwrap().replace("6a1f0f9e", "00000000").into_bytes();
    assert_eq!(ask(&verbs, &other, now)["NodeNames"], json!(["gpu-node-0"]));
}

#[test]
fn a_pod_whose_place_was_chosen_ahead_gets_that_node_alone() {
    let now = Now::read();
    let mut state = synthetic::state(3, 0, now);
    let uid = "6a1f0f9e-2f7b-4c0d-9a57-0c7f3f2f9a11";
    let pod = synthetic::pod("llama-7f9c-x2x4z", uid, WHOLE, 4);
    state.apply(Event::Pod(Change::Applied(pod.clone())), now);
    state.nominate(uid, "gpu-node-1");
    let store = Arc::new(Store::new(state));
    let verbs = Verbs::new(store.clone());
    let all = ["gpu-node-0", "gpu-node-1", "gpu-node-2"];
    let names = |names: &[&str]| ask(&verbs, &synthetic::request(WHOLE, 4, names.iter().copied()), now);
    assert_eq!(names(&all)["NodeNames"], json!(["gpu-node-1"]));
    assert_eq!(names(&all)["FailedNodes"], json!({}));
    assert_eq!(names(&["gpu-node-0", "gpu-node-2"])["NodeNames"], json!(["gpu-node-0", "gpu-node-2"]));
    let told = Pod { nominated: "gpu-node-1".into(), ..pod };
    store.change(|state| state.apply(Event::Pod(Change::Applied(told.clone())), now)).unwrap();
    assert_eq!(
        names(&all)["NodeNames"],
        json!(["gpu-node-1"]),
        "kube-scheduler had not heard of it when it began"
    );
    assert_eq!(names(&["gpu-node-0", "gpu-node-2"])["NodeNames"], json!(["gpu-node-0", "gpu-node-2"]));
    let taken_back = Pod { nominated: String::new(), ..told };
    store.change(|state| state.apply(Event::Pod(Change::Applied(taken_back)), now)).unwrap();
    assert_eq!(names(&all)["NodeNames"], json!(all));
}

#[test]
fn a_used_gpu_is_filled_before_an_empty_node_is_woken() {
    let now = Now::read();
    let mut state = synthetic::state(3, 0, now);
    let first = synthetic::pod("first", "first", SHARE, 1);
    state.choose(&first, "gpu-node-1", now).unwrap();
    let verbs = verbs(state);
    let body = synthetic::request(SHARE, 1, ["gpu-node-0", "gpu-node-1", "gpu-node-2", "gone"]);
    let scores: Value = serde_json::from_slice(&verbs.prioritize(&body, now.monotonic).body).unwrap();
    let want = json!([
        { "Host": "gpu-node-0", "Score": 9 }, { "Host": "gpu-node-1", "Score": 10 },
        { "Host": "gpu-node-2", "Score": 9 }, { "Host": "gone", "Score": 0 },
    ]);
    assert_eq!(scores, want);
    let cpu = synthetic::request("cpu", 1, ["gpu-node-0", "gpu-node-1"]);
    let scores: Value = serde_json::from_slice(&verbs.prioritize(&cpu, now.monotonic).body).unwrap();
    assert_eq!(scores, json!([{ "Host": "gpu-node-0", "Score": 0 }, { "Host": "gpu-node-1", "Score": 0 }]));
}

#[test]
fn pods_go_where_the_cpu_that_they_take_is_not_what_others_need() {
    let now = Now::read();
    let mut state = synthetic::state(2, 0, now);
    // As much is left of CPU as the four whole GPUs of the node need, by what pods are like here.
    let pod = |name: &str, cpu_milli, node: &str| {
        let mut pod = synthetic::pod(name, name, WHOLE, 1);
        pod.host.cpu_milli = cpu_milli;
        Pod { node: node.into(), ..pod }
    };
    let plain = Pod { spec: Default::default(), ..pod("plain", 80_000, "gpu-node-0") };
    state.apply(Event::Pod(Change::Applied(plain)), now);
    state.apply(Event::Node(Change::Applied(synthetic::node("gpu-node-2"))), now);
    for name in ["a", "b", "c", "d"] {
        state.apply(Event::Pod(Change::Applied(pod(name, 4_000, "gpu-node-2"))), now);
    }
    let verbs = verbs(state);
    let scores = |resource: &str, cpu: &str| -> Vec<Value> {
        let body = synthetic::request(resource, 1, ["gpu-node-0", "gpu-node-1"]);
        let body = String::from_utf8(body).unwrap().replace("\"cpu\":\"4\"", &format!("\"cpu\":\"{cpu}\""));
        let scores: Value =
            serde_json::from_slice(&verbs.prioritize(body.as_bytes(), now.monotonic).body).unwrap();
        scores.as_array().unwrap().iter().map(|score| score["Score"].clone()).collect()
    };
    assert_eq!(scores(WHOLE, "12"), [9, 10]);
    assert_eq!(scores(WHOLE, "1"), [10, 9], "it leaves more than the others need");
    assert_eq!(scores("cpu", "1"), [9, 10], "so does a pod without GPUs not");
}

#[test]
fn what_cannot_be_served_says_so_where_kube_scheduler_looks() {
    let now = Now::read();
    let good = synthetic::request(WHOLE, 1, ["gpu-node-0"]);
    let cold = Verbs::default();
    let warm = verbs(cluster(0, now));
    for (verbs, body, status, filter_says) in [
        (&cold, good.as_slice(), 500, NOT_SYNCED),
        (&warm, b"{}".as_slice(), 500, "has no Pod"),
        (&warm, br#"{"Pod":{},"Nodes":7,"NodeNames":null}"#, 500, "not kube-scheduler's"),
        (&warm, br#"{"Pod":7}"#, 500, "not kube-scheduler's"),
    ] {
        let error = ask(verbs, body, now)["Error"].as_str().unwrap().to_owned();
        assert!(error.contains(filter_says), "{error}");
        let answer = verbs.prioritize(body, now.monotonic);
        assert_eq!(answer.status, status);
        assert!(String::from_utf8(answer.body).unwrap().contains(filter_says));
    }
    for answer in [warm.filter(b"{", now.monotonic), warm.prioritize(b"nonsense", now.monotonic)] {
        assert_eq!((answer.status, answer.outcome), (400, Outcome::BadRequest));
    }
}

/// What kube-scheduler's own Go types wrote, and what they read again (checked with k8s.io/kube-scheduler 0.36.1).
#[test]
fn answers_to_kube_schedulers_own_request_are_the_golden_ones() {
    let now = Now::read();
    let mut state = cluster(0, now);
    state.apply(
        Event::Node(Change::Applied(Node {
            name: "cpu-node-1".into(),
            uid: "x".into(),
            ready: true,
            ..Node::default()
        })),
        now,
    );
    state.apply(Event::Node(Change::Applied(synthetic::node("gpu-node-3"))), now);
    let verbs = verbs(state);
    let request = include_bytes!("../../tests/golden/filter-request.json");
    let text = |answer: Answer| String::from_utf8(answer.body).unwrap();
    assert_eq!(
        text(verbs.filter(request, now.monotonic)),
        include_str!("../../tests/golden/filter-answer.json").trim_end()
    );
    assert_eq!(
        text(verbs.prioritize(request, now.monotonic)),
        include_str!("../../tests/golden/prioritize-answer.json").trim_end()
    );
}

/// Two nodes whose whole GPUs are in use: by one pod on the first, by two on the second.
fn full(now: Now) -> State {
    let mut state = synthetic::state(2, 0, now);
    for (name, count, node) in
        [("one", 4, "gpu-node-0"), ("half", 2, "gpu-node-1"), ("other", 2, "gpu-node-1")]
    {
        let pod = synthetic::pod(name, name, WHOLE, count);
        state.apply(Event::Pod(Change::Applied(pod.clone())), now);
        let Ok(Choice::Planned(_, plan)) = state.choose(&pod, node, now) else { panic!("{name}") };
        let bound = Pod { node: node.into(), plan: Some(plan), ..pod };
        state.apply(Event::Pod(Change::Applied(bound)), now);
    }
    state
}

#[test]
fn preempt_keeps_the_nodes_where_the_victims_going_makes_room() {
    let now = Now::read();
    let verbs = verbs(full(now));
    let victims = |uids: &[&str]| {
        let pods: Vec<Value> = uids.iter().map(|uid| json!({ "UID": uid })).collect();
        json!({ "Pods": pods, "NumPDBViolations": 1 })
    };
    let ask = |resource: &str, candidates: &Value| -> Value {
        let request: Value = serde_json::from_slice(&synthetic::request(resource, 3, [])).unwrap();
        let body = json!({
            "Pod": request["Pod"], "NodeNameToVictims": null, "NodeNameToMetaVictims": candidates });
        let answer = verbs.preempt(body.to_string().as_bytes(), now.monotonic);
        assert_eq!(answer.status, 200);
        serde_json::from_slice(&answer.body).unwrap()
    };
    let candidates =
        json!({ "gpu-node-0": victims(&["one"]), "gpu-node-1": victims(&["half"]), "gone": victims(&["x"]) });
    let kept = json!({ "NodeNameToMetaVictims": { "gpu-node-0": victims(&["one"]) } });
    assert_eq!(ask(WHOLE, &candidates), kept, "two of four would be free on the other");
    let all = json!({ "gpu-node-1": victims(&["half", "other"]) });
    assert_eq!(ask(WHOLE, &all), json!({ "NodeNameToMetaVictims": all }));
    // An empty list, as releases after 1.36 may send it, helps only where the pod fits.
    let empty = json!({ "gpu-node-0": victims(&[]) });
    assert_eq!(ask(WHOLE, &empty), json!({ "NodeNameToMetaVictims": {} }));
    assert_eq!(ask(SLICE, &empty), json!({ "NodeNameToMetaVictims": empty }));
    assert_eq!(
        ask("example.com/disk", &candidates),
        json!({ "NodeNameToMetaVictims": candidates }),
        "not about GPUs"
    );
    assert_eq!(ask(WHOLE, &Value::Null), json!({ "NodeNameToMetaVictims": {} }));
}

/// Written by kube-scheduler's own Go types, as for an extender that is not `nodeCacheCapable`: a node that is
/// known, one that is not ready, one as an autoscaler would make it, and three of which no GPU is known.
#[test]
fn whole_nodes_are_judged_although_they_do_not_exist_and_given_back_whole() {
    let now = Now::read();
    let verbs = verbs(cluster(0, now));
    let request = include_bytes!("../../tests/golden/simulate-request.json");
    let asked: Value = serde_json::from_slice(request).unwrap();
    let answer = ask(&verbs, request, now);
    let want = json!({
        "Nodes": { "metadata": {}, "items": [
            asked["Nodes"]["items"][0], asked["Nodes"]["items"][2], asked["Nodes"]["items"][3] ] },
        "NodeNames": null, "FailedNodes": {}, "Error": "",
        "FailedAndUnresolvableNodes": {
            "gpu-node-2": "GPU node is not Ready",
            "template-node-for-whole-pool-1": "no nvidia.com/mig-1g.5gb on this node",
            "template-node-for-cpu-pool-1": "node has no GPUs known to Stowage",
        },
    });
    assert_eq!(answer, want);
    let scores: Value = serde_json::from_slice(&verbs.prioritize(request, now.monotonic).body).unwrap();
    let scores: Vec<u64> = (0..6).map(|at| scores[at]["Score"].as_u64().unwrap()).collect();
    // The idle node and its twin cost the same, so the name decides; what is only counted comes last.
    assert_eq!(scores, [10, 0, 9, 8, 0, 0]);
}

#[test]
fn a_node_that_does_not_exist_is_judged_as_its_idle_twin() {
    let now = Now::read();
    // Every node is full, and their twin is not.
    let mut state = State::default();
    for event in synthetic::events(2, 0, now) {
        state.apply(event, now);
    }
    for n in 0..2 {
        let (name, node) = (format!("p{n}"), synthetic::gpu_node_name(n));
        state.choose(&synthetic::pod(&name, &name, WHOLE, 4), &node, now).unwrap();
    }
    let verbs = verbs(state);
    let node = |name: &str, whole: &str| {
        json!({ "metadata": { "name": name, "labels": { "nvidia.com/gpu.product": "NVIDIA-A100-SXM4-40GB-SHARED" } },
            "status": { "allocatable": { "cpu": 96, WHOLE: whole, SLICE: "14", SHARE: "8" } } })
    };
    let nodes = [node("gpu-node-0", "4"), node("twin", "4"), node("stranger", "2"), json!({ "kind": 7 })];
    let body = |resource: &str, count: u32| {
        let mut request: Value = serde_json::from_slice(&synthetic::request(resource, count, [])).unwrap();
        request["NodeNames"] = Value::Null;
        request["Nodes"] = json!({ "items": nodes });
        request.to_string().into_bytes()
    };
    let fitting = |resource, count| -> Vec<String> {
        let answer = ask(&verbs, &body(resource, count), now);
        let items = answer["Nodes"]["items"].as_array().unwrap().iter();
        items.map(|node| node["metadata"]["name"].as_str().unwrap_or_default().to_owned()).collect()
    };
    assert_eq!(fitting(WHOLE, 4), ["twin"]);
    assert_eq!(fitting(WHOLE, 2), ["twin", "stranger"], "a stranger is judged by its counts");
    // Its pods hold the whole GPUs of the node that exists, and not its shares.
    assert_eq!(fitting(SHARE, 8), ["gpu-node-0", "twin", "stranger"]);
    assert_eq!(fitting(SHARE, 9), [""; 0]);
    assert_eq!(fitting("cpu", 1), [""], "who asks for no GPU goes where none is");
    assert!(verbs.store().snapshot().assumed.len() == 2, "nothing is held");
}

/// Filter may wait for kube-scheduler's sake, and takes note of whom it asked about; an autoscaler asks about the same pods.
#[test]
fn who_simulates_does_not_ask_for_kube_scheduler() {
    let verbs = verbs(cluster(0, Now::read()));
    let asked = verbs.asker(include_bytes!("../../tests/golden/filter-request.json"));
    assert_eq!(asked.as_deref(), Some("6a1f0f9e-2f7b-4c0d-9a57-0c7f3f2f9a11"));
    assert_eq!(verbs.asker(include_bytes!("../../tests/golden/simulate-request.json")), None);
    assert_eq!(verbs.asker(&synthetic::request("cpu", 1, ["gpu-node-0"])), None, "it asks for no GPU");
}
