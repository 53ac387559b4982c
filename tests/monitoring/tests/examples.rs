//! Examples are what the API server takes, field by field, and do what their page says.
#![allow(clippy::unwrap_used)]

use std::collections::BTreeSet;

use k8s_openapi::api::{apps, autoscaling, batch, core, networking, policy, rbac};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;
use stowage_monitoring_tests::{files, text};

const FOLDER: &str = "deploy/examples";

/// An object and its file.
type Example = (String, Value);

fn objects() -> Vec<Example> {
    let mut all = Vec::new();
    for file in files(FOLDER, "yaml").unwrap() {
        let documents: Vec<Value> = serde_saphyr::from_multiple(&text(&file).unwrap()).unwrap();
        assert!(!documents.is_empty(), "{file}");
        all.extend(documents.into_iter().map(|object| (file.clone(), object)));
    }
    assert!(all.len() > 40, "{}", all.len());
    all
}

/// Reads an object as its type, and compares what the type has kept: what it does not know is gone.
#[track_caller]
fn strictly<T: DeserializeOwned + Serialize>(file: &str, object: &Value) {
    let read: T =
        serde_json::from_value(object.clone()).unwrap_or_else(|error| panic!("{file}: {error}: {object}"));
    let kept = serde_json::to_value(read).unwrap();
    if let Some(lost) = lost(object, &kept, String::new()) {
        panic!("{file}: Kubernetes knows no {lost}");
    }
}

/// The path of the first field of one that is not in the other.
fn lost(one: &Value, other: &Value, at: String) -> Option<String> {
    match (one, other) {
        (Value::Object(fields), Value::Object(others)) => fields.iter().find_map(|(key, value)| {
            let at = format!("{at}.{key}");
            others.get(key).map_or(Some(at.clone()), |other| lost(value, other, at.clone()))
        }),
        (Value::Array(items), Value::Array(others)) if items.len() == others.len() => items
            .iter()
            .zip(others)
            .enumerate()
            .find_map(|(n, (item, other))| lost(item, other, format!("{at}[{n}]"))),
        // A quantity may be written as a number, and is kept as text.
        (Value::Number(number), Value::String(text)) if number.to_string() == *text => None,
        _ => (one != other).then(|| format!("{at}: {one}")),
    }
}

/// Fields that an operator's objects must have, as JSON pointers.
fn has(file: &str, object: &Value, pointers: &[&str]) {
    for pointer in pointers {
        assert!(object.pointer(pointer).is_some_and(|value| !value.is_null()), "{file} lacks {pointer}");
    }
}

fn is_valid(file: &str, object: &Value) {
    let word = |key: &str| object[key].as_str().unwrap_or_else(|| panic!("{file} has no {key}"));
    has(file, object, &["/metadata/name"]);
    match (word("apiVersion"), word("kind")) {
        ("apps/v1", "Deployment") => strictly::<apps::v1::Deployment>(file, object),
        ("apps/v1", "StatefulSet") => strictly::<apps::v1::StatefulSet>(file, object),
        ("apps/v1", "DaemonSet") => strictly::<apps::v1::DaemonSet>(file, object),
        ("batch/v1", "Job") => strictly::<batch::v1::Job>(file, object),
        ("v1", "Service") => strictly::<core::v1::Service>(file, object),
        ("v1", "ConfigMap") => strictly::<core::v1::ConfigMap>(file, object),
        ("v1", "ServiceAccount") => strictly::<core::v1::ServiceAccount>(file, object),
        ("policy/v1", "PodDisruptionBudget") => strictly::<policy::v1::PodDisruptionBudget>(file, object),
        ("networking.k8s.io/v1", "Ingress") => strictly::<networking::v1::Ingress>(file, object),
        ("rbac.authorization.k8s.io/v1", "ClusterRole") => strictly::<rbac::v1::ClusterRole>(file, object),
        ("rbac.authorization.k8s.io/v1", "ClusterRoleBinding") => {
            strictly::<rbac::v1::ClusterRoleBinding>(file, object);
        }
        ("autoscaling/v2", "HorizontalPodAutoscaler") => {
            strictly::<autoscaling::v2::HorizontalPodAutoscaler>(file, object);
        }
        ("keda.sh/v1alpha1", "ScaledObject") => is_scaled_object(file, object),
        ("keda.sh/v1alpha1", "TriggerAuthentication") => has(file, object, &["/spec/secretTargetRef/0/key"]),
        ("networking.istio.io/v1", "VirtualService") => {
            has(file, object, &["/spec/hosts/0", "/spec/http/0/route/0/destination/host"]);
        }
        ("networking.istio.io/v1", "DestinationRule") => {
            has(file, object, &["/spec/host", "/spec/subsets/0/name"])
        }
        ("serving.kserve.io/v1beta1", "InferenceService") => {
            has(
                file,
                object,
                &["/spec/predictor/model/modelFormat/name", "/spec/predictor/model/storageUri"],
            );
        }
        other => panic!("{file}: {other:?} is not looked at"),
    }
}

