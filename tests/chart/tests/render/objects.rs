//! Every object is one that Kubernetes knows, field by field.

use std::collections::BTreeSet;

use k8s_openapi::api::{
    admissionregistration::{v1 as admission, v1alpha1 as early},
    apps::v1 as apps,
    core::v1 as core,
    networking::v1 as networking,
    policy::v1 as policy,
    rbac::v1 as rbac,
};
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1 as extensions;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;
use stowage_chart_tests::helm;

use super::render;

/// Reads an object as that type, and panics where a field is not the type's: it would be lost on the way back.
fn strict<T: DeserializeOwned + Serialize>(object: &Value) {
    let read: T = serde_json::from_value(object.clone()).unwrap_or_else(|error| panic!("{error}: {object}"));
    let back = serde_json::to_value(read).unwrap();
    let mut lost = Vec::new();
    compare(object, &back, "", &mut lost);
    assert!(lost.is_empty(), "{} {}: {lost:?}", object["kind"], object["metadata"]["name"]);
}

fn compare(object: &Value, back: &Value, path: &str, lost: &mut Vec<String>) {
    match (object, back) {
        (Value::Object(object), Value::Object(back)) => {
            for (key, value) in object {
                match back.get(key) {
                    Some(found) => compare(value, found, &format!("{path}.{key}"), lost),
                    // Empty lists and nulls need not come back.
                    None if value.is_null() || value.as_array().is_some_and(Vec::is_empty) => {}
                    None => lost.push(format!("{path}.{key}")),
                }
            }
        }
        (Value::Array(object), Value::Array(back)) if object.len() == back.len() => {
            for (number, (value, found)) in object.iter().zip(back).enumerate() {
                compare(value, found, &format!("{path}[{number}]"), lost);
            }
        }
        // A schema's bounds come back as floating-point numbers.
        _ if object == back || object.is_number() && object.as_f64() == back.as_f64() => {}
        _ => lost.push(path.to_owned()),
    }
}

/// The same for a type that is older in this crate's Kubernetes than in the one that is rendered for.
fn strict_as<T: DeserializeOwned + Serialize>(object: &Value, version: &str) {
    let mut object = object.clone();
    object["apiVersion"] = version.into();
    strict::<T>(&object);
}

fn check(object: &Value) {
    let kind = object["kind"].as_str().unwrap();
    match (object["apiVersion"].as_str().unwrap(), kind) {
        ("v1", "Namespace") => strict::<core::Namespace>(object),
        ("v1", "ServiceAccount") => strict::<core::ServiceAccount>(object),
        ("v1", "ConfigMap") => strict::<core::ConfigMap>(object),
        ("v1", "Service") => strict::<core::Service>(object),
        ("apps/v1", "DaemonSet") => strict::<apps::DaemonSet>(object),
        ("apps/v1", "Deployment") => strict::<apps::Deployment>(object),
        ("policy/v1", "PodDisruptionBudget") => strict::<policy::PodDisruptionBudget>(object),
        ("networking.k8s.io/v1", "NetworkPolicy") => strict::<networking::NetworkPolicy>(object),
        ("rbac.authorization.k8s.io/v1", "Role") => strict::<rbac::Role>(object),
        ("rbac.authorization.k8s.io/v1", "RoleBinding") => strict::<rbac::RoleBinding>(object),
        ("rbac.authorization.k8s.io/v1", "ClusterRole") => strict::<rbac::ClusterRole>(object),
        ("rbac.authorization.k8s.io/v1", "ClusterRoleBinding") => strict::<rbac::ClusterRoleBinding>(object),
        ("apiextensions.k8s.io/v1", "CustomResourceDefinition") => {
            strict::<extensions::CustomResourceDefinition>(object);
        }
        ("admissionregistration.k8s.io/v1", "ValidatingAdmissionPolicy") => {
            strict::<admission::ValidatingAdmissionPolicy>(object);
        }
        ("admissionregistration.k8s.io/v1", "ValidatingAdmissionPolicyBinding") => {
            strict::<admission::ValidatingAdmissionPolicyBinding>(object);
        }
        (
            "admissionregistration.k8s.io/v1" | "admissionregistration.k8s.io/v1beta1",
            "MutatingAdmissionPolicy",
        ) => {
            strict_as::<early::MutatingAdmissionPolicy>(object, "admissionregistration.k8s.io/v1alpha1");
        }
        (
            "admissionregistration.k8s.io/v1" | "admissionregistration.k8s.io/v1beta1",
            "MutatingAdmissionPolicyBinding",
        ) => strict_as::<early::MutatingAdmissionPolicyBinding>(
            object,
            "admissionregistration.k8s.io/v1alpha1",
        ),
        // Prometheus's operator: no crate here has its types.
        ("monitoring.coreos.com/v1", "PodMonitor") => {
            assert_eq!(keys(&object["spec"]), ["podMetricsEndpoints", "selector"]);
        }
        ("monitoring.coreos.com/v1", "ServiceMonitor") => {
            assert_eq!(keys(&object["spec"]), ["endpoints", "selector"]);
        }
        // cert-manager's, field by field as its documentation has them.
        ("cert-manager.io/v1", "Certificate") => {
            let known = ["commonName", "dnsNames", "issuerRef", "privateKey", "secretName", "usages"];
            assert!(keys(&object["spec"]).iter().all(|key| known.contains(key)), "{object}");
        }
        ("monitoring.coreos.com/v1", "PrometheusRule") => assert_eq!(keys(&object["spec"]), ["groups"]),
        (version, kind) => panic!("{version} {kind} is checked nowhere"),
    }
}

