//! Calls to an extender, exactly as kube-scheduler 1.36 makes them.
//!
//! The Go types carry no JSON tags, so keys are in PascalCase and nil is `null`, not absent; the pod
//! inside is an ordinary API object. Only a status of exactly 200 counts: the body of any other is lost.

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::Bytes;
use http::{Method, Request, StatusCode, header};
use http_body_util::{BodyExt, Full, Limited};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::cluster::PodName;
use super::objects::Pod;
use super::options::ExtenderOptions;

/// The largest answer that is read: 5,000 nodes with a sentence each fit many times.
const ANSWER_MAX_BYTES: usize = 32 << 20;
/// What one point of an extender counts among in-tree scores of 0 to 100 (`MaxExtenderPriority` is 10).
const POINT: i64 = 10;

/// Why an extender's answer is no answer.
#[derive(Debug, thiserror::Error)]
pub(super) enum ExtenderError {
    #[error("cannot call the extender at {url}")]
    Call { url: String, source: Box<dyn std::error::Error + Send + Sync> },
    #[error("failed {verb} with extender at URL {url}, code {code}")]
    Status { verb: String, url: String, code: u16 },
    #[error("the extender at {url} did not answer within {timeout:?}")]
    Timeout { url: String, timeout: Duration },
    #[error("cannot read what the extender at {url} says")]
    Answer { url: String, source: serde_json::Error },
    #[error("extender {0:?} claims a filtered node {1:?} which is not found in the input node list")]
    UnknownNode(String, String),
    /// What the extender itself says.
    #[error("{0}")]
    Said(String),
}

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct Args<'a> {
    pod: &'a Value,
    nodes: (),
    node_names: &'a [String],
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "PascalCase", default)]
struct FilterResult {
    node_names: Option<Vec<String>>,
    failed_nodes: Option<BTreeMap<String, String>>,
    failed_and_unresolvable_nodes: Option<BTreeMap<String, String>>,
    error: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct HostPriority {
    host: String,
    score: i64,
}

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct BindingArgs<'a> {
    pod_name: &'a str,
    pod_namespace: &'a str,
    #[serde(rename = "PodUID")]
    pod_uid: &'a str,
    node: &'a str,
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "PascalCase", default)]
struct BindingResult {
    error: String,
}

/// What `filter` said.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Filtered {
    pub(super) nodes: Vec<String>,
    /// The reasons of the nodes that dropped out; the unresolvable ones win where a node is in both.
    pub(super) reasons: BTreeMap<String, String>,
}

/// One extender.
#[derive(Debug, Clone)]
pub(super) struct Extender {
    pub(super) options: ExtenderOptions,
    client: Client<HttpConnector, Full<Bytes>>,
}

impl Extender {
    pub(super) fn new(options: ExtenderOptions) -> Self {
        Self { options, client: Client::builder(TokioExecutor::new()).build_http() }
    }

    /// Whether it is shown this pod.
    pub(super) fn is_interested(&self, pod: &Pod) -> bool {
        let managed = &self.options.managed_resources;
        managed.is_empty() || managed.iter().any(|name| names_resource(&pod.object["spec"], name))
    }

    pub(super) async fn filter(&self, pod: &Pod, nodes: &[String]) -> Result<Filtered, ExtenderError> {
        if self.options.filter_verb.is_empty() {
            return Ok(Filtered { nodes: nodes.to_vec(), reasons: BTreeMap::new() });
        }
        let args = Args { pod: &as_sent(&pod.object), nodes: (), node_names: nodes };
        let result: FilterResult = self.send(&self.options.filter_verb, &args).await?;
        if !result.error.is_empty() {
            return Err(ExtenderError::Said(result.error));
        }
        let passed = result.node_names.unwrap_or_default();
        if let Some(unknown) = passed.iter().find(|name| !nodes.contains(name)) {
            return Err(ExtenderError::UnknownNode(self.options.url_prefix.clone(), unknown.clone()));
        }
        let mut reasons = result.failed_nodes.unwrap_or_default();
        reasons.extend(result.failed_and_unresolvable_nodes.unwrap_or_default());
        Ok(Filtered { nodes: passed, reasons })
    }

