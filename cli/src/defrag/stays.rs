//! Which pods must stay where they are, and why: the rules of `stowage_shared::moves::stays`, asked of API objects.

use k8s_openapi::api::core::v1::Volume;
use k8s_openapi::api::policy::v1::PodDisruptionBudget;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{LabelSelector, OwnerReference};
use stowage_shared::moves::stays::{self, Tenant, Ties};

use super::Options;
use crate::world::{PodFacts, in_tree};

/// The pod's controller.
pub fn controller(pod: &PodFacts) -> Option<&OwnerReference> {
    let owners = pod.object.metadata.owner_references.iter().flatten();
    owners.into_iter().find(|owner| owner.controller == Some(true))
}

/// Why a pod must stay; `None` where it may be moved.
pub fn why_it_stays(pod: &PodFacts, budgets: &[PodDisruptionBudget], options: &Options) -> Option<String> {
    let local_storage = pod.spec().volumes.iter().flatten().any(is_local);
    let not_looked_at = in_tree::not_looked_at(pod.spec());
    let tenant = Tenant {
        ties: Ties::read(|key| pod.annotation(key), local_storage),
        runs: pod.object.metadata.deletion_timestamp.is_none() && pod.phase() == "Running",
        priority: pod.priority(),
        controller: controller(pod).map(|owner| owner.kind.as_str()),
        ours: pod.is_ours,
        has_policies: !pod.policy.as_ref().is_ok_and(|policy| policy.is_default()),
        not_looked_at: not_looked_at.first().copied(),
    };
    let matching = budgets.iter().filter(|budget| covers(budget, pod));
    let matching =
        matching.map(|budget| (budget.metadata.name.as_deref().unwrap_or_default(), allowed(budget)));
    stays::why_it_stays(&tenant, matching, options.stateful_sets).map(|why| why.to_string())
}

/// What is gone with the pod. Memory, as for `/dev/shm`, holds nothing that a restart would miss.
fn is_local(volume: &Volume) -> bool {
    let scratch = volume.empty_dir.as_ref().is_some_and(|dir| dir.medium.as_deref() != Some("Memory"));
    scratch || volume.host_path.is_some()
}

fn allowed(budget: &PodDisruptionBudget) -> i64 {
    budget.status.as_ref().map_or(0, |status| status.disruptions_allowed.into())
}

/// Whether a budget is about a pod. No selector selects none, an empty one all of its namespace.
fn covers(budget: &PodDisruptionBudget, pod: &PodFacts) -> bool {
    let selector = budget.spec.as_ref().and_then(|spec| spec.selector.as_ref());
    budget.metadata.namespace.as_deref() == Some(pod.namespace())
        && selector.is_some_and(|selector| selects(selector, pod))
}

