//! Names that a cluster and a kubeconfig know, for somebody who waits with a finger on the Tab key.

use std::fmt::Debug;
use std::time::Duration;

use k8s_openapi::api::core::v1::{Namespace, Pod};
use kube::api::ListParams;
use kube::config::Kubeconfig;
use kube::core::PartialObjectMeta;
use kube::{Api, Client, Resource};
use serde::de::DeserializeOwned;

use crate::connect::Connection;

/// After that, nothing is offered.
const WAIT_MAX: Duration = Duration::from_secs(2);
/// More than anybody reads.
const NAMES_MAX: u32 = 500;

/// Pods of the namespace that was named, or of the context's.
pub(super) async fn pods(connection: &Connection) -> Vec<(String, String)> {
    names(connection, Api::<Pod>::namespaced).await
}

/// All namespaces.
pub(super) async fn namespaces(connection: &Connection) -> Vec<(String, String)> {
    names(connection, |client, _| Api::<Namespace>::all(client)).await
}

/// The contexts of the kubeconfig.
pub(super) fn contexts(connection: &Connection) -> Vec<(String, String)> {
    let read = match &connection.kubeconfig {
        Some(path) => Kubeconfig::read_from(path),
        None => Kubeconfig::read(),
    };
    let contexts = read.map(|kubeconfig| kubeconfig.contexts).unwrap_or_default();
    contexts.into_iter().map(|context| (context.name, String::new())).collect()
}

async fn names<K>(connection: &Connection, api: impl FnOnce(Client, &str) -> Api<K>) -> Vec<(String, String)>
where
    K: Resource + Clone + Debug + DeserializeOwned,
{
    let ask = async {
        let connected = connection.connect().await.ok()?;
        let api = api(connected.client, &connected.namespace);
        api.list_metadata(&ListParams::default().limit(NAMES_MAX)).await.ok()
    };
    let listed = tokio::time::timeout(WAIT_MAX, ask).await.ok().flatten();
    let name = |object: PartialObjectMeta<K>| Some((object.metadata.name?, String::new()));
    listed.into_iter().flatten().filter_map(name).collect()
}
