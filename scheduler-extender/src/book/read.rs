//! How the API server writes what the book keeps.
//!
//! These types take the place of the slim ones of [`crate::api`] where something of this is needed: one watch feeds
//! both, so that the two never see different pods. Nothing here fails for an object that somebody wrote oddly.

use std::borrow::Cow;
use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{OwnerReference, Time};
use kube::api::{ApiResource, ObjectMeta};
use kube::core::DynamicResourceScope;
use serde::de::IgnoredAny;
use serde::{Deserialize, Deserializer};
use stowage_shared::pod::{self as shared, OwnAnnotations, PodStatus, Quantity, Resources};

use super::amounts::Container;
use super::null_is_default;
use super::rules::{Labels, Selector, Taint, Term, Toleration};
use crate::api::{self, Watched};
use crate::state::event;

/// An object with the fields of its spec and status that `S` and `T` name.
#[derive(Debug, Clone, Deserialize)]
pub struct Wide<S, T> {
    #[serde(deserialize_with = "metadata")]
    pub(super) metadata: ObjectMeta,
    #[serde(default = "none")]
    pub(super) spec: Option<S>,
    #[serde(default = "none")]
    pub(super) status: Option<T>,
}

fn none<T>() -> Option<T> {
    None
}

impl<S, T> kube::Resource for Wide<S, T> {
    type DynamicType = ApiResource;
    type Scope = DynamicResourceScope;

    fn kind(of: &ApiResource) -> Cow<'_, str> {
        of.kind.as_str().into()
    }

    fn group(of: &ApiResource) -> Cow<'_, str> {
        of.group.as_str().into()
    }

    fn version(of: &ApiResource) -> Cow<'_, str> {
        of.version.as_str().into()
    }

    fn plural(of: &ApiResource) -> Cow<'_, str> {
        of.plural.as_str().into()
    }

    fn meta(&self) -> &ObjectMeta {
        &self.metadata
    }

    fn meta_mut(&mut self) -> &mut ObjectMeta {
        &mut self.metadata
    }
}

/// What the parser keeps of an object's metadata.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Metadata {
    name: Option<String>,
    namespace: Option<String>,
    uid: Option<String>,
    resource_version: Option<String>,
    #[serde(default)]
    creation_timestamp: Option<Time>,
    #[serde(default)]
    deletion_timestamp: Option<Time>,
    #[serde(default)]
    labels: Option<Labels>,
    #[serde(default)]
    annotations: OwnAnnotations,
    #[serde(default)]
    owner_references: Option<Vec<Owner>>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Owner {
    #[serde(deserialize_with = "null_is_default")]
    kind: String,
    #[serde(deserialize_with = "null_is_default")]
    uid: String,
    controller: Option<bool>,
}

fn metadata<'de, D: Deserializer<'de>>(deserializer: D) -> Result<ObjectMeta, D::Error> {
    let kept = Metadata::deserialize(deserializer)?;
    let owners = kept.owner_references.map(|owners| {
        let controllers = owners.into_iter().filter(|owner| owner.controller == Some(true));
        let owner = |Owner { kind, uid, controller }| OwnerReference {
            kind,
            uid,
            controller,
            ..OwnerReference::default()
        };
        controllers.map(owner).collect()
    });
    Ok(ObjectMeta {
        name: kept.name,
        namespace: kept.namespace,
        uid: kept.uid,
        resource_version: kept.resource_version,
        creation_timestamp: kept.creation_timestamp,
        deletion_timestamp: kept.deletion_timestamp,
        labels: kept.labels,
        annotations: Some(kept.annotations.into()),
        owner_references: owners,
        ..ObjectMeta::default()
    })
}

/// A pod's spec.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Spec {
    #[serde(deserialize_with = "null_is_default")]
    pub(super) node_name: String,
    #[serde(deserialize_with = "null_is_default")]
    pub(super) scheduler_name: String,
    #[serde(deserialize_with = "null_is_default")]
    pub(super) priority: i32,
    #[serde(deserialize_with = "null_is_default")]
    pub(super) preemption_policy: String,
    #[serde(deserialize_with = "null_is_default")]
    pub(super) scheduling_gates: Vec<IgnoredAny>,
    #[serde(deserialize_with = "null_is_default")]
    pub(super) node_selector: Labels,
    #[serde(deserialize_with = "null_is_default")]
    pub(super) affinity: Affinity,
    #[serde(deserialize_with = "null_is_default")]
    pub(super) tolerations: Vec<Toleration>,
    #[serde(deserialize_with = "null_is_default")]
    pub(super) topology_spread_constraints: Vec<IgnoredAny>,
    #[serde(deserialize_with = "null_is_default")]
    pub(super) volumes: Vec<BTreeMap<String, IgnoredAny>>,
    #[serde(deserialize_with = "null_is_default")]
    pub(super) resource_claims: Vec<IgnoredAny>,
    /// Groups that are scheduled together, as Kubernetes 1.35 and 1.36 name them.
    pub(super) workload_ref: Option<IgnoredAny>,
    pub(super) scheduling_group: Option<IgnoredAny>,
    #[serde(deserialize_with = "null_is_default")]
    pub(super) resources: Resources,
    #[serde(deserialize_with = "null_is_default")]
    pub(super) overhead: BTreeMap<String, Quantity>,
    #[serde(deserialize_with = "null_is_default")]
    pub(super) init_containers: Vec<Container>,
    #[serde(deserialize_with = "null_is_default")]
    pub(super) containers: Vec<Container>,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct Affinity {
    #[serde(deserialize_with = "null_is_default")]
    pub(super) node_affinity: NodeAffinity,
    #[serde(deserialize_with = "null_is_default")]
    pub(super) pod_affinity: PodAffinity,
    #[serde(deserialize_with = "null_is_default")]
    pub(super) pod_anti_affinity: PodAffinity,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub(super) struct NodeAffinity {
    #[serde(rename = "requiredDuringSchedulingIgnoredDuringExecution", deserialize_with = "null_is_default")]
    pub(super) required: NodeSelector,
    #[serde(
        rename = "preferredDuringSchedulingIgnoredDuringExecution",
        deserialize_with = "null_is_default"
    )]
    pub(super) preferred: Vec<IgnoredAny>,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct NodeSelector {
    #[serde(deserialize_with = "null_is_default")]
    pub(super) node_selector_terms: Vec<Term>,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub(super) struct PodAffinity {
    #[serde(rename = "requiredDuringSchedulingIgnoredDuringExecution", deserialize_with = "null_is_default")]
    pub(super) required: Vec<PodTerm>,
    #[serde(
        rename = "preferredDuringSchedulingIgnoredDuringExecution",
        deserialize_with = "null_is_default"
    )]
    pub(super) preferred: Vec<IgnoredAny>,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct PodTerm {
    pub(super) label_selector: Option<Selector>,
    #[serde(deserialize_with = "null_is_default")]
    pub(super) namespaces: Vec<String>,
    pub(super) namespace_selector: Option<IgnoredAny>,
}

