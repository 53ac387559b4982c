//! Creates and deletes objects by the thousand, some at a time.

use anyhow::{Context, Result};
use futures::{StreamExt, TryStreamExt, stream};
use kube::Client;
use serde_json::{Value, json};

use crate::api;
use crate::book::{Holder, NodeBook};
use crate::hollow::Registered;
use crate::inventory::HollowNode;
use crate::shapes;

/// Calls of the API server at once.
const CALLS: usize = 32;

/// Creates nodes, and on each `placed` pods that hold a device each since before anything else began.
///
/// # Errors
/// The first object that is refused.
pub async fn nodes(client: &Client, nodes: Vec<HollowNode>, placed: usize) -> Result<Vec<Registered>> {
    stream::iter(nodes.into_iter().enumerate())
        .map(async |(n, node)| register(client, n, &node, placed).await)
        .buffer_unordered(CALLS)
        .try_collect()
        .await
}

async fn register(client: &Client, n: usize, node: &HollowNode, placed: usize) -> Result<Registered> {
    let uid = api::create(client, api::NODES, &node.node()).await?;
    let mut book = NodeBook::new(node.status(&uid))?;
    for p in 0..placed {
        let resource = shapes::placed(n, p);
        let name = format!("placed-{n}-{p}");
        let amounts = json!({resource: "1", "cpu": "500m", "memory": "1Gi"});
        let mut pod = shapes::pod(&name, &amounts);
        pod["spec"]["nodeName"] = json!(node.name);
        let uid = api::create(client, api::PODS, &pod).await?;
        let holder = Holder { namespace: "default".to_owned(), name, uid };
        // A node that has none of it left keeps the pod without: the scheduler counts it all the same.
        book.hand_out(&holder, &resource.parse()?);
    }
    api::create(client, &api::gpu_nodes(), &node.gpu_node()).await?;
    let mut status = serde_json::to_value(book.status())?;
    status["observedAt"] = json!(jiff::Timestamp::now().to_string());
    let path = format!("{}/{}/status", api::gpu_nodes(), node.name);
    api::merge(client, &path, &json!({"status": status}))
        .await
        .with_context(|| format!("cannot write the status of GpuNode {}", node.name))?;
    Ok(Registered { name: node.name.clone(), book })
}

/// Creates pods as fast as the API server takes them, in no strict order.
///
/// # Errors
/// The first that is refused.
pub async fn pods(client: &Client, pods: impl IntoIterator<Item = Value>) -> Result<()> {
    stream::iter(pods)
        .map(async |pod: Value| api::create(client, api::PODS, &pod).await.map(drop))
        .buffer_unordered(CALLS)
        .try_collect()
        .await
}

/// Creates pods one after another, so that their scheduler's queue has them in this order.
///
/// # Errors
/// The first that is refused.
pub async fn pods_in_order(client: &Client, pods: impl IntoIterator<Item = Value>) -> Result<()> {
    for pod in pods {
        api::create(client, api::PODS, &pod).await?;
    }
    Ok(())
}

/// Deletes pods.
///
/// # Errors
/// The first that cannot be deleted.
pub async fn delete(client: &Client, names: impl IntoIterator<Item = String>) -> Result<()> {
    stream::iter(names)
        .map(async |name: String| api::delete_pod(client, &name).await)
        .buffer_unordered(CALLS)
        .try_collect()
        .await
}
