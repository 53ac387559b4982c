//! A pod as the API server writes it.

use std::collections::BTreeMap;

use kube::api::ApiResource;
use serde::Deserialize;
use serde::de::IgnoredAny;
use stowage_shared::pod::{self as shared, PodStatus, Quantity, Resources};

use super::volume::Volume;
use super::{Condition, Wide};
use crate::api::{self, Watched};
use crate::book::amounts::Container;
use crate::book::null_is_default;
use crate::book::rules::{Labels, Selector, Term, Toleration};
use crate::state::event;

/// A pod as the API server writes it.
pub type PodObject = Wide<Spec, Status>;

/// A pod's spec.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Spec {
    #[serde(deserialize_with = "null_is_default")]
    pub(in crate::book) node_name: String,
    #[serde(deserialize_with = "null_is_default")]
    pub(in crate::book) scheduler_name: String,
    #[serde(deserialize_with = "null_is_default")]
    pub(in crate::book) priority: i32,
    #[serde(deserialize_with = "null_is_default")]
    pub(in crate::book) preemption_policy: String,
    #[serde(deserialize_with = "null_is_default")]
    pub(in crate::book) scheduling_gates: Vec<IgnoredAny>,
    #[serde(deserialize_with = "null_is_default")]
    pub(in crate::book) node_selector: Labels,
    #[serde(deserialize_with = "null_is_default")]
    pub(in crate::book) affinity: Affinity,
    #[serde(deserialize_with = "null_is_default")]
    pub(in crate::book) tolerations: Vec<Toleration>,
    #[serde(deserialize_with = "null_is_default")]
    pub(in crate::book) topology_spread_constraints: Vec<IgnoredAny>,
    #[serde(deserialize_with = "null_is_default")]
    pub(in crate::book) volumes: Vec<Volume>,
    #[serde(deserialize_with = "null_is_default")]
    pub(in crate::book) resource_claims: Vec<IgnoredAny>,
    /// Groups that are scheduled together, as Kubernetes 1.35 and 1.36 name them.
    pub(in crate::book) workload_ref: Option<IgnoredAny>,
    pub(in crate::book) scheduling_group: Option<IgnoredAny>,
    #[serde(deserialize_with = "null_is_default")]
    pub(in crate::book) resources: Resources,
    #[serde(deserialize_with = "null_is_default")]
    pub(in crate::book) overhead: BTreeMap<String, Quantity>,
    #[serde(deserialize_with = "null_is_default")]
    pub(in crate::book) init_containers: Vec<Container>,
    #[serde(deserialize_with = "null_is_default")]
    pub(in crate::book) containers: Vec<Container>,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(in crate::book) struct Affinity {
    #[serde(deserialize_with = "null_is_default")]
    pub(in crate::book) node_affinity: NodeAffinity,
    #[serde(deserialize_with = "null_is_default")]
    pub(in crate::book) pod_affinity: PodAffinity,
    #[serde(deserialize_with = "null_is_default")]
    pub(in crate::book) pod_anti_affinity: PodAffinity,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub(in crate::book) struct NodeAffinity {
    #[serde(rename = "requiredDuringSchedulingIgnoredDuringExecution", deserialize_with = "null_is_default")]
    pub(in crate::book) required: NodeSelector,
    #[serde(
        rename = "preferredDuringSchedulingIgnoredDuringExecution",
        deserialize_with = "null_is_default"
    )]
    pub(in crate::book) preferred: Vec<IgnoredAny>,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(in crate::book) struct NodeSelector {
    #[serde(deserialize_with = "null_is_default")]
    pub(in crate::book) node_selector_terms: Vec<Term>,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub(in crate::book) struct PodAffinity {
    #[serde(rename = "requiredDuringSchedulingIgnoredDuringExecution", deserialize_with = "null_is_default")]
    pub(in crate::book) required: Vec<PodTerm>,
    #[serde(
        rename = "preferredDuringSchedulingIgnoredDuringExecution",
        deserialize_with = "null_is_default"
    )]
    pub(in crate::book) preferred: Vec<IgnoredAny>,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(in crate::book) struct PodTerm {
    pub(in crate::book) label_selector: Option<Selector>,
    #[serde(deserialize_with = "null_is_default")]
    pub(in crate::book) namespaces: Vec<String>,
    pub(in crate::book) namespace_selector: Option<IgnoredAny>,
}

/// A pod's status.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Status {
    #[serde(deserialize_with = "null_is_default")]
    pub(in crate::book) phase: String,
    #[serde(deserialize_with = "null_is_default")]
    pub(in crate::book) nominated_node_name: String,
    #[serde(deserialize_with = "null_is_default")]
    pub(in crate::book) conditions: Vec<Condition>,
}

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
            resources: spec.resources,
            overhead: spec.overhead,
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
