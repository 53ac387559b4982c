//! Objects for operators are what the operators' own CRDs take: KEDA's, Istio's, KServe's, those of Prometheus's operator, of
//! Argo CD and of Flux.

use std::collections::BTreeSet;
use std::path::Path;

use anyhow::{Context, Result, ensure};
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::Api;
use kube::api::{DeleteParams, DynamicObject, Patch, PatchParams, ValidationDirective};
use kube::core::GroupVersionKind;
use kube::discovery;
use serde_json::{Value, json};
use stowage_chart_tests::{files, helm};
use stowage_cluster_tests::operators::OPERATORS;
use stowage_cluster_tests::{Cluster, Scenario, apply, scenarios};

use super::Stage;
use super::stowage::deploy;

pub(crate) fn all() -> Vec<Scenario<Stage>> {
    scenarios![objects_for_operators_are_what_their_crds_take]
}

/// One mistake for each kind: where something is set, and what. Each must be refused.
const MISTAKES: [(&str, &str, &str); 14] = [
    ("ScaledObject", "/spec/triggers/0/metadatas", "{}"),
    ("ScaledObject", "/spec/maxReplicaCount", r#""many""#),
    ("TriggerAuthentication", "/spec/secretTargetRef/0/keys", r#""host""#),
    ("VirtualService", "/spec/http/0/route/0/weigth", "90"),
    ("DestinationRule", "/spec/subsets/0/label", "{}"),
    ("InferenceService", "/spec/predictor/model/storageURI", r#""pvc://models""#),
    ("InferenceService", "/spec/predictor/minReplicas", r#""one""#),
    ("PodMonitor", "/spec/podMetricsEndpoints/0/relabelings/0/targetLabels", r#""node""#),
    ("ServiceMonitor", "/spec/endpoints/0/honorLabel", "true"),
    ("PrometheusRule", "/spec/groups/0/rules/0/label", "{}"),
    ("Application", "/spec/source/helm/valueObject", "{}"),
    ("GitRepository", "/spec/ref/tags", r#""v0.1.0""#),
    ("GitRepository", "/spec/interval", r#""now and then""#),
    ("HelmRelease", "/spec/upgrade/remediation/strategy", r#""forward""#),
];

async fn objects_for_operators_are_what_their_crds_take(stage: &mut Stage) -> Result<()> {
    let cluster = &stage.cluster;
    let mut definitions = Vec::new();
    for operator in OPERATORS {
        match operator.crds() {
            Ok(files) => {
                for file in files {
                    definitions.extend(apply::read_manifests(&file)?);
                }
            }
            Err(why) => eprintln!("SKIPPED: nothing is compared with {}: {why:#}", operator.name),
        }
    }
    let objects = objects()?;
    let (known, wanted) = (kinds(&definitions), objects.iter().map(kind).collect::<BTreeSet<_>>());
    definitions.retain(|definition| {
        kinds(std::slice::from_ref(definition)).iter().any(|kind| wanted.contains(kind))
    });
    let definitions: Vec<Value> = definitions.into_iter().map(bare).collect();
    cluster.apply(definitions.clone()).await?;
    let (mut taken, mut mistakes) = (BTreeSet::new(), 0);
    for object in objects.iter().filter(|object| known.contains(&kind(object))) {
        try_out(cluster, object).await?;
        taken.insert(kind(object));
        for (_, pointer, value) in MISTAKES.iter().filter(|(of, ..)| object["kind"] == *of) {
            is_refused(cluster, object, pointer, value).await?;
            mistakes += 1;
        }
    }
    let skipped: Vec<_> = wanted.difference(&taken).collect();
    eprintln!(
        "{} objects of {} kinds; {mistakes} mistakes refused; without CRD: {skipped:?}",
        objects.len(),
        taken.len()
    );
    ensure!(taken.len() >= 8, "only {taken:?} were compared with anything");
    let api: Api<CustomResourceDefinition> = Api::all(cluster.client());
    for definition in &definitions {
        let name = definition["metadata"]["name"].as_str().context("a CRD without a name")?;
        api.delete(name, &DeleteParams::default()).await?;
    }
    Ok(())
}

/// A kind with its group, such as `keda.sh/ScaledObject`.
fn kind(object: &Value) -> String {
    let word = |key: &str| object[key].as_str().unwrap_or_default();
    format!("{}/{}", word("apiVersion").split('/').next().unwrap_or_default(), word("kind"))
}

/// The kinds that CRDs define.
fn kinds(definitions: &[Value]) -> BTreeSet<String> {
    let of = |definition: &Value| {
        let word = |pointer: &str| {
            definition.pointer(pointer).and_then(Value::as_str).unwrap_or_default().to_owned()
        };
        format!("{}/{}", word("/spec/group"), word("/spec/names/kind"))
    };
    definitions.iter().map(of).collect()
}

/// A CRD without its conversion, for which its operator would have to be there, and without descriptions: with them some are
/// larger than etcd takes.
fn bare(mut definition: Value) -> Value {
    if let Some(spec) = definition["spec"].as_object_mut() {
        spec.remove("conversion");
    }
    drop_descriptions(&mut definition);
    definition
}

fn drop_descriptions(of: &mut Value) {
    match of {
        Value::Object(fields) => {
            // A property of that name is an object.
            fields.retain(|key, value| key != "description" || !value.is_string());
            fields.values_mut().for_each(drop_descriptions);
        }
        Value::Array(items) => items.iter_mut().for_each(drop_descriptions),
        _ => {}
    }
}

/// The objects of `deploy/` for operators: examples, GitOps, and what the chart renders with everything on.
fn objects() -> Result<Vec<Value>> {
    let mut all = apply::read_manifests(&deploy().join("examples"))?;
    all.extend(apply::read_manifests(&deploy().join("gitops"))?);
    for monitor in ["podMonitor", "serviceMonitor"] {
        let values = format!("{monitor}.enabled=true,prometheusRule.enabled=true");
        all.extend(helm::objects(&helm::template(Path::new(&files::chart()), ["--set", &values])?)?);
    }
    let is_kubernetes = |object: &Value| {
        let group = kind(object).split('/').next().unwrap_or_default().to_owned();
        !group.contains('.') || group.ends_with(".k8s.io")
    };
    all.retain(|object| !is_kubernetes(object));
    ensure!(all.len() >= 20, "only {} objects are for operators", all.len());
    Ok(all)
}

/// Asks the API server whether it would take an object.
async fn try_out(cluster: &Cluster, object: &Value) -> Result<()> {
    let label = format!("{} {}", kind(object), object["metadata"]["name"]);
    let mut object: DynamicObject = serde_json::from_value(object.clone())?;
    // Namespaces of others are not there, and nobody is asked for more than an opinion.
    object.metadata.namespace = None;
    let gvk = GroupVersionKind::try_from(object.types.as_ref().context("no kind")?)?;
    let (resource, _) = discovery::pinned_kind(&cluster.client(), &gvk).await?;
    let api: Api<DynamicObject> = Api::namespaced_with(cluster.client(), "default", &resource);
    let mut parameters = PatchParams::apply("stowage-cluster-tests").force().dry_run();
    parameters.field_validation = Some(ValidationDirective::Strict);
    let name = object.metadata.name.clone().context("no name")?;
    api.patch(&name, &parameters, &Patch::Apply(&object))
        .await
        .with_context(|| format!("{label} is not taken"))?;
    Ok(())
}

/// Sets something wrong, and expects the API server to name it.
async fn is_refused(cluster: &Cluster, object: &Value, pointer: &str, value: &str) -> Result<()> {
    let (parent, field) = pointer.rsplit_once('/').context("no pointer")?;
    let mut wrong = object.clone();
    let place = wrong.pointer_mut(parent).and_then(Value::as_object_mut);
    let place = place.with_context(|| format!("{} has no {parent}", kind(object)))?;
    place.insert(field.to_owned(), serde_json::from_str(value).unwrap_or(json!(value)));
    let error = try_out(cluster, &wrong).await.err();
    let error = error.with_context(|| format!("{} is taken with {pointer}: {value}", kind(object)))?;
    ensure!(
        format!("{error:#}").contains(field),
        "{} with {pointer} is refused, but: {error:#}",
        kind(object)
    );
    Ok(())
}
