//! The two calls of an eviction: the eviction itself, and the Event that tells why.

use jiff::Timestamp;
use k8s_openapi::api::core::v1::ObjectReference;
use k8s_openapi::api::events::v1::Event;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime;
use kube::api::{ObjectMeta, PostParams};
use kube::{Api, Client};
use serde_json::json;

use super::course::Making;
use super::victims::Victim;
use crate::binding::post::{PostError, pods};
use crate::planner::write::WRITE_TIMEOUT;

/// The reason of a victim's Event, kube-scheduler's own word. It is the only one that the extender writes; `docs/events.md`
/// is compared with it.
pub const PREEMPTED: &str = "Preempted";
/// Who reports.
const REPORTER: &str = "stowage.dev/scheduler-extender";

/// What became of an eviction.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Evicted {
    /// The pod goes.
    Done,
    /// It is gone already.
    Gone,
    /// A PodDisruptionBudget keeps it.
    Protected,
    /// It is not known, or not allowed.
    Failed(String),
}

/// Asks the API server to evict a pod, which counts PodDisruptionBudgets itself.
pub(super) async fn evict(client: &Client, victim: &Victim) -> Evicted {
    let body = json!({
        "apiVersion": "policy/v1",
        "kind": "Eviction",
        "metadata": { "name": victim.name, "namespace": victim.namespace },
        "deleteOptions": { "preconditions": { "uid": victim.uid } },
    });
    let body = body.to_string().into_bytes();
    let request =
        pods(&victim.namespace).create_subresource("eviction", &victim.name, &PostParams::default(), body);
    let request = match request {
        Ok(request) => request,
        Err(error) => return Evicted::Failed(error.to_string()),
    };
    let error = match tokio::time::timeout(WRITE_TIMEOUT, client.request_text(request)).await {
        Ok(Ok(_)) => return Evicted::Done,
        Ok(Err(error)) => PostError::of(error),
        Err(_) => PostError::Timeout(WRITE_TIMEOUT),
    };
    match error {
        // Another pod of that name, or none.
        PostError::Status { code: 404 | 409, .. } => Evicted::Gone,
        PostError::Status { code: 429, .. } => Evicted::Protected,
        error => Evicted::Failed(error.to_string()),
    }
}

/// Tells with an Event why a pod was evicted, in kube-scheduler's words.
pub(super) async fn tell(client: &Client, making: &Making, victim: &Victim) {
    let api: Api<Event> = Api::namespaced(client.clone(), &victim.namespace);
    let pod = |namespace: &str, name: &str, uid: &str| ObjectReference {
        kind: Some("Pod".into()),
        api_version: Some("v1".into()),
        namespace: Some(namespace.to_owned()),
        name: Some(name.to_owned()),
        uid: Some(uid.to_owned()),
        ..ObjectReference::default()
    };
    let at = Timestamp::now();
    let event = Event {
        metadata: ObjectMeta {
            name: Some(format!("{}.{:x}", victim.name, at.as_nanosecond())),
            namespace: Some(victim.namespace.clone()),
            ..ObjectMeta::default()
        },
        regarding: Some(pod(&victim.namespace, &victim.name, &victim.uid)),
        related: Some(pod(&making.namespace, &making.name, &making.uid)),
        event_time: Some(MicroTime(at)),
        reporting_controller: Some(REPORTER.into()),
        reporting_instance: Some("scheduler-extender".into()),
        action: Some("Preempting".into()),
        reason: Some(PREEMPTED.into()),
        type_: Some("Normal".into()),
        note: Some(format!(
            "Preempted by pod {} on node {}: its devices of another resource name were in the way",
            making.uid, making.node
        )),
        ..Event::default()
    };
    // The log has it as well.
    let _ = tokio::time::timeout(WRITE_TIMEOUT, api.create(&PostParams::default(), &event)).await;
}