fn selects(selector: &LabelSelector, pod: &PodFacts) -> bool {
    let label = |key: &str| pod.object.metadata.labels.as_ref().and_then(|labels| labels.get(key));
    let equal = selector.match_labels.iter().flatten().all(|(key, value)| label(key) == Some(value));
    let holds = selector.match_expressions.iter().flatten().all(|requirement| {
        let values = requirement.values.as_deref().unwrap_or_default();
        let value = label(&requirement.key);
        match requirement.operator.as_str() {
            "In" => value.is_some_and(|value| values.contains(value)),
            "NotIn" => !value.is_some_and(|value| values.contains(value)),
            "Exists" => value.is_some(),
            "DoesNotExist" => value.is_none(),
            // What we do not understand may well cover the pod.
            _ => true,
        }
    });
    equal && holds
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};
    use stowage_shared::belief::GpuNames;
    use stowage_shared::contract::SAFE_TO_EVICT_ANNOTATION;

    use super::*;
    use crate::schedulers::Schedulers;

    /// A pod of a ReplicaSet that runs, with something changed; and why it stays.
    #[track_caller]
    fn check(change: impl FnOnce(&mut Value), budgets: Value, want: Option<&str>) {
        let mut pod = json!({
            "metadata": { "name": "p", "namespace": "n", "uid": "u", "labels": { "app": "a" }, "annotations": {},
                "ownerReferences": [{ "apiVersion": "apps/v1", "kind": "ReplicaSet", "name": "r", "uid": "r", "controller": true }] },
            "spec": { "schedulerName": "stowage-scheduler", "nodeName": "node", "volumes": [],
                "containers": [{ "name": "c", "resources": { "limits": { "nvidia.com/gpu": "1" } } }] },
            "status": { "phase": "Running" },
        });
        change(&mut pod);
        let pod =
            PodFacts::of(serde_json::from_value(pod).unwrap(), &GpuNames::default(), &Schedulers::default());
        let budgets: Vec<PodDisruptionBudget> = serde_json::from_value(budgets).unwrap();
        let why = why_it_stays(&pod, &budgets, &Options::default());
        assert_eq!(why.as_deref(), want);
    }

    fn budget(name: &str, allowed: i32, selector: Value) -> Value {
        json!({ "metadata": { "name": name, "namespace": "n" }, "spec": { "selector": selector },
            "status": { "disruptionsAllowed": allowed, "currentHealthy": 1, "desiredHealthy": 1, "expectedPods": 1 } })
    }

    #[test]
    fn a_pod_that_comes_back_may_be_moved_and_others_say_why_not() {
        let none = json!([]);
        check(|_| {}, none.clone(), None);
        let owner = |kind: &'static str| {
            move |pod: &mut Value| pod["metadata"]["ownerReferences"][0]["kind"] = kind.into()
        };
        check(owner("DaemonSet"), none.clone(), Some("a DaemonSet runs it on its node"));
        check(owner("StatefulSet"), none.clone(), Some("it is of a StatefulSet (--stateful-sets)"));
        check(owner("Job"), none.clone(), Some("it is of a Job, whose work would be lost"));
        let set =
            |path: &'static str, value: Value| move |pod: &mut Value| *pod.pointer_mut(path).unwrap() = value;
        check(
            set("/metadata/ownerReferences", json!([])),
            none.clone(),
            Some("no controller would make it again"),
        );
        check(set("/status/phase", json!("Pending")), none.clone(), Some("it does not run"));
        check(set("/spec/schedulerName", json!("x")), none.clone(), Some("another scheduler would place it"));
        check(
            set("/spec/volumes", json!([{ "name": "v", "emptyDir": {} }])),
            none.clone(),
            Some("it has local storage"),
        );
        check(
            set("/spec/volumes", json!([{ "name": "v", "emptyDir": { "medium": "Memory" } }])),
            none.clone(),
            None,
        );
        let annotated = |key: &'static str, value: &'static str| {
            move |pod: &mut Value| pod["metadata"]["annotations"][key] = value.into()
        };
        check(
            annotated("stowage.dev/disruptable", "false"),
            none.clone(),
            Some("stowage.dev/disruptable is \"false\""),
        );
        check(
            annotated(SAFE_TO_EVICT_ANNOTATION, "false"),
            none.clone(),
            Some("cluster-autoscaler.kubernetes.io/safe-to-evict is \"false\""),
        );
        check(
            annotated("stowage.dev/share-with", "namespace"),
            none,
            Some("it has placement policies, which the search does not weigh"),
        );
    }

    #[test]
    fn the_author_may_agree_to_more() {
        let job = |pod: &mut Value| {
            pod["metadata"]["ownerReferences"][0]["kind"] = "Job".into();
            pod["metadata"]["annotations"]["stowage.dev/disruptable"] = "true".into();
            pod["spec"]["volumes"] = json!([{ "name": "v", "hostPath": { "path": "/tmp" } }]);
        };
        check(job, json!([]), None);
    }

    #[test]
    fn budgets_are_honoured() {
        let of_app = || json!({ "matchLabels": { "app": "a" } });
        let spent = Some("the PodDisruptionBudget b allows no disruption now");
        check(|_| {}, json!([budget("b", 1, of_app())]), None);
        check(|_| {}, json!([budget("b", 0, of_app())]), spent);
        check(|_| {}, json!([budget("b", 0, json!({}))]), spent);
        check(|_| {}, json!([budget("b", 0, json!({ "matchLabels": { "app": "other" } }))]), None);
        let expression = |operator: &str| json!({ "matchExpressions": [{ "key": "app", "operator": operator, "values": ["a"] }] });
        check(|_| {}, json!([budget("b", 0, expression("In"))]), spent);
        check(|_| {}, json!([budget("b", 0, expression("NotIn"))]), None);
        let several = Some("several PodDisruptionBudgets cover it, and eviction is refused");
        check(|_| {}, json!([budget("b", 1, of_app()), budget("c", 1, of_app())]), several);
    }
}
