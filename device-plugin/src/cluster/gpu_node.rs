//! Publishes this node's GpuNode: on every change, and often enough that its age tells whether we live.
//!
//! Nothing is published before pod-resources has answered once: a restarted plugin that does not know yet who
//! holds what must not say that nobody does.

#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::core::v1::Node;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
use kube::api::{Api, ApiResource, DynamicObject, GroupVersionKind, Patch, PatchParams, PostParams};
use kube::core::PartialObjectMeta;
use serde_json::json;
use stowage_shared::contract::{API_GROUP, API_VERSION};
use stowage_shared::gpu_node::{GpuNodeStatus, KIND, PLURAL};
use tokio::sync::watch;
use tokio::time::{Instant, sleep, sleep_until, timeout};

use super::when::{News, When};
use super::{status, trouble};
use crate::metrics::GpuNodeWrite;
use crate::plugin::Plugin;
use crate::telemetry::Published;
use crate::told::AtMostEvery;

/// How long changes are gathered before they are written. An `Allocate` brings several at once; and what is free again must
/// be known to the kubelet, which is told at once, before the extender plans with it: a busy kubelet takes tens of
/// milliseconds to take a list in, and what it does not know to be free by then is passed over in spite of its plan.
const GATHER: Duration = Duration::from_millis(50);
/// The least time between two writes.
const LEAST: Duration = Duration::from_millis(50);
/// How long one call of the API server may take.
const CALL_TIMEOUT: Duration = Duration::from_secs(5);
/// The first wait after a failed write; it doubles up to [`LONGEST_WAIT`].
const FIRST_WAIT: Duration = Duration::from_millis(200);
/// The longest wait after failed writes.
const LONGEST_WAIT: Duration = Duration::from_secs(10);
/// How long the first write waits for the pods' UIDs.
const PODS_WAIT: Duration = Duration::from_secs(1);
/// How often trouble is logged.
const LOG_EVERY: Duration = Duration::from_secs(60);

/// Publishes until the process ends. Trouble is logged, counted and retried with back-off.
pub async fn publish(
    plugin: Arc<Plugin>,
    client: kube::Client,
    node: &str,
    mut usage: watch::Receiver<Published>,
) {
    let mut book = plugin.book.subscribe();
    // The sender lives as long as the process.
    let _ = book.wait_for(|book| book.knows_holders()).await;
    let _ = timeout(PODS_WAIT, book.wait_for(|book| book.knows_pods())).await;
    let mut writer = Writer::new(client, node);
    let mut log = AtMostEvery::new(LOG_EVERY);
    let mut wait = FIRST_WAIT;
    loop {
        let begun = Instant::now();
        let used = usage.borrow_and_update().clone();
        let news = |uid: &str| {
            let book = book.borrow_and_update();
            News {
                status: status::of(&book, uid, &used),
                unplanned: book.unplanned(),
                awaited: book.awaits_holders(),
            }
        };
        match writer.write(begun, news).await {
            Ok(written) => {
                if written {
                    plugin.metrics.gpu_node_written(GpuNodeWrite::Written);
                }
                if log.reset() {
                    tracing::info!(node, "The GpuNode is written again.");
                }
                wait = FIRST_WAIT;
            }
            Err(error) => {
                plugin.metrics.gpu_node_written(error.kind());
                if log.may() {
                    let cure = error.cure();
                    tracing::warn!(node, %error, cure, "The GpuNode cannot be written, and goes stale.");
                }
                // Changes wait for the next try: a storm of them must not become one of requests.
                sleep(wait).await;
                wait = (wait * 2).min(LONGEST_WAIT);
                continue;
            }
        }
        tokio::select! {
            () = sleep_until(writer.when.next().unwrap_or(begun)) => {}
            // Its sender lives as long as the process, too.
            _ = usage.changed() => {}
            changed = book.changed() => {
                if changed.is_err() {
                    return;
                }
                sleep(GATHER).await;
                sleep_until(begun + LEAST).await;
            }
        }
    }
}

/// Why the GpuNode was not written.
#[derive(Debug, thiserror::Error)]
enum WriteError {
    #[error("Node {0} is not there")]
    NoNode(String),
    #[error("cannot read the Node: {}", trouble::words(.0))]
    Node(kube::Error),
    #[error("the API server knows no {PLURAL}.{API_GROUP}")]
    MissingCrd,
    #[error("{}", trouble::words(.0))]
    Call(kube::Error),
    #[error("no answer in {CALL_TIMEOUT:?}")]
    Timeout,
}

impl WriteError {
    fn kind(&self) -> GpuNodeWrite {
        match self {
            Self::MissingCrd => GpuNodeWrite::MissingCrd,
            Self::Node(kube::Error::Api(status)) | Self::Call(kube::Error::Api(status)) => {
                match status.code {
                    401 | 403 => GpuNodeWrite::Forbidden,
                    // An admission policy says no with 422 as well; its message begins with our resource's name.
                    422 if status.message.contains("ValidatingAdmissionPolicy") => GpuNodeWrite::Forbidden,
                    400 | 422 => GpuNodeWrite::Invalid,
                    _ => GpuNodeWrite::Failed,
                }
            }
            Self::NoNode(_) | Self::Node(_) | Self::Call(_) | Self::Timeout => GpuNodeWrite::Failed,
        }
    }

