//! A PodDisruptionBudget as the API server writes it.

use kube::api::ApiResource;
use serde::Deserialize;

use super::Wide;
use crate::api::{self, Watched};
use crate::book::null_is_default;
use crate::book::rules::Selector;

/// A PodDisruptionBudget as the API server writes it.
pub type BudgetObject = Wide<BudgetSpec, BudgetStatus>;

/// A PodDisruptionBudget's spec.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub struct BudgetSpec {
    pub(in crate::book) selector: Option<Selector>,
}

/// A PodDisruptionBudget's status.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct BudgetStatus {
    #[serde(deserialize_with = "null_is_default")]
    pub(in crate::book) disruptions_allowed: i64,
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
