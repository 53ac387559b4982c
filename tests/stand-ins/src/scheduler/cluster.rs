//! The seam to the cluster: what the scheduler sees and does there.

use std::collections::BTreeMap;
use std::future::Future;
use std::sync::Arc;

use futures::stream::BoxStream;
use serde_json::Value;

/// All pods and all nodes at one moment, as API objects.
#[derive(Debug, Clone, Default)]
pub struct Listing {
    /// The pods.
    pub pods: Vec<Arc<Value>>,
    /// The nodes.
    pub nodes: Vec<Arc<Value>>,
}

/// One thing that the scheduler is told of the cluster.
#[derive(Debug, Clone)]
pub enum Told {
    /// Everything there is; what was known before counts no more.
    All(Listing),
    /// A pod is new or changed.
    Pod(Arc<Value>),
    /// A pod is gone.
    PodGone(Arc<Value>),
    /// A node is new or changed.
    Node(Arc<Value>),
    /// A node is gone.
    NodeGone(Arc<Value>),
}

/// A binding that was refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct BindError(pub String);

/// A cluster.
pub trait Cluster: Send + Sync + 'static {
    /// Everything that happens, beginning with [`Told::All`].
    fn watch(&self) -> BoxStream<'static, Told>;

    /// What there is now: [`Scheduler::idle`](super::Scheduler::idle) compares it with what was seen.
    fn list(&self) -> Listing;

    /// Binds a pod to a node, as the default binder does.
    fn bind(&self, pod: &PodName, node: &str) -> impl Future<Output = Result<(), BindError>> + Send;
}

/// Which pod a binding is for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PodName {
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// Its UID.
    pub uid: String,
}

/// The versions of objects, by UID: equal for two parties that have seen the same.
pub(super) type Versions = BTreeMap<String, String>;

impl Listing {
    pub(super) fn versions(&self) -> Versions {
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let entry = |object: &Arc<Value>| {
            let metadata = &object["metadata"];
            (text(&metadata["uid"]), text(&metadata["resourceVersion"]))
        };
        self.pods.iter().chain(&self.nodes).map(entry).collect()
    }
}