/// KEDA wants every value of a trigger's metadata to be text, and of each type some.
fn is_scaled_object(file: &str, object: &Value) {
    has(file, object, &["/spec/scaleTargetRef/name", "/spec/minReplicaCount", "/spec/maxReplicaCount"]);
    for trigger in object["spec"]["triggers"].as_array().unwrap() {
        let wanted: &[&str] = match trigger["type"].as_str().unwrap() {
            "kafka" => &["bootstrapServers", "consumerGroup", "topic", "lagThreshold"],
            "rabbitmq" => &["queueName", "mode", "value"],
            "prometheus" => &["serverAddress", "query", "threshold"],
            other => panic!("{file}: a trigger {other}"),
        };
        let metadata = trigger["metadata"].as_object().unwrap();
        assert!(wanted.iter().all(|key| metadata.contains_key(*key)), "{file}: {trigger}");
        assert!(metadata.values().all(Value::is_string), "{file}: {trigger}");
    }
}

#[test]
fn every_object_is_what_its_kind_knows() {
    objects().iter().for_each(|(file, object)| is_valid(file, object));
}

#[test]
#[should_panic(expected = "Kubernetes knows no .spec.template.spec.containers[0].resource")]
fn a_field_that_kubernetes_does_not_know_is_refused() {
    let (file, mut object) = objects().into_iter().find(|(file, _)| file.ends_with("/bert.yaml")).unwrap();
    object["spec"]["template"]["spec"]["containers"][0]["resource"] = serde_json::json!({});
    is_valid(&file, &object);
}

/// The pods of an object, if it makes some: a pod's spec and its labels.
fn pods(object: &Value) -> Option<(&Value, &Value)> {
    match object["kind"].as_str()? {
        "InferenceService" => Some((&object["spec"]["predictor"], &Value::Null)),
        _ => {
            let template = object.pointer("/spec/template")?;
            Some((&template["spec"], &template["metadata"]["labels"]))
        }
    }
}

fn containers(spec: &Value) -> Vec<&Value> {
    let lists = ["initContainers", "containers"].map(|key| spec[key].as_array());
    lists.into_iter().flatten().flatten().chain(spec.get("model")).collect()
}

fn asks_for_gpus(container: &Value) -> bool {
    let limits = container["resources"]["limits"].as_object();
    limits.is_some_and(|limits| limits.keys().any(|key| key.starts_with("nvidia.com/")))
}

#[test]
fn every_pod_with_a_gpu_says_who_places_it() {
    let mut with_gpus = 0;
    for (file, object) in objects() {
        let Some((spec, _)) = pods(&object) else { continue };
        if containers(spec).into_iter().any(asks_for_gpus) {
            assert_eq!(spec["schedulerName"], "stowage-scheduler", "{file}");
            with_gpus += 1;
        }
    }
    assert!(with_gpus >= 12, "{with_gpus}");
}

#[test]
fn every_container_has_bounds_and_every_server_is_asked_whether_it_works() {
    for (file, object) in objects() {
        let Some((spec, _)) = pods(&object) else { continue };
        for container in containers(spec) {
            has(&file, container, &["/resources/requests/memory", "/resources/limits/memory"]);
            let serves = container.get("ports").is_some();
            let asked =
                ["readinessProbe", "livenessProbe"].iter().all(|probe| container.get(*probe).is_some());
            assert!(asked || !serves, "{file}: {}", container["name"]);
        }
    }
}

/// Whether the labels of a selector are all among a pod's.
fn selects(selector: &Value, labels: &Value) -> bool {
    selector.as_object().unwrap().iter().all(|(key, value)| labels[key] == *value)
}

#[test]
fn services_and_scalers_find_whom_they_are_for() {
    let all = objects();
    let labels: Vec<&Value> =
        all.iter().filter_map(|(_, object)| pods(object).map(|(_, labels)| labels)).collect();
    let names: BTreeSet<&str> = all
        .iter()
        .filter(|(_, object)| pods(object).is_some())
        .filter_map(|(_, object)| object["metadata"]["name"].as_str())
        .collect();
    for (file, object) in &all {
        if object["kind"] == "Service" {
            assert!(labels.iter().any(|labels| selects(&object["spec"]["selector"], labels)), "{file}");
        }
        if let Some(target) = object.pointer("/spec/scaleTargetRef/name").and_then(Value::as_str) {
            assert!(names.contains(target), "{file} scales {target}");
        }
        if let Some(selector) =
            object.pointer("/spec/selector/matchLabels").filter(|_| pods(object).is_some())
        {
            assert!(selects(selector, pods(object).unwrap().1), "{file}");
        }
    }
}

