//! Applying manifests, as `kubectl apply --server-side` does.
//!
//! The tests use the product's own manifests, so that a right that is missing there is missing here.

use std::fs;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result};
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::api::{ApiResource, DynamicObject, Patch, PatchParams};
use kube::core::{GroupVersionKind, TypeMeta};
use kube::discovery::{self, Scope};
use kube::runtime::wait::{await_condition, conditions};
use kube::{Api, Client};
use serde_json::Value;

/// Whose fields these are, for server-side apply.
const FIELD_MANAGER: &str = "stowage-cluster-tests";
/// A CRD is served within a second or so; a very large one takes a busy machine most of a minute.
const ESTABLISHED_LIMIT: Duration = Duration::from_secs(90);

/// Reads the manifests in a folder (`*.yaml` and `*.yml`, in the order of their names; folders below are not
/// read), or in one file. Several documents in a file are fine.
///
/// # Errors
/// When something cannot be read or is no YAML, with the file's name.
pub fn read_manifests(path: &Path) -> Result<Vec<Value>> {
    let mut files = vec![path.to_owned()];
    if path.is_dir() {
        let entries = fs::read_dir(path).with_context(|| format!("cannot read {}", path.display()))?;
        files = entries.flatten().map(|entry| entry.path()).collect();
        files.retain(|file| file.extension().is_some_and(|end| end == "yaml" || end == "yml"));
        files.sort_unstable();
    }
    let mut documents = Vec::new();
    for file in files {
        let text = fs::read_to_string(&file).with_context(|| format!("cannot read {}", file.display()))?;
        documents.extend(parse(&text).with_context(|| format!("in {}", file.display()))?);
    }
    Ok(documents)
}

/// The documents of a YAML text; empty ones are left out.
pub fn parse(yaml: &str) -> Result<Vec<Value>> {
    let documents: Vec<Value> = serde_saphyr::from_multiple(yaml).context("this is no YAML")?;
    Ok(documents.into_iter().filter(|document| !document.is_null()).collect())
}

/// Applies `documents`: namespaces and CRDs first, and not the rest before the CRDs are served.
///
/// # Errors
/// The first document that is refused, with its kind and name.
pub async fn apply(client: &Client, mut documents: Vec<Value>) -> Result<()> {
    documents.sort_by_key(rank);
    for document in documents {
        let label = format!("{} {}", document["kind"], document["metadata"]["name"]);
        apply_one(client, document).await.with_context(|| format!("cannot apply {label}"))?;
    }
    Ok(())
}

fn rank(document: &Value) -> u8 {
    match document["kind"].as_str() {
        Some("Namespace") => 0,
        Some("CustomResourceDefinition") => 1,
        _ => 2,
    }
}

async fn apply_one(client: &Client, document: Value) -> Result<()> {
    let object: DynamicObject = serde_json::from_value(document)?;
    let name = object.metadata.name.clone().context("it has no metadata.name")?;
    let types: &TypeMeta = object.types.as_ref().context("it has no apiVersion and kind")?;
    let kind = GroupVersionKind::try_from(types)?;
    let (resource, capabilities) = discovery::pinned_kind(client, &kind).await?;
    let namespace = match capabilities.scope {
        Scope::Cluster => None,
        Scope::Namespaced => Some(object.metadata.namespace.as_deref().unwrap_or("default")),
    };
    let parameters = PatchParams::apply(FIELD_MANAGER).force();
    api_of(client, &resource, namespace).patch(&name, &parameters, &Patch::Apply(&object)).await?;
    if kind.kind == "CustomResourceDefinition" {
        let definitions: Api<CustomResourceDefinition> = Api::all(client.clone());
        let established = await_condition(definitions, &name, conditions::is_crd_established());
        tokio::time::timeout(ESTABLISHED_LIMIT, established).await.context("it is not established")??;
    }
    Ok(())
}

fn api_of(client: &Client, resource: &ApiResource, namespace: Option<&str>) -> Api<DynamicObject> {
    match namespace {
        None => Api::all_with(client.clone(), resource),
        Some(namespace) => Api::namespaced_with(client.clone(), namespace, resource),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn empty_documents_are_left_out() {
        let documents = parse("# a comment\n---\nkind: Role\n---\n---\nkind: Namespace\n").unwrap();
        let kinds: Vec<_> = documents.iter().map(|document| document["kind"].as_str().unwrap()).collect();
        assert_eq!(kinds, ["Role", "Namespace"]);
    }

    #[test]
    fn the_files_of_a_folder_are_read_in_the_order_of_their_names() {
        let folder = tempfile::tempdir().unwrap();
        for (name, text) in [("b.yaml", "kind: B"), ("a.yml", "kind: A"), ("README.md", "{{")] {
            fs::write(folder.path().join(name), text).unwrap();
        }
        let documents = read_manifests(folder.path()).unwrap();
        assert_eq!(documents, [serde_json::json!({"kind": "A"}), serde_json::json!({"kind": "B"})]);
    }

    #[test]
    fn a_file_that_is_no_yaml_is_named() {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("bad.yaml"), "a: [").unwrap();
        let error = read_manifests(folder.path()).unwrap_err();
        assert!(format!("{error:#}").contains("bad.yaml"), "{error:#}");
    }
}
