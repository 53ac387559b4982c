//! What kube-scheduler's own filters say of a node, before it asks the extender.
//!
//! `NodeUnschedulable`, `NodeName`, `TaintToleration`, `NodeAffinity` and `NodeResourcesFit`, with the texts of
//! Kubernetes 1.36. What needs more than one node and one pod to judge (affinity to pods, topology spread,
//! volumes, host ports) is not looked at; [`not_looked_at`] names what of it a pod has.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{NodeSelectorRequirement, NodeSelectorTerm, PodSpec, Taint, Toleration};

use super::amounts::Amounts;

/// A node as those filters see it.
#[derive(Debug, Clone, Default)]
pub struct Facts {
    /// Its name.
    pub name: String,
    /// Its labels.
    pub labels: BTreeMap<String, String>,
    /// Its taints.
    pub taints: Vec<Taint>,
    /// Whether it is cordoned.
    pub unschedulable: bool,
    /// Its allocatable amounts less what the pods on it ask for.
    pub free: Amounts,
}

/// Why kube-scheduler itself keeps a pod off a node: the first filter that does, and of resources all that are
/// short.
pub fn keeps_off(spec: &PodSpec, asked: &Amounts, node: &Facts) -> Vec<String> {
    let cordon = Taint {
        key: "node.kubernetes.io/unschedulable".into(),
        effect: "NoSchedule".into(),
        ..Taint::default()
    };
    let tolerates = |taint: &Taint| spec.tolerations.iter().flatten().any(|t| tolerates(t, taint));
    if node.unschedulable && !tolerates(&cordon) {
        return vec!["node(s) were unschedulable".into()];
    }
    if spec.node_name.as_ref().is_some_and(|name| !name.is_empty() && *name != node.name) {
        return vec!["node(s) didn't match the requested node name".into()];
    }
    let repels = |taint: &&Taint| ["NoSchedule", "NoExecute"].contains(&taint.effect.as_str());
    if node.taints.iter().filter(repels).any(|taint| !tolerates(taint)) {
        return vec!["node(s) had untolerated taint(s)".into()];
    }
    if !selected(spec, node) {
        return vec!["node(s) didn't match Pod's node affinity/selector".into()];
    }
    let mut short = Vec::new();
    for (name, amount) in asked.iter().filter(|(_, amount)| *amount > 0) {
        if amount > node.free.get(name) {
            short.push(match name {
                "pods" => "Too many pods".to_owned(),
                name => format!("Insufficient {name}"),
            });
        }
    }
    short
}

/// What of a pod this module does not judge, in words.
pub fn not_looked_at(spec: &PodSpec) -> Vec<&'static str> {
    let affinity = spec.affinity.as_ref();
    let near = affinity.and_then(|a| a.pod_affinity.as_ref());
    let far = affinity.and_then(|a| a.pod_anti_affinity.as_ref());
    let near = near.and_then(|a| a.required_during_scheduling_ignored_during_execution.as_ref());
    let far = far.and_then(|a| a.required_during_scheduling_ignored_during_execution.as_ref());
    let has = |list: Option<usize>| list.is_some_and(|n| n > 0);
    let claims = spec.volumes.iter().flatten().any(|volume| volume.persistent_volume_claim.is_some());
    let ports =
        spec.containers.iter().flat_map(|c| c.ports.iter().flatten()).any(|port| port.host_port.is_some());
    [
        (has(near.map(Vec::len)), "affinity to pods"),
        (has(far.map(Vec::len)), "anti-affinity to pods"),
        (has(spec.topology_spread_constraints.as_ref().map(Vec::len)), "topology spread constraints"),
        (claims, "where its volumes are"),
        (ports, "host ports"),
        (has(spec.resource_claims.as_ref().map(Vec::len)), "resource claims"),
    ]
    .into_iter()
    .filter_map(|(has, what)| has.then_some(what))
    .collect()
}

fn tolerates(toleration: &Toleration, taint: &Taint) -> bool {
    let of = |text: &Option<String>| text.clone().unwrap_or_default();
    let (effect, key) = (of(&toleration.effect), of(&toleration.key));
    if !effect.is_empty() && effect != taint.effect || !key.is_empty() && key != taint.key {
        return false;
    }
    match toleration.operator.as_deref() {
        Some("Exists") => true,
        None | Some("" | "Equal") => !key.is_empty() && of(&toleration.value) == of(&taint.value),
        Some(_) => false,
    }
}

fn selected(spec: &PodSpec, node: &Facts) -> bool {
    if spec.node_selector.iter().flatten().any(|(key, value)| node.labels.get(key) != Some(value)) {
        return false;
    }
    let required = spec
        .affinity
        .as_ref()
        .and_then(|affinity| affinity.node_affinity.as_ref())
        .and_then(|affinity| affinity.required_during_scheduling_ignored_during_execution.as_ref());
    required.is_none_or(|selector| selector.node_selector_terms.iter().any(|term| matches(term, node)))
}

