//! What a script of the scheduler sees, in words that are the same in every run.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use super::extender::names;

/// Where a message of kube-scheduler turns to preemption, of which the stand-in knows nothing.
const PREEMPTION: [&str; 2] = [" no new claims to deallocate", " preemption:"];

/// One question in short: `filter [a b]`, or `bind a`.
pub(super) fn question(path: &str, asked: &Value) -> String {
    match asked["Node"].as_str() {
        Some(node) => format!("{path} {node}"),
        None => format!("{path} [{}]", sorted(names(asked)).join(" ")),
    }
}

/// One question with everything in it that an extender may go by.
pub(super) fn question_in_full(asked: &Value, uid: &str) -> String {
    let mut asked = asked.clone();
    for place in ["/PodUID", "/Pod/metadata/uid"] {
        if let Some(told) = asked.pointer_mut(place) {
            *told = if told == uid { json!("the pod's") } else { json!("another") };
        }
    }
    let nodes = sorted(names(&asked)).join(" ");
    if !nodes.is_empty() {
        asked["NodeNames"] = json!(nodes);
    }
    if let Some(pod) = asked.get_mut("Pod") {
        *pod = in_short(pod);
    }
    asked.to_string()
}

/// A pod without what differs from server to server: times, versions, and what admission plugins add.
fn in_short(pod: &Value) -> Value {
    let (metadata, spec) = (&pod["metadata"], &pod["spec"]);
    let containers = |key: &str| -> Vec<Value> {
        let all = spec[key].as_array().into_iter().flatten();
        all.map(|one| json!([one["name"], one["image"], one["resources"]])).collect()
    };
    json!({
        "keys": keys(pod),
        "metadata": {
            "keys": keys(metadata),
            "namespace": metadata["namespace"],
            "name": metadata["name"],
            "uid": metadata["uid"],
            "labels": metadata["labels"],
            "annotations": metadata["annotations"],
        },
        "spec": {
            "schedulerName": spec["schedulerName"],
            "nodeName": spec["nodeName"],
            "nodeSelector": spec["nodeSelector"],
            "priority": spec["priority"],
            "initContainers": containers("initContainers"),
            "containers": containers("containers"),
        },
        "status": pod["status"],
    })
}

/// Reason and message, without what differs from run to run, and without what is said of preemption.
pub(super) fn why(reason: &str, message: &str, address: &str) -> String {
    let end = PREEMPTION.iter().filter_map(|turn| message.find(turn)).min().unwrap_or(message.len());
    format!("{reason}: {}", message[..end].replace(address, "ADDRESS"))
}

/// The questions of a pod's first try: the second begins where something is asked again.
pub(super) fn first_try(asked: Vec<(String, Value)>) -> Vec<(String, Value)> {
    let mut paths = BTreeSet::new();
    asked.into_iter().take_while(|(path, _)| paths.insert(path.clone())).collect()
}

fn sorted<'a>(names: impl Iterator<Item = &'a str>) -> Vec<&'a str> {
    let mut names: Vec<&str> = names.collect();
    names.sort_unstable();
    names
}

fn keys(object: &Value) -> String {
    sorted(object.as_object().into_iter().flatten().map(|(key, _)| key.as_str())).join(" ")
}
