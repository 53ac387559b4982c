//! A node as the API server writes it.

use std::collections::BTreeMap;

use kube::api::ApiResource;
use serde::Deserialize;
use stowage_shared::pod::Quantity;

use super::{Condition, Wide};
use crate::api::{self, Watched};
use crate::book::null_is_default;
use crate::book::rules::Taint;
use crate::state::event;

/// A node as the API server writes it.
pub type NodeObject = Wide<NodeSpec, NodeStatus>;

/// A node's spec.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub struct NodeSpec {
    #[serde(deserialize_with = "null_is_default")]
    pub(in crate::book) unschedulable: bool,
    #[serde(deserialize_with = "null_is_default")]
    pub(in crate::book) taints: Vec<Taint>,
}

/// A node's status.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub struct NodeStatus {
    #[serde(deserialize_with = "null_is_default")]
    pub(in crate::book) conditions: Vec<Condition>,
    #[serde(deserialize_with = "null_is_default")]
    pub(in crate::book) allocatable: BTreeMap<String, Quantity>,
}

impl Watched for NodeObject {
    type Seen = Self;

    fn resource() -> ApiResource {
        api::Node::resource()
    }

    fn seen(self) -> Self {
        self
    }

    fn key(&self) -> String {
        self.metadata.name.clone().unwrap_or_default()
    }
}

impl NodeObject {
    /// What the state is told of it: the same as by [`api::Node`].
    pub fn narrow(&self) -> event::Node {
        let status = self.status.clone().unwrap_or_default();
        event::Node {
            name: self.metadata.name.clone().unwrap_or_default(),
            uid: self.metadata.uid.clone().unwrap_or_default(),
            ready: status.conditions.iter().any(|it| it.kind == "Ready" && it.status == "True"),
            host: api::host(&status.allocatable),
            allocatable: api::counts(status.allocatable),
            reserve: api::reserve(self.metadata.labels.as_ref()),
        }
    }
}
