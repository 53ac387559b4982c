//! The few calls of the API server that are made by the thousand: bodies as they are, answers hardly read.

use anyhow::{Context, Result};
use http::Request;
use kube::Client;
use kube::core::PartialObjectMeta;
use serde_json::Value;
use stowage_shared::contract::{API_GROUP, API_VERSION};
use stowage_shared::gpu_node::PLURAL;

/// Where nodes are.
pub(crate) const NODES: &str = "/api/v1/nodes";
/// Where the pods of the default namespace are.
pub(crate) const PODS: &str = "/api/v1/namespaces/default/pods";

/// Where GpuNodes are.
pub(crate) fn gpu_nodes() -> String {
    format!("/apis/{API_GROUP}/{API_VERSION}/{PLURAL}")
}

/// Creates an object and returns its UID.
pub(crate) async fn create(client: &Client, path: &str, object: &Value) -> Result<String> {
    let request = Request::post(path).header("Content-Type", "application/json").body(object.to_string())?;
    let created: PartialObjectMeta = client
        .request(request.map(String::into_bytes))
        .await
        .with_context(|| format!("cannot create {} at {path}", object["metadata"]["name"]))?;
    created.metadata.uid.context("an object without a UID")
}

/// Merges `change` into an object, or into what its path names of it.
pub(crate) async fn merge(client: &Client, path: &str, change: &Value) -> Result<(), kube::Error> {
    let request = Request::patch(path)
        .header("Content-Type", "application/merge-patch+json")
        .body(change.to_string().into_bytes())
        .map_err(kube::Error::HttpError)?;
    client.request::<PartialObjectMeta>(request).await.map(drop)
}

/// Deletes a pod at once; one that is gone is no error.
pub(crate) async fn delete_pod(client: &Client, name: &str) -> Result<()> {
    let request = Request::delete(format!("{PODS}/{name}?gracePeriodSeconds=0")).body(Vec::new())?;
    match client.request_text(request).await {
        Err(kube::Error::Api(status)) if status.code == 404 => Ok(()),
        other => other.map(drop).with_context(|| format!("cannot delete pod {name}")),
    }
}
