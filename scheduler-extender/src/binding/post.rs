//! The two calls that a bind makes: POST the Binding, GET the pod.

use std::collections::BTreeMap;
use std::time::Duration;

use kube::Client;
use kube::api::Request;
use ops::chain;
use serde::Serialize;
use stowage_shared::contract::PLAN_ANNOTATION;

use crate::api::{self, Watched};
use crate::state::event;
use crate::wire::ExtenderBindingArgs;

/// How long reading one pod may take: with [`BIND_TIMEOUT`](stowage_shared::contract::BIND_TIMEOUT) well below
/// kube-scheduler's `httpTimeout` of 30 s.
const READ_TIMEOUT: Duration = Duration::from_secs(5);
/// The longest reason that is passed on, in characters.
const MESSAGE_MAX: usize = 300;

/// Why a call to the API server did not succeed.
#[derive(Debug, thiserror::Error)]
pub enum PostError {
    /// It answered with an error.
    #[error("{code} {reason}: {message}")]
    Status {
        /// The HTTP status.
        code: u16,
        /// Kubernetes's word for it.
        reason: String,
        /// What it says.
        message: String,
    },
    /// It did not answer in time.
    #[error("no answer within {} s", .0.as_secs())]
    Timeout(Duration),
    /// The call failed on the way.
    #[error("no answer: {0}")]
    Transport(String),
}

impl PostError {
    /// Whether it is certain that nothing was changed by that call, nor will be.
    pub(super) fn is_final(&self) -> bool {
        // A 5xx may come from behind the write: a proxy, or an API server whose etcd answered too late.
        matches!(self, Self::Status { code: 400..=499, .. })
    }

    /// Whether the pod was not as we thought: bound already, or another one.
    pub(super) fn is_conflict(&self) -> bool {
        matches!(self, Self::Status { code: 409, .. })
    }

    /// Whether a right is missing.
    pub(crate) fn is_forbidden(&self) -> bool {
        matches!(self, Self::Status { code: 403, .. })
    }

    pub(crate) fn of(error: kube::Error) -> Self {
        match error {
            kube::Error::Api(status) => Self::Status {
                code: status.code,
                reason: status.reason.clone(),
                message: status.message.chars().take(MESSAGE_MAX).collect(),
            },
            other => Self::Transport(chain(&other).chars().take(MESSAGE_MAX).collect()),
        }
    }
}

/// A Binding, as the API server wants it.
#[derive(Serialize)]
struct Binding<'a> {
    #[serde(rename = "apiVersion")]
    api_version: &'static str,
    kind: &'static str,
    metadata: Metadata<'a>,
    target: Target<'a>,
}

#[derive(Serialize)]
struct Metadata<'a> {
    namespace: &'a str,
    name: &'a str,
    /// A precondition: a pod of the same name that was made since is not bound.
    uid: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    annotations: Option<BTreeMap<&'static str, &'a str>>,
}

#[derive(Serialize)]
struct Target<'a> {
    #[serde(rename = "apiVersion")]
    api_version: &'static str,
    kind: &'static str,
    name: &'a str,
}

/// Binds a pod, and writes the plan onto it in the same call.
pub(super) async fn post_binding(
    client: &Client,
    args: &ExtenderBindingArgs,
    plan: Option<&str>,
) -> Result<(), PostError> {
    let binding = Binding {
        api_version: "v1",
        kind: "Binding",
        metadata: Metadata {
            namespace: &args.pod_namespace,
            name: &args.pod_name,
            uid: &args.pod_uid,
            annotations: plan.map(|plan| BTreeMap::from([(PLAN_ANNOTATION, plan)])),
        },
        target: Target { api_version: "v1", kind: "Node", name: &args.node },
    };
    let transport = |error: &dyn std::fmt::Display| PostError::Transport(error.to_string());
    let body = serde_json::to_vec(&binding).map_err(|error| transport(&error))?;
    let request = pods(&args.pod_namespace)
        .create_subresource("binding", &args.pod_name, &kube::api::PostParams::default(), body)
        .map_err(|error| transport(&error))?;
    client.request_text(request).await.map(drop).map_err(PostError::of)
}

/// Reads a pod; `None` where there is none of that name.
pub(super) async fn get_pod(
    client: &Client,
    namespace: &str,
    name: &str,
) -> Result<Option<event::Pod>, PostError> {
    let request = pods(namespace)
        .get(name, &kube::api::GetParams::default())
        .map_err(|error| PostError::Transport(error.to_string()))?;
    match tokio::time::timeout(READ_TIMEOUT, client.request::<api::Pod>(request)).await {
        Ok(Ok(pod)) => Ok(Some(pod.seen())),
        Ok(Err(kube::Error::Api(status))) if status.code == 404 => Ok(None),
        Ok(Err(error)) => Err(PostError::of(error)),
        Err(_) => Err(PostError::Timeout(READ_TIMEOUT)),
    }
}

/// Where the pods of a namespace live.
pub(crate) fn pods(namespace: &str) -> Request {
    Request::new(format!("/api/v1/namespaces/{namespace}/pods"))
}
