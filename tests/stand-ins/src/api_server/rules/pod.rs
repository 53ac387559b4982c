//! The rules for pods: defaults, the quality-of-service class, a spec that hardly changes, and what a
//! status may say.

use serde_json::{Map, Value, json};

use super::super::error::{ApiError, FieldError};
use super::super::object::{self, Object, at, copy_or_remove, list, map_in, text};
use super::super::resources::ResourceType;
use super::{metadata, set_condition};

/// The only parts of a bound or waiting pod's spec that an update may change.
const CHANGEABLE: [&str; 4] =
    ["activeDeadlineSeconds", "tolerations", "terminationGracePeriodSeconds", "schedulingGates"];

const SPEC_IS_FIXED: &str = "pod updates may not change fields other than `spec.containers[*].image`,\
    `spec.initContainers[*].image`,`spec.activeDeadlineSeconds`,`spec.tolerations` (only additions to existing \
    tolerations),`spec.terminationGracePeriodSeconds` (allow it to be set to 1 if it was previously negative)";

pub(super) fn prepare_create(kind: &ResourceType, pod: &mut Value) -> Result<(), ApiError> {
    check_containers(kind, pod)?;
    set_defaults(pod);
    let spec = map_in(pod, "spec");
    // What admission plugins add in a real cluster, where it costs nothing to have it.
    spec.entry("priority").or_insert_with(|| json!(0));
    spec.entry("preemptionPolicy").or_insert_with(|| json!("PreemptLowerPriority"));
    spec.entry("serviceAccountName").or_insert_with(|| json!("default"));
    let class = quality_of_service(pod);
    pod["status"] = json!({ "phase": "Pending", "qosClass": class });
    object::metadata(pod).insert("generation".to_owned(), 1.into());
    if !list(pod, &["spec", "schedulingGates"]).is_empty() {
        set_condition(
            pod,
            json!({
                "type": "PodScheduled",
                "status": "False",
                "reason": "SchedulingGated",
                "message": "Scheduling is blocked due to non-empty scheduling gates",
            }),
        );
    }
    Ok(())
}

pub(super) fn prepare_update(kind: &ResourceType, current: &Object, pod: &mut Value) -> Result<(), ApiError> {
    check_containers(kind, pod)?;
    set_defaults(pod);
    let (old, new) = (&current["spec"], &pod["spec"]);
    if old == new {
        return Ok(());
    }
    let old_gates = list(old, &["schedulingGates"]);
    let gates_only_removed = list(new, &["schedulingGates"]).iter().all(|gate| old_gates.contains(gate));
    let tolerations = list(new, &["tolerations"]);
    let tolerations_only_added = list(old, &["tolerations"]).iter().all(|it| tolerations.contains(it));
    if fixed_part(old) != fixed_part(new) || !gates_only_removed || !tolerations_only_added {
        return Err(ApiError::invalid(kind, current.name(), &FieldError::forbidden("spec", SPEC_IS_FIXED)));
    }
    metadata::bump_generation(pod);
    Ok(())
}

pub(super) fn prepare_status(kind: &ResourceType, current: &Object, pod: &mut Value) -> Result<(), ApiError> {
    copy_or_remove(object::metadata(pod), current.get("metadata"), "ownerReferences");
    let class = current["status"]["qosClass"].clone();
    map_in(pod, "status").entry("qosClass").or_insert(class);

    let path = ["status", "nominatedNodeName"];
    let nominated = text(pod, &path);
    let bound = !text(current, &["spec", "nodeName"]).is_empty();
    if bound && !nominated.is_empty() && nominated != text(current, &path) {
        let why = "may not be set on pods that are already bound to a node";
        let cause = FieldError::forbidden("status.nominatedNodeName", why);
        return Err(ApiError::invalid(kind, current.name(), &cause));
    }
    Ok(())
}

fn check_containers(kind: &ResourceType, pod: &Value) -> Result<(), ApiError> {
    let name = text(pod, &["metadata", "name"]);
    let refuse = |field: &str| Err(ApiError::invalid(kind, name, &FieldError::required(field, "")));
    let containers = list(pod, &["spec", "containers"]);
    if containers.is_empty() {
        return refuse("spec.containers");
    }
    for (index, container) in containers.iter().enumerate() {
        for key in ["name", "image"] {
            if text(container, &[key]).is_empty() {
                return refuse(&format!("spec.containers[{index}].{key}"));
            }
        }
    }
    Ok(())
}

/// What the real server's decoder fills in, as far as schedulers and kubelets look at it.
fn set_defaults(pod: &mut Value) {
    let spec = map_in(pod, "spec");
    for (key, value) in [
        ("restartPolicy", json!("Always")),
        ("terminationGracePeriodSeconds", json!(30)),
        ("dnsPolicy", json!("ClusterFirst")),
        ("schedulerName", json!("default-scheduler")),
        ("securityContext", json!({})),
        ("enableServiceLinks", json!(true)),
    ] {
        spec.entry(key).or_insert(value);
    }
    for key in ["initContainers", "containers"] {
        for container in spec.get_mut(key).and_then(Value::as_array_mut).into_iter().flatten() {
            let resources = map_in(container, "resources");
            let Some(limits) = resources.get("limits").and_then(Value::as_object).cloned() else { continue };
            let requests = resources.entry("requests").or_insert_with(|| json!({}));
            for (name, limit) in limits {
                requests.as_object_mut().map(|requests| requests.entry(name).or_insert(limit));
            }
        }
    }
}

/// The class by which a kubelet evicts: compared as text, so `1` and `1000m` count as different.
fn quality_of_service(pod: &Value) -> &'static str {
    let counted = |resources: &Value, key: &str| -> Map<String, Value> {
        let amounts = at(resources, &[key]).and_then(Value::as_object).cloned().unwrap_or_default();
        let is_counted = |name: &str, amount: &Value| {
            ["cpu", "memory"].contains(&name) && *amount != json!("0") && *amount != json!(0)
        };
        amounts.into_iter().filter(|(name, amount)| is_counted(name, amount)).collect()
    };
    let containers: Vec<_> = ["initContainers", "containers"]
        .iter()
        .flat_map(|key| list(pod, &["spec", key]))
        .map(|container| {
            (counted(&container["resources"], "requests"), counted(&container["resources"], "limits"))
        })
        .collect();
    if containers.iter().all(|(requests, limits)| requests.is_empty() && limits.is_empty()) {
        "BestEffort"
    } else if containers.iter().all(|(requests, limits)| limits.len() == 2 && requests == limits) {
        "Guaranteed"
    } else {
        "Burstable"
    }
}

/// The spec without what may change.
fn fixed_part(spec: &Value) -> Value {
    let mut fixed = spec.clone();
    if let Some(map) = fixed.as_object_mut() {
        CHANGEABLE.iter().for_each(|key| drop(map.remove(*key)));
        for key in ["initContainers", "containers"] {
            for container in map.get_mut(key).and_then(Value::as_array_mut).into_iter().flatten() {
                container.as_object_mut().map(|container| container.remove("image"));
            }
        }
    }
    fixed
}
