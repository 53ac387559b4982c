//! Pods from a file: as they are, or as the controllers would make them.

use anyhow::{Context, Result, bail};
use k8s_openapi::api::core::v1::{Pod, PodTemplateSpec};
use serde_json::Value;

/// The largest file that is read, in bytes.
pub const FILE_MAX_BYTES: u64 = 8 * 1024 * 1024;
/// The most pods that are asked about at once.
const PODS_MAX: usize = 2_000;

/// The pods of a YAML or JSON file of one or several documents, with the namespace where none is named.
///
/// # Errors
/// Where a document is no YAML, no kind that makes pods, or makes absurdly many.
pub fn pods(text: &str, namespace: &str) -> Result<Vec<Pod>> {
    let documents: Vec<Value> = serde_saphyr::from_multiple(text).context("this is no YAML")?;
    let mut pods = Vec::new();
    for (number, document) in (1..).zip(documents) {
        add(document, namespace, &mut pods).with_context(|| format!("document {number}"))?;
    }
    if pods.is_empty() {
        bail!(
            "no document makes a pod: give a Pod, or a Deployment, ReplicaSet, StatefulSet, Job or CronJob"
        );
    }
    Ok(pods)
}

fn add(mut document: Value, namespace: &str, pods: &mut Vec<Pod>) -> Result<()> {
    if document.is_null() {
        return Ok(());
    }
    let kind = document["kind"].as_str().unwrap_or_default().to_owned();
    let meta = &document["metadata"];
    let name = meta["name"].as_str().or(meta["generateName"].as_str()).unwrap_or("pod").to_owned();
    let namespace = meta["namespace"].as_str().unwrap_or(namespace).to_owned();
    let number = |value: &Value| value.as_u64().and_then(|n| usize::try_from(n).ok());
    let spec = &document["spec"];
    let (count, template) = match kind.as_str() {
        "Pod" => {
            let mut pod: Pod = serde_json::from_value(document).context("the Pod cannot be read")?;
            pod.metadata.namespace = Some(namespace);
            // What only a pod that exists has.
            pod.metadata.uid = None;
            pod.status = None;
            return push(pods, pod);
        }
        "List" => {
            let items = document["items"].as_array_mut().map(std::mem::take).unwrap_or_default();
            return items.into_iter().try_for_each(|item| add(item, &namespace, pods));
        }
        "Deployment" | "ReplicaSet" | "StatefulSet" | "ReplicationController" => {
            (number(&spec["replicas"]).unwrap_or(1), spec["template"].clone())
        }
        "Job" => (parallel(spec), spec["template"].clone()),
        "CronJob" => {
            let job = &spec["jobTemplate"]["spec"];
            (parallel(job), job["template"].clone())
        }
        // What stands in the same file and makes no pods.
        "Service"
        | "ConfigMap"
        | "Secret"
        | "ServiceAccount"
        | "Namespace"
        | "Ingress"
        | "PodDisruptionBudget"
        | "HorizontalPodAutoscaler"
        | "PersistentVolumeClaim"
        | "NetworkPolicy" => return Ok(()),
        "" => bail!("it has no kind"),
        kind => bail!("{kind} is not known to make pods: give its pod template as a Pod"),
    };
    let template: PodTemplateSpec = serde_json::from_value(template)
        .with_context(|| format!("the pod template of {kind} {name} cannot be read"))?;
    // Checked before they are made: a manifest may ask for a billion.
    if count > PODS_MAX {
        bail!("{kind} {name} asks for {count} pods: at most {PODS_MAX} are looked at");
    }
    for n in 0..count {
        let mut metadata = template.metadata.clone().unwrap_or_default();
        metadata.name = Some(format!("{name}-{n}"));
        metadata.namespace = Some(namespace.clone());
        push(pods, Pod { metadata, spec: template.spec.clone(), status: None })?;
    }
    Ok(())
}

/// How many pods of a Job run at once.
fn parallel(spec: &Value) -> usize {
    let number = |value: &Value| value.as_u64().and_then(|n| usize::try_from(n).ok());
    let parallelism = number(&spec["parallelism"]).unwrap_or(1);
    parallelism.min(number(&spec["completions"]).unwrap_or(usize::MAX))
}

fn push(pods: &mut Vec<Pod>, pod: Pod) -> Result<()> {
    if pods.len() >= PODS_MAX {
        bail!("the file makes more than {PODS_MAX} pods");
    }
    pods.push(pod);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(text: &str) -> Result<Vec<String>> {
        let name = |pod: Pod| format!("{}/{}", pod.metadata.namespace.unwrap(), pod.metadata.name.unwrap());
        Ok(pods(text, "default")?.into_iter().map(name).collect())
    }

    const TEMPLATE: &str = "{ metadata: { labels: { a: b } }, spec: { containers: [] } }";

    #[test]
    fn controllers_make_their_pods() {
        let text = format!(
            "kind: Deployment\nmetadata: {{ name: d }}\nspec: {{ replicas: 2, template: {TEMPLATE} }}\n---\n\
             kind: Service\nmetadata: {{ name: s }}\n---\n\
             kind: Job\nmetadata: {{ name: j, namespace: team }}\nspec: {{ parallelism: 5, completions: 1, template: {TEMPLATE} }}\n---\n\
             kind: CronJob\nmetadata: {{ name: c }}\nspec: {{ jobTemplate: {{ spec: {{ template: {TEMPLATE} }} }} }}\n---\n\
             kind: Pod\nmetadata: {{ name: p }}\nspec: {{ containers: [] }}\n"
        );
        assert_eq!(
            names(&text).unwrap(),
            ["default/d-0", "default/d-1", "team/j-0", "default/c-0", "default/p"]
        );
        let list = "kind: List\nitems:\n- kind: Pod\n  metadata: { name: p }\n  spec: { containers: [] }\n";
        assert_eq!(names(list).unwrap(), ["default/p"]);
    }

    #[test]
    fn what_makes_no_pods_says_what_would() {
        for (text, want) in [
            ("kind: Service", "no document makes a pod"),
            ("kind: Rollout", "Rollout is not known to make pods"),
            ("metadata: {}", "it has no kind"),
            ("a: [", "this is no YAML"),
            ("kind: Pod\nspec: 5", "the Pod cannot be read"),
            (
                "kind: Deployment\nspec: { replicas: 999999999, template: { spec: { containers: [] } } }",
                "at most 2000 are looked at",
            ),
        ] {
            let error = format!("{:#}", names(text).unwrap_err());
            assert!(error.contains(want), "{text}: {error}");
        }
    }
}
