//! A pod that somebody tries out, from its YAML or JSON, or from that of what makes such pods.
//!
//! It comes from a person who may do no more than look: bounded before it is parsed, and an error says what would be right.

use serde_json::Value;
use stowage_shared::pod::{OwnAnnotations, PodSpec, PodStatus};

use crate::state::event::{Pod, PodId};

/// Why a text is no pod.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum ManifestError {
    /// Not YAML, and so not JSON either.
    #[error("this is neither YAML nor JSON: {0}")]
    NotYaml(String),
    /// A document without a kind.
    #[error("document {0} has no kind: give a Pod, or a Deployment, ReplicaSet, StatefulSet, Job or CronJob")]
    NoKind(usize),
    /// Nothing that makes pods.
    #[error("no document makes a pod: give a Pod, or a Deployment, ReplicaSet, StatefulSet, Job or CronJob")]
    NoPod,
    /// A spec that is none.
    #[error("the spec of {kind} {name} cannot be read: {why}")]
    Spec {
        /// What it is.
        kind: String,
        /// Its name.
        name: String,
        /// What is wrong.
        why: String,
    },
    /// An annotation that is no text.
    #[error("annotation {key} is {value}: annotations are texts, put it in quotes")]
    Annotation {
        /// Its key.
        key: String,
        /// What it is.
        value: String,
    },
}

/// The first pod that a manifest makes.
pub(super) fn pod(text: &str) -> Result<Pod, ManifestError> {
    let documents: Vec<Value> = serde_saphyr::from_multiple(text)
        .map_err(|error| ManifestError::NotYaml(excerpt(&error.to_string())))?;
    for (number, document) in (1..).zip(&documents) {
        if document.is_null() {
            continue;
        }
        let Some(kind) = document["kind"].as_str() else { return Err(ManifestError::NoKind(number)) };
        let spec = &document["spec"];
        let template = match kind {
            "Pod" => document,
            "Deployment" | "ReplicaSet" | "StatefulSet" | "ReplicationController" | "Job" | "DaemonSet" => {
                &spec["template"]
            }
            "CronJob" => &spec["jobTemplate"]["spec"]["template"],
            _ => continue,
        };
        return read(kind, document, template);
    }
    Err(ManifestError::NoPod)
}

fn read(kind: &str, document: &Value, template: &Value) -> Result<Pod, ManifestError> {
    let meta = &document["metadata"];
    let name = meta["name"].as_str().or(meta["generateName"].as_str()).unwrap_or("pod");
    let namespace = meta["namespace"].as_str().unwrap_or("default");
    let annotations = annotations(&template["metadata"]["annotations"])?;
    let spec = |why: String| ManifestError::Spec { kind: excerpt(kind), name: excerpt(name), why };
    if !template["spec"].is_object() {
        return Err(spec("there is none".into()));
    }
    let mut read: PodSpec = serde_json::from_value(template["spec"].clone())
        .map_err(|error| spec(excerpt(&error.to_string())))?;
    // As if nobody had placed it.
    read.node_name.clear();
    let id = PodId { uid: String::new(), namespace: namespace.to_owned(), name: name.to_owned() };
    Ok(Pod::of(id, false, annotations, read, &PodStatus::default()))
}

fn annotations(all: &Value) -> Result<OwnAnnotations, ManifestError> {
    let text = |(key, value): (&String, &Value)| match value {
        Value::String(text) => Ok((key.clone(), text.clone())),
        other => Err(ManifestError::Annotation { key: excerpt(key), value: excerpt(&other.to_string()) }),
    };
    all.as_object().into_iter().flatten().map(text).collect()
}

fn excerpt(text: &str) -> String {
    text.chars().take(300).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const CONTAINERS: &str =
        r#"{ containers: [ { name: a, resources: { limits: { nvidia.com/gpu: 2 } } } ] }"#;

    #[test]
    fn a_pod_or_what_makes_one_is_read() {
        for (kind, spec) in [
            ("Pod", CONTAINERS.to_owned()),
            ("Deployment", format!("{{ template: {{ spec: {CONTAINERS} }} }}")),
            ("CronJob", format!("{{ jobTemplate: {{ spec: {{ template: {{ spec: {CONTAINERS} }} }} }} }}")),
        ] {
            let text = format!(
                "kind: Service\n---\nkind: {kind}\nmetadata: {{ name: x, namespace: team }}\nspec: {spec}\n"
            );
            let pod = pod(&text).unwrap();
            assert_eq!((&*pod.namespace, &*pod.name, pod.spec.containers.len()), ("team", "x", 1), "{kind}");
        }
        let json = format!(
            r#"{{"kind":"Pod","metadata":{{"annotations":{{"stowage.dev/gpu-memory":"3Gi"}}}},"spec":{CONTAINERS}}}"#
        );
        assert_eq!(pod(&json).unwrap().annotations.get("stowage.dev/gpu-memory"), Some("3Gi"));
    }

    #[test]
    fn what_is_none_is_told_what_would_be() {
        for (text, want) in [
            ("", "no document makes a pod"),
            ("a: [", "neither YAML nor JSON"),
            ("metadata: {}", "document 1 has no kind"),
            ("kind: Service", "no document makes a pod"),
            ("kind: Pod", "the spec of Pod pod cannot be read: there is none"),
            ("kind: Pod\nspec: { containers: 5 }", "the spec of Pod pod cannot be read: invalid type"),
            (
                "kind: Pod\nmetadata: { annotations: { stowage.dev/distinct-gpus: true } }\nspec: {}",
                "put it in quotes",
            ),
        ] {
            let error = pod(text).unwrap_err().to_string();
            assert!(error.contains(want), "{text}: {error}");
        }
    }

    #[test]
    fn a_bomb_is_refused() {
        let mut text = "a: &a [x,x,x,x,x,x,x,x,x]\n".to_owned();
        for (one, two) in ('a'..'l').zip('b'..'m') {
            text +=
                &format!("{two}: &{two} [*{one},*{one},*{one},*{one},*{one},*{one},*{one},*{one},*{one}]\n");
        }
        assert!(matches!(pod(&text), Err(ManifestError::NotYaml(_))));
        assert!(pod(&"[".repeat(100_000)).is_err());
    }
}
