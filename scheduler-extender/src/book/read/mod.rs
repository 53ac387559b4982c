//! How the API server writes what the book keeps.
//!
//! These types take the place of the slim ones of [`crate::api`] where something of this is needed: one watch feeds
//! both, so that the two never see different pods. Nothing here fails for an object that somebody wrote oddly.

mod budget;
mod node;
mod pod;
mod volume;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ManagedFieldsEntry, OwnerReference, Time};
use kube::api::ObjectMeta;
use serde::de::IgnoredAny;
use serde::{Deserialize, Deserializer};
use stowage_shared::pod::OwnAnnotations;

pub use self::budget::{BudgetObject, BudgetSpec, BudgetStatus};
pub use self::node::{NodeObject, NodeSpec, NodeStatus};
pub use self::pod::{PodObject, Spec, Status};

pub(super) use self::pod::PodTerm;

use super::null_is_default;
use super::rules::Labels;
use crate::api::{Keeps, Object};
use crate::planner::write::FIELD_MANAGER;

/// An object with the fields of its spec and status that `S` and `T` name, and with whose it is.
pub type Wide<S, T> = Object<S, T, WhoseItIs>;

/// Labels, owner, age, and who has nominated a pod: kept of metadata beside what the state needs.
#[derive(Debug, Clone, Copy)]
pub struct WhoseItIs;

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
    #[serde(default)]
    managed_fields: Option<Vec<Managed>>,
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

/// Who wrote which fields last; of the fields, the one that matters.
#[derive(Default, Deserialize)]
#[serde(default)]
struct Managed {
    #[serde(deserialize_with = "null_is_default")]
    manager: String,
    #[serde(rename = "fieldsV1", deserialize_with = "null_is_default")]
    fields: Fields,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Fields {
    #[serde(rename = "f:status", deserialize_with = "null_is_default")]
    status: StatusFields,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct StatusFields {
    #[serde(rename = "f:nominatedNodeName")]
    nominated_node_name: Option<IgnoredAny>,
}

impl Managed {
    fn is_our_nomination(&self) -> bool {
        self.manager == FIELD_MANAGER && self.fields.status.nominated_node_name.is_some()
    }
}

/// Whether we were the last to nominate the pod with this metadata.
pub(super) fn is_nominated_by_us(metadata: &ObjectMeta) -> bool {
    metadata.managed_fields.iter().flatten().any(|entry| entry.manager.as_deref() == Some(FIELD_MANAGER))
}

impl Keeps for WhoseItIs {
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
        let ours = kept.managed_fields.into_iter().flatten().find(Managed::is_our_nomination);
        let ours = ours.map(|Managed { manager, .. }| {
            vec![ManagedFieldsEntry { manager: Some(manager), ..ManagedFieldsEntry::default() }]
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
            managed_fields: ours,
            ..ObjectMeta::default()
        })
    }
}

/// A condition of a pod or a node.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub(in crate::book) struct Condition {
    #[serde(rename = "type", deserialize_with = "null_is_default")]
    pub(in crate::book) kind: String,
    #[serde(deserialize_with = "null_is_default")]
    pub(in crate::book) status: String,
    #[serde(deserialize_with = "null_is_default")]
    pub(in crate::book) reason: String,
}
