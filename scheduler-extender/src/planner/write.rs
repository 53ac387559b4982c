//! The one write of a nomination: `status.nominatedNodeName`, and nothing else of the pod.

use std::time::Duration;

use kube::Client;
use kube::api::{Patch, PatchParams};
use serde_json::{Value, json};

use crate::binding::post::{PostError, pods};
use crate::book::feed::Desk;
use crate::preempt::course::Making;

/// How long a write may take: well below what is left of a Lease when its holder must end.
pub const WRITE_TIMEOUT: Duration = Duration::from_secs(3);
/// Who writes, in the API server's managed fields; by it a later leader knows our nominations.
pub const FIELD_MANAGER: &str = "stowage-scheduler-extender";

/// Which pod, in which version, is written about.
#[derive(Debug, Clone, Copy)]
pub struct Target<'a> {
    /// Its namespace.
    pub namespace: &'a str,
    /// Its name.
    pub name: &'a str,
    /// Its UID: another pod of that name is not meant.
    pub uid: &'a str,
    /// The version that was looked at: if it has changed since, the write fails.
    pub resource_version: &'a str,
}

/// Nominates a pod to a node, or to none.
///
/// # Errors
/// [`PostError`]: 409 where the pod has changed since it was looked at, or is another; 422 where it is bound.
pub async fn nominate(client: &Client, pod: Target<'_>, node: Option<&str>) -> Result<(), PostError> {
    patch(client, pod, Some("status"), json!({ "status": { "nominatedNodeName": node } })).await
}

/// Nominates the pod that room is made for, if nobody else has; whether it succeeds is not waited for, since filter keeps
/// the room.
pub(crate) async fn nominate_for(client: &Client, desk: &Desk, making: &Making) {
    let resource_version = {
        let desk = desk.open();
        let pod = desk.book.pod(&making.uid).filter(|pod| pod.nominated.is_empty() && pod.node.is_empty());
        pod.map(|pod| pod.resource_version.clone())
    };
    let Some(resource_version) = resource_version else { return };
    let (namespace, name, uid) = (&*making.namespace, &*making.name, &*making.uid);
    let target = Target { namespace, name, uid, resource_version: &resource_version };
    if let Err(error) = nominate(client, target, Some(&making.node)).await {
        tracing::debug!(pod.namespace = namespace, pod.name = name, %error, "Pod not nominated.");
    }
}

/// Changes a pod, or its status, if it is as it was looked at.
///
/// # Errors
/// [`PostError`].
pub async fn patch(
    client: &Client,
    pod: Target<'_>,
    subresource: Option<&str>,
    mut change: Value,
) -> Result<(), PostError> {
    change["metadata"]["uid"] = pod.uid.into();
    change["metadata"]["resourceVersion"] = pod.resource_version.into();
    let params = PatchParams { field_manager: Some(FIELD_MANAGER.into()), ..PatchParams::default() };
    let request = pods(pod.namespace);
    // Of the kinds of patches, the one that takes the API server the least time.
    let change = Patch::Strategic(change);
    let request = match subresource {
        Some(part) => request.patch_subresource(part, pod.name, &params, &change),
        None => request.patch(pod.name, &params, &change),
    };
    let request = request.map_err(|error| PostError::Transport(error.to_string()))?;
    match tokio::time::timeout(WRITE_TIMEOUT, client.request_text(request)).await {
        Ok(done) => done.map(drop).map_err(PostError::of),
        Err(_) => Err(PostError::Timeout(WRITE_TIMEOUT)),
    }
}