fn keys(object: &Value) -> Vec<&str> {
    object.as_object().unwrap().keys().map(String::as_str).collect()
}

#[test]
fn every_object_is_one_that_kubernetes_knows() {
    let shared = r#"config.map={"a":"version: v1"}"#;
    for values in [
        &[][..],
        &["mps.enabled=true", "podMonitor.enabled=true", "schedulerNamePolicy.enabled=true", shared],
        &[
            "serviceMonitor.enabled=true",
            "prometheusRule.enabled=true",
            "dashboards.enabled=true",
            "scheduler.extender.nominate=true",
            "scheduler.extender.preemption=true",
            "scheduler.extender.defrag=true",
            "scheduler.extender.drainScaleDowns=true",
            "gfd.useNodeFeatureAPI=true",
            r#"migStrategy="on-demand""#,
            r#"deviceListStrategy="cdi-cri""#,
            r#"nvidiaDriverRoot="/""#,
            r#"networkPolicy.egress=[{"ports":[{"port":6443}]}]"#,
        ],
        &[
            "scheduler.extender.service.enabled=true",
            r#"scheduler.extender.service.clusterIP="10.96.0.94""#,
            "scheduler.extender.service.certManager.enabled=true",
            r#"scheduler.extender.service.certManager.issuerRef={"name":"any"}"#,
            r#"networkPolicy.verbsFrom=[{"ipBlock":{"cidr":"10.0.0.0/30"}}]"#,
        ],
    ] {
        let objects = helm::objects(&render(values)).unwrap();
        let mut names = BTreeSet::new();
        for object in &objects {
            check(object);
            let namespace = object["metadata"]["namespace"].as_str().unwrap_or_default();
            let name = object["metadata"]["name"].as_str().unwrap();
            let name = format!("{} {namespace}/{name}", object["kind"]);
            assert!(names.insert(name.clone()), "{name} is rendered twice");
            assert_eq!(object["metadata"]["labels"]["app.kubernetes.io/part-of"], "stowage", "{name}");
        }
        for binding in
            objects.iter().filter(|object| object["kind"].as_str().unwrap().ends_with("RoleBinding"))
        {
            let subjects = binding["subjects"].as_array().unwrap().iter();
            for account in subjects.map(|subject| subject["name"].as_str().unwrap()) {
                let account = ["stowage-device-plugin", "stowage-scheduler-extender"]
                    .iter()
                    .find(|name| **name == account);
                assert!(account.is_some(), "{binding} is for nobody's account");
            }
        }
    }
}

#[test]
fn no_name_of_a_namespace_is_left_behind() {
    let text = render(&[r#"namespaces.scheduler.name="one""#, r#"namespaces.devicePlugin.name="two""#]);
    for object in helm::objects(&text).unwrap() {
        let namespace = object["metadata"]["namespace"].as_str().unwrap_or("one");
        assert!(["one", "two", "default", "kube-system"].contains(&namespace), "{object}");
    }
    assert!(!text.contains("stowage-system") && !text.contains("serviceaccount:stowage"), "{text}");
}