/// A term with nothing in it matches nothing, as Kubernetes says.
fn matches(term: &NodeSelectorTerm, node: &Facts) -> bool {
    let labels = term.match_expressions.as_deref().unwrap_or_default();
    let fields = term.match_fields.as_deref().unwrap_or_default();
    let label = |r: &NodeSelectorRequirement| satisfies(r, node.labels.get(&r.key).map(String::as_str));
    let field = |r: &NodeSelectorRequirement| r.key == "metadata.name" && satisfies(r, Some(&node.name));
    !(labels.is_empty() && fields.is_empty()) && labels.iter().all(label) && fields.iter().all(field)
}

fn satisfies(requirement: &NodeSelectorRequirement, value: Option<&str>) -> bool {
    let values = requirement.values.as_deref().unwrap_or_default();
    let listed = |value: &str| values.iter().any(|known| known == value);
    let number = |text: &str| text.parse::<i64>().ok();
    let bound = || values.first().and_then(|text| number(text));
    match requirement.operator.as_str() {
        "In" => value.is_some_and(listed),
        "NotIn" => !value.is_some_and(listed),
        "Exists" => value.is_some(),
        "DoesNotExist" => value.is_none(),
        "Gt" => value.and_then(number).zip(bound()).is_some_and(|(value, bound)| value > bound),
        "Lt" => value.and_then(number).zip(bound()).is_some_and(|(value, bound)| value < bound),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    /// A node of 2 cores, 1 GPU and room for 2 pods in zone a.
    #[track_caller]
    fn check(spec: Value, taints: Value, want: &str) {
        let mut spec = spec;
        spec.as_object_mut().unwrap().entry("containers").or_insert(json!([]));
        let spec: PodSpec = serde_json::from_value(spec).unwrap();
        let quantities =
            serde_json::from_value(json!({ "cpu": "2", "pods": "2", "nvidia.com/gpu": "1" })).unwrap();
        let node = Facts {
            name: "n".into(),
            labels: BTreeMap::from([("zone".into(), "a".into()), ("rank".into(), "7".into())]),
            taints: serde_json::from_value(taints).unwrap(),
            unschedulable: false,
            free: Amounts::of(Some(&quantities)),
        };
        assert_eq!(keeps_off(&spec, &Amounts::of_pod(&spec), &node).join(", "), want);
    }

    #[test]
    fn resources_that_are_short_are_all_named() {
        let asks = |cpu: &str, gpus: &str| json!({ "containers": [{ "name": "c", "resources": { "requests": { "cpu": cpu, "nvidia.com/gpu": gpus } } }] });
        check(asks("2", "1"), json!([]), "");
        check(asks("3", "2"), json!([]), "Insufficient cpu, Insufficient nvidia.com/gpu");
    }

    #[test]
    fn taints_want_tolerations() {
        let taint = json!([{ "key": "gpu", "value": "yes", "effect": "NoSchedule" }]);
        check(json!({}), taint.clone(), "node(s) had untolerated taint(s)");
        for toleration in [
            json!({ "operator": "Exists" }),
            json!({ "key": "gpu", "value": "yes", "effect": "NoSchedule" }),
            json!({ "key": "gpu", "operator": "Exists" }),
        ] {
            check(json!({ "tolerations": [toleration] }), taint.clone(), "");
        }
        check(json!({}), json!([{ "key": "gpu", "effect": "PreferNoSchedule" }]), "");
    }

    #[test]
    fn selectors_and_required_affinity_are_heeded() {
        let no = "node(s) didn't match Pod's node affinity/selector";
        check(json!({ "nodeSelector": { "zone": "b" } }), json!([]), no);
        let affinity = |expressions: Value| {
            json!({ "affinity": { "nodeAffinity": {
            "requiredDuringSchedulingIgnoredDuringExecution": { "nodeSelectorTerms": [{ "matchExpressions": expressions }] } } } })
        };
        for (operator, key, values, want) in [
            ("In", "zone", json!(["a", "b"]), ""),
            ("NotIn", "zone", json!(["a"]), no),
            ("Exists", "zone", json!([]), ""),
            ("DoesNotExist", "zone", json!([]), no),
            ("Gt", "rank", json!(["6"]), ""),
            ("Lt", "rank", json!(["6"]), no),
            ("Strange", "zone", json!([]), no),
        ] {
            check(affinity(json!([{ "key": key, "operator": operator, "values": values }])), json!([]), want);
        }
        check(affinity(json!([])), json!([]), no);
    }

    #[test]
    fn what_is_not_judged_is_named() {
        let spec: PodSpec = serde_json::from_value(json!({ "containers": [],
            "affinity": { "podAntiAffinity": { "requiredDuringSchedulingIgnoredDuringExecution": [{ "topologyKey": "zone" }] } },
            "volumes": [{ "name": "v", "persistentVolumeClaim": { "claimName": "c" } }] })).unwrap();
        assert_eq!(not_looked_at(&spec), ["anti-affinity to pods", "where its volumes are"]);
    }
}