    /// What it adds to the nodes' scores: points × weight × 10, unchecked as kube-scheduler leaves it.
    pub(super) async fn prioritize(
        &self,
        pod: &Pod,
        nodes: &[String],
    ) -> Result<BTreeMap<String, i64>, ExtenderError> {
        if self.options.prioritize_verb.is_empty() {
            return Ok(BTreeMap::new());
        }
        let args = Args { pod: &as_sent(&pod.object), nodes: (), node_names: nodes };
        let result: Option<Vec<HostPriority>> = self.send(&self.options.prioritize_verb, &args).await?;
        let points = |points: i64| points.saturating_mul(self.options.weight).saturating_mul(POINT);
        let mut scores = BTreeMap::<String, i64>::new();
        for host in result.into_iter().flatten() {
            // A node that is named twice has both.
            let score = scores.entry(host.host).or_default();
            *score = score.saturating_add(points(host.score));
        }
        Ok(scores)
    }

    /// Whether binding is its task.
    pub(super) fn is_binder(&self) -> bool {
        !self.options.bind_verb.is_empty()
    }

    pub(super) async fn bind(&self, pod: &PodName, node: &str) -> Result<(), ExtenderError> {
        let PodName { namespace, name, uid } = pod;
        let args = BindingArgs { pod_name: name, pod_namespace: namespace, pod_uid: uid, node };
        let result: BindingResult = self.send(&self.options.bind_verb, &args).await?;
        if result.error.is_empty() { Ok(()) } else { Err(ExtenderError::Said(result.error)) }
    }

    async fn send<T: DeserializeOwned>(&self, verb: &str, args: &impl Serialize) -> Result<T, ExtenderError> {
        let url = format!("{}/{verb}", self.options.url_prefix.trim_end_matches('/'));
        let call = |source: Box<dyn std::error::Error + Send + Sync>| ExtenderError::Call {
            url: url.clone(),
            source,
        };
        let body = serde_json::to_vec(args).map_err(|error| call(error.into()))?;
        let request = Request::builder()
            .method(Method::POST)
            .uri(&url)
            .header(header::CONTENT_TYPE, "application/json")
            .body(Full::from(body))
            .map_err(|error| call(error.into()))?;
        let exchange = async {
            let response = self.client.request(request).await.map_err(|error| call(error.into()))?;
            if response.status() != StatusCode::OK {
                let code = response.status().as_u16();
                return Err(ExtenderError::Status { verb: verb.to_owned(), url: url.clone(), code });
            }
            let body = Limited::new(response.into_body(), ANSWER_MAX_BYTES).collect().await.map_err(call)?;
            serde_json::from_slice(&body.to_bytes())
                .map_err(|source| ExtenderError::Answer { url: url.clone(), source })
        };
        let timeout = self.options.http_timeout;
        let late = |_| ExtenderError::Timeout { url: url.clone(), timeout };
        tokio::time::timeout(timeout, exchange).await.map_err(late)?
    }
}

/// Whether a container of this pod says anything of a resource, be it that it wants none.
fn names_resource(spec: &Value, resource: &str) -> bool {
    let containers = ["containers", "initContainers"].map(|key| spec[key].as_array());
    let mut resources = containers.into_iter().flatten().flatten().map(|container| &container["resources"]);
    resources.any(|said| said["requests"].get(resource).is_some() || said["limits"].get(resource).is_some())
}

/// The pod as kube-scheduler has it in its cache: without its type, which Go's decoder drops, and
/// without managed fields, which the scheduler does not keep.
fn as_sent(object: &Value) -> Value {
    let mut sent = object.clone();
    if let Some(members) = sent.as_object_mut() {
        members.remove("kind");
        members.remove("apiVersion");
    }
    if let Some(metadata) = sent.get_mut("metadata").and_then(Value::as_object_mut) {
        metadata.remove("managedFields");
    }
    sent
}