#[test]
fn objects_have_names_of_their_own() {
    let mut seen = BTreeSet::new();
    for (file, object) in objects() {
        let id = (object["kind"].to_string(), object["metadata"]["name"].to_string());
        assert!(
            seen.insert(id.clone()),
            "{file}: {id:?} stands there twice: the examples can be applied together"
        );
    }
}

#[test]
fn the_bounds_are_those_that_the_page_promises() {
    let at = |name: &str, kind: &str, pointer: &str| {
        let found =
            objects().into_iter().find(|(file, object)| file.ends_with(name) && object["kind"] == kind);
        found.unwrap().1.pointer(pointer).cloned().unwrap()
    };
    assert_eq!(at("/bert.yaml", "Deployment", "/spec/replicas"), 3);
    for (pointer, value) in [
        ("/spec/minReplicas", 2),
        ("/spec/maxReplicas", 20),
        ("/spec/metrics/0/resource/target/averageUtilization", 70),
    ] {
        assert_eq!(at("/hpa-memory.yaml", "HorizontalPodAutoscaler", pointer), value);
    }
    let metadata = "/spec/triggers/0/metadata";
    assert_eq!(at("/keda-kafka.yaml", "ScaledObject", &format!("{metadata}/lagThreshold")), "100");
    assert_eq!(at("/keda-kafka.yaml", "ScaledObject", "/spec/minReplicaCount"), 2);
    assert_eq!(at("/keda-kafka.yaml", "ScaledObject", "/spec/maxReplicaCount"), 50);
    assert_eq!(at("/keda-rabbitmq.yaml", "ScaledObject", &format!("{metadata}/value")), "1000");
    let weight = |n: usize| at("/ab-istio.yaml", "VirtualService", &format!("/spec/http/0/route/{n}/weight"));
    assert_eq!((weight(0), weight(1)), (90.into(), 10.into()));
}

/// With `minAvailable` a node could not be drained where a scaler leaves one replica.
#[test]
fn budgets_let_one_pod_go_however_few_there_are() {
    for (file, object) in objects() {
        if object["kind"] == "PodDisruptionBudget" {
            assert_eq!(object["spec"]["maxUnavailable"], 1, "{file}");
        }
    }
}

/// Whoever reaches management may load a model, which is to run code; the image's own file serves it to everybody.
#[test]
fn torchserve_is_managed_from_inside_its_pod_only() {
    let all: Vec<Value> = objects()
        .into_iter()
        .filter_map(|(file, object)| file.ends_with("/torchserve.yaml").then_some(object))
        .collect();
    let find = |kind: &str| all.iter().find(|object| object["kind"] == kind).unwrap();
    let file = find("ConfigMap")["data"]["config.properties"].as_str().unwrap();
    assert!(file.contains("management_address=http://127.0.0.1:8081\n"), "{file}");
    let (pod, _) = pods(find("Deployment")).unwrap();
    let server = containers(pod)[0];
    let given = server["args"].as_array().unwrap().iter().filter_map(Value::as_str);
    let named: Vec<&str> = given.filter_map(|argument| argument.strip_prefix("--ts-config=")).collect();
    let mounts = server["volumeMounts"].as_array().unwrap().iter();
    let mounted = mounts.filter(|mount| mount["name"] == "config").map(|mount| mount["mountPath"].as_str());
    let mounted: Vec<String> =
        mounted.map(|folder| format!("{}/config.properties", folder.unwrap())).collect();
    assert_eq!(named, mounted);
    let volumes = pod["volumes"].as_array().unwrap().iter();
    let of_map =
        volumes.filter(|volume| volume["configMap"]["name"] == find("ConfigMap")["metadata"]["name"]);
    assert_eq!(of_map.map(|volume| &volume["name"]).collect::<Vec<_>>(), ["config"]);
    // What others ask for is served to them.
    for port in server["ports"].as_array().unwrap() {
        let served = format!("_address=http://0.0.0.0:{}\n", port["containerPort"]);
        assert!(file.contains(&served), "{served} is not in {file}");
    }
}

#[test]
fn the_index_lists_every_example_once() {
    let index = text(&format!("{FOLDER}/README.md")).unwrap();
    let alerts = "deploy/examples/alerts";
    for file in files(FOLDER, "yaml").unwrap().into_iter().chain(files(alerts, "yaml").unwrap()) {
        let name = file.strip_prefix("deploy/examples/").unwrap();
        assert_eq!(index.matches(&format!("]({name})")).count(), 1, "{FOLDER}/README.md lists {name}");
    }
}
