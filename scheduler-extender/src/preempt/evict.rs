//! The calls of an eviction: the eviction itself, and the Events that tell why.

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
use crate::metrics::EvictionResult;
use crate::planner::write::WRITE_TIMEOUT;

/// Who reports.
const REPORTER: &str = "stowage.dev/scheduler-extender";

/// The reasons of the Events that the extender writes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reason {
    /// kube-scheduler's own word.
    Preempted,
    /// A pod was evicted because its like fits elsewhere.
    Moved,
    /// It was, for this pod.
    RoomMade,
}

impl Reason {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Preempted, Self::Moved, Self::RoomMade];

    /// The reason as it stands in the Event.
    pub fn word(self) -> &'static str {
        match self {
            Self::Preempted => "Preempted",
            Self::Moved => "Moved",
            Self::RoomMade => "RoomMade",
        }
    }

    /// What has happened, for `docs/events.md`.
    pub fn meaning(self) -> &'static str {
        match self {
            Self::Preempted => {
                "with `--preemption`: the pod was evicted, its devices of another resource name were in the way of a more important pod"
            }
            Self::Moved => {
                "with `--defrag`: the pod was evicted so that another one fits on its node; the pod that replaces it has a place, which the note names"
            }
            Self::RoomMade => "with `--defrag`: another pod was evicted so that this one, which waits, fits",
        }
    }

    /// What was done, in Kubernetes's form.
    fn action(self) -> &'static str {
        match self {
            Self::Preempted => "Preempting",
            Self::Moved | Self::RoomMade => "Evicting",
        }
    }
}

/// What became of an eviction.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Evicted {
    /// The pod goes.
    Done,
    /// It is gone already.
    Gone,
    /// A PodDisruptionBudget keeps it.
    Protected,
    /// It is not known, or not allowed.
    Failed(String),
}

impl Evicted {
    /// The same for metrics.
    pub(crate) fn result(&self) -> EvictionResult {
        match self {
            Self::Done => EvictionResult::Evicted,
            Self::Gone => EvictionResult::Gone,
            Self::Protected => EvictionResult::Protected,
            Self::Failed(_) => EvictionResult::Failed,
        }
    }
}

/// Asks the API server to evict a pod, which counts PodDisruptionBudgets itself.
pub(crate) async fn evict(client: &Client, victim: &Victim) -> Evicted {
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

/// A pod that an Event is about.
#[derive(Debug, Clone, Copy)]
pub(crate) struct About<'a> {
    namespace: &'a str,
    name: &'a str,
    uid: &'a str,
}

impl<'a> From<&'a Making> for About<'a> {
    fn from(Making { namespace, name, uid, .. }: &'a Making) -> Self {
        Self { namespace, name, uid }
    }
}

impl<'a> From<&'a Victim> for About<'a> {
    fn from(Victim { namespace, name, uid, .. }: &'a Victim) -> Self {
        Self { namespace, name, uid }
    }
}

impl From<About<'_>> for ObjectReference {
    fn from(pod: About<'_>) -> Self {
        Self {
            kind: Some("Pod".into()),
            api_version: Some("v1".into()),
            namespace: Some(pod.namespace.to_owned()),
            name: Some(pod.name.to_owned()),
            uid: Some(pod.uid.to_owned()),
            ..Self::default()
        }
    }
}

/// Tells with an Event what was done to a pod, and because of which other one.
pub(crate) async fn tell(
    client: &Client,
    reason: Reason,
    regarding: About<'_>,
    related: About<'_>,
    note: String,
) {
    let api: Api<Event> = Api::namespaced(client.clone(), regarding.namespace);
    let at = Timestamp::now();
    let event = Event {
        metadata: ObjectMeta {
            name: Some(format!("{}.{:x}", regarding.name, at.as_nanosecond())),
            namespace: Some(regarding.namespace.to_owned()),
            ..ObjectMeta::default()
        },
        regarding: Some(regarding.into()),
        related: Some(related.into()),
        event_time: Some(MicroTime(at)),
        reporting_controller: Some(REPORTER.into()),
        reporting_instance: Some("scheduler-extender".into()),
        action: Some(reason.action().into()),
        reason: Some(reason.word().into()),
        type_: Some("Normal".into()),
        note: Some(note),
        ..Event::default()
    };
    // The log has it as well.
    let _ = tokio::time::timeout(WRITE_TIMEOUT, api.create(&PostParams::default(), &event)).await;
}