/// A pod's status.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Status {
    #[serde(deserialize_with = "null_is_default")]
    pub(super) phase: String,
    #[serde(deserialize_with = "null_is_default")]
    pub(super) nominated_node_name: String,
    #[serde(deserialize_with = "null_is_default")]
    pub(super) conditions: Vec<Condition>,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub(super) struct Condition {
    #[serde(rename = "type", deserialize_with = "null_is_default")]
    pub(super) kind: String,
    #[serde(deserialize_with = "null_is_default")]
    pub(super) status: String,
    #[serde(deserialize_with = "null_is_default")]
    pub(super) reason: String,
}

/// A node's spec.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub struct NodeSpec {
    #[serde(deserialize_with = "null_is_default")]
    pub(super) unschedulable: bool,
    #[serde(deserialize_with = "null_is_default")]
    pub(super) taints: Vec<Taint>,
}

/// A node's status.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub struct NodeStatus {
    #[serde(deserialize_with = "null_is_default")]
    pub(super) conditions: Vec<Condition>,
    #[serde(deserialize_with = "null_is_default")]
    pub(super) allocatable: BTreeMap<String, Quantity>,
}

/// A PodDisruptionBudget's spec.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub struct BudgetSpec {
    pub(super) selector: Option<Selector>,
}

/// A PodDisruptionBudget's status.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct BudgetStatus {
    #[serde(deserialize_with = "null_is_default")]
    pub(super) disruptions_allowed: i64,
}

/// A pod as the API server writes it.
pub type PodObject = Wide<Spec, Status>;
/// A node.
pub type NodeObject = Wide<NodeSpec, NodeStatus>;
/// A PodDisruptionBudget.
pub type BudgetObject = Wide<BudgetSpec, BudgetStatus>;

impl Watched for PodObject {
    type Seen = Self;

    fn resource() -> ApiResource {
        api::Pod::resource()
    }

    fn seen(self) -> Self {
        self
    }

    fn key(&self) -> String {
        self.metadata.uid.clone().unwrap_or_default()
    }
}

impl PodObject {
    /// What the state is told of it: the same as by [`api::Pod`].
    pub fn narrow(&self) -> event::Pod {
        let (metadata, spec) = (&self.metadata, self.spec.clone().unwrap_or_default());
        let container = |it: Container| shared::Container {
            name: it.name,
            restart_policy: it.restart_policy,
            resources: it.resources,
        };
        let status = self.status.as_ref();
        let status = PodStatus {
            phase: status.map_or("", |status| &status.phase).to_owned(),
            nominated_node_name: status.map_or("", |status| &status.nominated_node_name).to_owned(),
        };
        let spec = shared::PodSpec {
            node_name: spec.node_name,
            scheduler_name: spec.scheduler_name,
            priority: spec.priority,
            init_containers: spec.init_containers.into_iter().map(container).collect(),
            containers: spec.containers.into_iter().map(container).collect(),
        };
        let id = event::PodId {
            uid: metadata.uid.clone().unwrap_or_default(),
            namespace: metadata.namespace.clone().unwrap_or_default(),
            name: metadata.name.clone().unwrap_or_default(),
        };
        let annotations = metadata.annotations.clone().unwrap_or_default().into_iter().collect();
        event::Pod::of(id, metadata.deletion_timestamp.is_some(), annotations, spec, &status)
    }
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
            allocatable: api::counts(status.allocatable),
        }
    }
}

impl Watched for BudgetObject {
    type Seen = Self;

    fn resource() -> ApiResource {
        api::resource("policy", "v1", "PodDisruptionBudget", "poddisruptionbudgets")
    }

    fn seen(self) -> Self {
        self
    }

    fn key(&self) -> String {
        let (namespace, name) = (&self.metadata.namespace, &self.metadata.name);
        format!("{}/{}", namespace.as_deref().unwrap_or_default(), name.as_deref().unwrap_or_default())
    }
}
