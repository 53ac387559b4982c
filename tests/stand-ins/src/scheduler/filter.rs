//! The in-tree filters: may this pod run on this node at all?
//!
//! `NodeUnschedulable`, `NodeName`, `TaintToleration`, `NodeAffinity` (its `nodeSelector` half) and
//! `NodeResourcesFit`, in that order, with the texts of Kubernetes 1.36. The first that fails speaks.

use super::cache::NodeView;
use super::objects::{Pod, Taint};

/// Why a node does not take a pod.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Misfit {
    /// Something that only a change of the node or of the pod can mend.
    Node(&'static str),
    /// Resources that are short: one sentence each.
    Resources(Vec<String>),
}

/// Asks the in-tree filters.
pub(super) fn filter(pod: &Pod, view: NodeView<'_>) -> Result<(), Misfit> {
    let node = view.node;
    let cordoned = Taint {
        key: "node.kubernetes.io/unschedulable".into(),
        value: String::new(),
        effect: "NoSchedule".into(),
    };
    if node.unschedulable && !tolerates(pod, &cordoned) {
        return Err(Misfit::Node("node(s) were unschedulable"));
    }
    if !pod.node_name.is_empty() && pod.node_name != node.name {
        return Err(Misfit::Node("node(s) didn't match the requested node name"));
    }
    let repels = |taint: &&Taint| ["NoSchedule", "NoExecute"].contains(&taint.effect.as_str());
    if node.taints.iter().filter(repels).any(|taint| !tolerates(pod, taint)) {
        return Err(Misfit::Node("node(s) had untolerated taint(s)"));
    }
    if pod.node_selector.iter().any(|(key, value)| node.labels.get(key) != Some(value)) {
        return Err(Misfit::Node("node(s) didn't match Pod's node affinity/selector"));
    }
    let short = short_of(pod, view);
    if short.is_empty() { Ok(()) } else { Err(Misfit::Resources(short)) }
}

fn tolerates(pod: &Pod, taint: &Taint) -> bool {
    pod.tolerations.iter().any(|toleration| toleration.tolerates(taint))
}

/// `NodeResourcesFit`: what is asked for against what the pods on the node leave. A resource that is
/// not asked for is not looked at, however overcommitted.
fn short_of(pod: &Pod, view: NodeView<'_>) -> Vec<String> {
    let (wanted, used, all) = (&pod.amounts.requested, &view.usage.requested, &view.node.allocatable);
    let mut short = Vec::new();
    if view.usage.pods + 1 > all.other("pods") {
        short.push("Too many pods".to_owned());
    }
    let mut check = |name: &str, wanted: i64, free: i64| {
        if wanted > 0 && wanted > free {
            short.push(format!("Insufficient {name}"));
        }
    };
    check("cpu", wanted.milli_cpu, all.milli_cpu - used.milli_cpu);
    check("memory", wanted.memory_bytes, all.memory_bytes - used.memory_bytes);
    for (name, &wanted) in &wanted.others {
        check(name, wanted, all.other(name) - used.other(name));
    }
    short
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use serde_json::{Value, json};

    use super::super::cache::Cache;
    use super::super::objects::Node;
    use super::*;

    fn pod(spec: Value) -> Pod {
        Pod::read(Arc::new(json!({ "metadata": { "uid": spec.to_string() }, "spec": spec })))
    }

    fn asks(resource: &str, quantity: &str) -> Pod {
        pod(json!({ "containers": [{ "resources": { "requests": { resource: quantity } } }] }))
    }

    /// A node of 2 cores, 1 GPU and room for 2 pods, changed by `spec`.
    #[track_caller]
    fn check(pod: &Pod, spec: Value, on_it: &[Pod], want: &str) {
        let mut cache = Cache::default();
        cache.set_node(Node::read(&json!({
            "metadata": { "name": "n", "labels": { "zone": "a" } },
            "spec": spec,
            "status": { "allocatable": { "cpu": "2", "memory": "1Gi", "pods": "2", "nvidia.com/gpu": "1" } },
        })));
        on_it.iter().for_each(|other| cache.place(Arc::new(other.clone()), "n"));
        let got = match filter(pod, cache.nodes().next().unwrap()) {
            Ok(()) => String::new(),
            Err(Misfit::Node(why)) => why.to_owned(),
            Err(Misfit::Resources(short)) => short.join(", "),
        };
        assert_eq!(got, want);
    }

    #[test]
    fn resources_are_allocatable_less_what_pods_on_the_node_ask_for() {
        check(&asks("cpu", "2"), json!({}), &[], "");
        check(&asks("cpu", "2"), json!({}), &[asks("cpu", "1m")], "Insufficient cpu");
        check(&asks("nvidia.com/gpu", "1"), json!({}), &[asks("cpu", "2")], "");
        check(
            &asks("nvidia.com/gpu", "1"),
            json!({}),
            &[asks("nvidia.com/gpu", "1")],
            "Insufficient nvidia.com/gpu",
        );
        check(&asks("nvidia.com/gpu.shared", "1"), json!({}), &[], "Insufficient nvidia.com/gpu.shared");
        let two = [asks("cpu", "1"), asks("memory", "1")];
        check(&asks("cpu", "3"), json!({}), &two, "Too many pods, Insufficient cpu");
    }

    #[test]
    fn selectors_names_cordons_and_taints_are_heeded() {
        let with = |extra: Value| pod(extra);
        check(&with(json!({ "nodeSelector": { "zone": "a" } })), json!({}), &[], "");
        let other = with(json!({ "nodeSelector": { "zone": "b" } }));
        check(&other, json!({}), &[], "node(s) didn't match Pod's node affinity/selector");
        check(
            &with(json!({ "nodeName": "m" })),
            json!({}),
            &[],
            "node(s) didn't match the requested node name",
        );
        check(&with(json!({})), json!({ "unschedulable": true }), &[], "node(s) were unschedulable");
        let taint = json!({ "taints": [{ "key": "gpu", "value": "yes", "effect": "NoSchedule" }] });
        check(&with(json!({})), taint.clone(), &[], "node(s) had untolerated taint(s)");
        for toleration in [
            json!({ "operator": "Exists" }),
            json!({ "key": "gpu", "value": "yes", "effect": "NoSchedule" }),
            json!({ "key": "gpu", "operator": "Exists" }),
        ] {
            check(&with(json!({ "tolerations": [toleration] })), taint.clone(), &[], "");
        }
        let soft = json!({ "taints": [{ "key": "gpu", "effect": "PreferNoSchedule" }] });
        check(&with(json!({})), soft, &[], "");
    }
}
