//! The scheduler on the API server stand-in's store, without HTTP.

use std::sync::Arc;

use futures::stream::{self, BoxStream, StreamExt};
use serde_json::{Value, json};

use super::cluster::{BindError, Cluster, Listing, PodName, Told};
use crate::api_server::resources::{Gvr, NODES, PODS};
use crate::api_server::{List, ListOptions, Object, Store, Watch, WatchEvent, WatchOptions};

impl Cluster for Store {
    fn watch(&self) -> BoxStream<'static, Told> {
        let begin = Stage::Begin(self.clone());
        stream::unfold(begin, |stage| stage.next()).boxed()
    }

    fn list(&self) -> Listing {
        Listing { pods: objects(all(self, &PODS)), nodes: objects(all(self, &NODES)) }
    }

    async fn bind(&self, pod: &PodName, node: &str) -> Result<(), BindError> {
        let binding = json!({
            "apiVersion": "v1",
            "kind": "Binding",
            "metadata": { "namespace": pod.namespace, "name": pod.name, "uid": pod.uid },
            "target": { "apiVersion": "v1", "kind": "Node", "name": node },
        });
        self.bind(&pod.namespace, &pod.name, &binding).map(drop).map_err(|refusal| BindError(refusal.message))
    }
}

/// Where a watch of both resources stands.
enum Stage {
    Begin(Store),
    Watching { store: Store, pods: Box<Watch>, nodes: Box<Watch> },
}

impl Stage {
    /// The next thing to tell. A watch that ends (410, or a closed server) begins anew with everything.
    async fn next(mut self) -> Option<(Told, Self)> {
        loop {
            let (told, next) = match self {
                Self::Begin(store) => {
                    let (pods, nodes) = (all(&store, &PODS)?, all(&store, &NODES)?);
                    let from = |resource: &Gvr, list: &List| {
                        let resource_version = list.version.to_string();
                        let options = WatchOptions { resource_version, ..WatchOptions::default() };
                        store.watch(resource, &options).map(Box::new).ok()
                    };
                    let watches = (from(&PODS, &pods)?, from(&NODES, &nodes)?);
                    let listing = Listing { pods: objects(Some(pods)), nodes: objects(Some(nodes)) };
                    let watching = Self::Watching { store, pods: watches.0, nodes: watches.1 };
                    (Some(Told::All(listing)), watching)
                }
                Self::Watching { store, mut pods, mut nodes } => {
                    let event = tokio::select! {
                        event = pods.next() => tell(event, Told::Pod, Told::PodGone),
                        event = nodes.next() => tell(event, Told::Node, Told::NodeGone),
                    };
                    match event {
                        Some(told) => (told, Self::Watching { store, pods, nodes }),
                        None => (None, Self::Begin(store)),
                    }
                }
            };
            match told {
                Some(told) => return Some((told, next)),
                None => self = next,
            }
        }
    }
}

/// `None` where the watch is over, `Some(None)` for an event that tells nothing.
fn tell(
    event: Option<WatchEvent>,
    there: impl Fn(Arc<Value>) -> Told,
    gone: impl Fn(Arc<Value>) -> Told,
) -> Option<Option<Told>> {
    match event {
        Some(WatchEvent::Added(object) | WatchEvent::Modified(object)) => Some(Some(there(plain(&object)))),
        Some(WatchEvent::Deleted(object)) => Some(Some(gone(plain(&object)))),
        Some(WatchEvent::Bookmark { .. }) => Some(None),
        Some(WatchEvent::Error(_)) | None => None,
    }
}

fn all(store: &Store, resource: &Gvr) -> Option<List> {
    store.list(resource, &ListOptions::default()).ok()
}

fn objects(list: Option<List>) -> Vec<Arc<Value>> {
    list.into_iter().flat_map(|list| list.items).map(|object| plain(&object)).collect()
}

fn plain(object: &Object) -> Arc<Value> {
    Arc::new(Value::clone(object))
}