    fn cure(&self) -> &'static str {
        match (self, self.kind()) {
            (Self::MissingCrd, _) => "apply deploy/crds/gpunodes.yaml",
            (Self::NoNode(_), _) => "is --node-name (NODE_NAME) the Node's name?",
            (Self::Node(error) | Self::Call(error), GpuNodeWrite::Forbidden) => trouble::cure(error),
            (_, GpuNodeWrite::Invalid) => "is deploy/crds/gpunodes.yaml of this version applied?",
            _ => "it is tried again",
        }
    }
}

/// Writes one node's GpuNode.
struct Writer {
    nodes: Api<PartialObjectMeta<Node>>,
    gpu_nodes: Api<DynamicObject>,
    kind: ApiResource,
    node: String,
    node_uid: Option<String>,
    when: When,
}

impl Writer {
    fn new(client: kube::Client, node: &str) -> Self {
        let gvk = GroupVersionKind::gvk(API_GROUP, API_VERSION, KIND);
        let kind = ApiResource::from_gvk_with_plural(&gvk, PLURAL);
        Self {
            nodes: Api::all(client.clone()),
            gpu_nodes: Api::all_with(client, &kind),
            kind,
            node: node.to_owned(),
            node_uid: None,
            when: When::new(node),
        }
    }

    /// Writes the status if it is due or has changed, as [`When`] says; `news` makes it of the Node's UID. True if it was
    /// written.
    async fn write(&mut self, now: Instant, news: impl FnOnce(&str) -> News) -> Result<bool, WriteError> {
        let uid = match &self.node_uid {
            Some(uid) if !self.when.is_node_due(now) => uid.clone(),
            _ => self.read_node_uid(now).await?,
        };
        let mut news = news(&uid);
        if !self.when.is_now(&news, now) {
            return Ok(false);
        }
        if !self.patch(&news.status).await? {
            // It may have gone with its Node. One that names the old Node as its owner would be removed at once.
            let uid = self.read_node_uid(now).await?;
            self.create(&uid).await?;
            news.status.node_uid = uid;
            if !self.patch(&news.status).await? {
                return Err(WriteError::MissingCrd);
            }
        }
        self.when.written(news, now);
        Ok(true)
    }

    /// Reads the UID that the Node has now; where that fails, none is known.
    async fn read_node_uid(&mut self, now: Instant) -> Result<String, WriteError> {
        self.node_uid = None;
        let node = match call(self.nodes.get_metadata(&self.node)).await? {
            Ok(node) => node,
            Err(error) if is_not_found(&error) => return Err(WriteError::NoNode(self.node.clone())),
            Err(error) => return Err(WriteError::Node(error)),
        };
        let uid = node.metadata.uid.ok_or_else(|| WriteError::NoNode(self.node.clone()))?;
        self.node_uid = Some(uid.clone());
        self.when.node_read(now);
        Ok(uid)
    }

    /// Replaces the status; false if there is no such object.
    async fn patch(&self, status: &GpuNodeStatus) -> Result<bool, WriteError> {
        let observed_at = now();
        let status = GpuNodeStatus { observed_at, ..status.clone() };
        // A merge patch replaces lists whole, and every key of the status is always there: it replaces all of it.
        let patch = Patch::Merge(json!({ "status": status }));
        match call(self.gpu_nodes.patch_status(&self.node, &PatchParams::default(), &patch)).await? {
            Ok(_) => Ok(true),
            Err(error) if is_not_found(&error) => Ok(false),
            Err(error) => Err(WriteError::Call(error)),
        }
    }

    /// Makes the object, owned by the Node so that it goes with it.
    async fn create(&self, node_uid: &str) -> Result<(), WriteError> {
        let owner = OwnerReference {
            api_version: "v1".to_owned(),
            kind: "Node".to_owned(),
            name: self.node.clone(),
            uid: node_uid.to_owned(),
            ..OwnerReference::default()
        };
        let mut object = DynamicObject::new(&self.node, &self.kind).data(json!({ "spec": {} }));
        object.metadata.owner_references = Some(vec![owner]);
        match call(self.gpu_nodes.create(&PostParams::default(), &object)).await? {
            Ok(_) => {
                tracing::info!(node = self.node, "GpuNode made.");
                Ok(())
            }
            Err(error) if is_not_found(&error) => Err(WriteError::MissingCrd),
            // Somebody else was faster, such as our successor in a rolling update.
            Err(kube::Error::Api(status)) if status.code == 409 => Ok(()),
            Err(error) => Err(WriteError::Call(error)),
        }
    }
}

async fn call<T>(
    call: impl Future<Output = Result<T, kube::Error>>,
) -> Result<Result<T, kube::Error>, WriteError> {
    timeout(CALL_TIMEOUT, call).await.map_err(|_| WriteError::Timeout)
}

fn is_not_found(error: &kube::Error) -> bool {
    matches!(error, kube::Error::Api(status) if status.code == 404)
}

/// The time in RFC 3339, in whole seconds.
fn now() -> String {
    let now = jiff::Timestamp::now();
    now.round(jiff::Unit::Second).unwrap_or(now).to_string()
}
