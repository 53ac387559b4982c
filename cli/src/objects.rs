//! What the API server knows, read with the rights of whoever runs the command.

use std::fmt::Debug;

use anyhow::{Context, Result};
use futures::try_join;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Node, Pod};
use kube::api::{ApiResource, DynamicObject, GroupVersionKind, ListParams};
use kube::{Api, Client};
use serde::de::DeserializeOwned;
use serde_json::Value;
use stowage_shared::contract::{API_GROUP, API_VERSION};
use stowage_shared::gpu_node::{GpuNodeStatus, KIND, PLURAL};

/// One page of a list: enough to be quick, small enough to be kind.
const PAGE: u32 = 500;
/// Pods that never run again hold nothing.
const LIVE_PODS: &str = "status.phase!=Succeeded,status.phase!=Failed";

/// Nodes, GpuNodes and the pods that run or will, at one moment.
#[derive(Debug, Clone)]
pub struct Objects {
    /// When it was read.
    pub now: Timestamp,
    /// The nodes, by name.
    pub nodes: Vec<Node>,
    /// The GpuNodes, by name.
    pub gpu_nodes: Vec<GpuNode>,
    /// The pods, by namespace and name.
    pub pods: Vec<Pod>,
}

/// A GpuNode. One that cannot be read must not keep every other from being read.
#[derive(Debug, Clone)]
pub struct GpuNode {
    /// Its name, which is the node's.
    pub name: String,
    /// What it tells; `Err` with the reason where it cannot be read.
    pub status: Result<GpuNodeStatus, String>,
}

impl Objects {
    /// Reads everything that placement depends on.
    ///
    /// # Errors
    /// Where one of the kinds cannot be listed, with the right that may be missing.
    pub async fn read(client: &Client, now: Timestamp) -> Result<Self> {
        let (nodes, gpu_nodes, pods) = try_join!(nodes(client), gpu_nodes(client), pods(client))?;
        Ok(Self { now, nodes, gpu_nodes, pods })
    }
}

/// The GpuNodes.
///
/// # Errors
/// Where they cannot be listed.
pub async fn gpu_nodes(client: &Client) -> Result<Vec<GpuNode>> {
    let gvk = GroupVersionKind::gvk(API_GROUP, API_VERSION, KIND);
    let resource = ApiResource::from_gvk_with_plural(&gvk, PLURAL);
    let api: Api<DynamicObject> = Api::all_with(client.clone(), &resource);
    let found = list(&api, "").await.context(
        "cannot list GpuNodes: is Stowage installed (deploy/crds), and may you list gpunodes.stowage.dev?",
    )?;
    let read = |mut object: DynamicObject| GpuNode {
        name: object.metadata.name.unwrap_or_default(),
        status: match object.data.get_mut("status").map(Value::take) {
            None => Ok(GpuNodeStatus::default()),
            Some(status) => serde_json::from_value(status).map_err(|error| error.to_string()),
        },
    };
    Ok(found.into_iter().map(read).collect())
}

/// The nodes.
///
/// # Errors
/// Where they cannot be listed.
pub async fn nodes(client: &Client) -> Result<Vec<Node>> {
    list(&Api::all(client.clone()), "").await.context("cannot list nodes: may you?")
}

/// The pods of all namespaces that run or will.
///
/// # Errors
/// Where they cannot be listed.
pub async fn pods(client: &Client) -> Result<Vec<Pod>> {
    let api: Api<Pod> = Api::all(client.clone());
    list(&api, LIVE_PODS)
        .await
        .context("cannot list pods in all namespaces: what is in use is reckoned from all of them; may you?")
}

/// Everything of a kind, page by page.
///
/// # Errors
/// What the API server says.
pub async fn list<K>(api: &Api<K>, fields: &str) -> kube::Result<Vec<K>>
where
    K: Clone + DeserializeOwned + Debug,
{
    let mut found = Vec::new();
    let mut params = ListParams::default().fields(fields).limit(PAGE);
    if fields.is_empty() {
        params.field_selector = None;
    }
    loop {
        let page = api.list(&params).await?;
        found.extend(page.items);
        match page.metadata.continue_.filter(|token| !token.is_empty()) {
            Some(token) => params = params.continue_token(&token),
            None => return Ok(found),
        }
    }
}
