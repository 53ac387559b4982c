//! Evictions: deletions that PodDisruptionBudgets may refuse.
//!
//! As `EvictionREST` of the real server does it, without its exceptions for pods that do not run yet: of the budgets
//! that select the pod each must allow one more disruption, and then allows one less. No controller gives it back.

use serde_json::Value;

use super::super::error::ApiError;
use super::super::object::{at, number, text};
use super::super::resources::{BUDGETS, PODS};
use super::write::{DeleteOptions, Deleted, Part};
use super::{ListOptions, Store};

impl Store {
    /// Evicts a pod, as a POST to `pods/eviction` does.
    ///
    /// # Errors
    /// 429 where a budget does not allow it; else as [`delete`](Self::delete).
    pub fn evict(&self, namespace: &str, name: &str, options: &DeleteOptions) -> Result<Deleted, ApiError> {
        let pod = self.get(&PODS, namespace, name)?;
        let which = ListOptions { namespace: Some(namespace.to_owned()), ..ListOptions::default() };
        let budgets = self.list(&BUDGETS, &which)?.items;
        let protecting: Vec<_> = budgets.into_iter().filter(|budget| selects(budget, &pod)).collect();
        for budget in &protecting {
            if number(budget, &["status", "disruptionsAllowed"]).unwrap_or(0) <= 0 {
                let why = "Cannot evict pod as it would violate the pod's disruption budget.";
                return Err(ApiError::new(429, "TooManyRequests", why));
            }
        }
        let deleted = self.delete(&PODS, namespace, name, options)?;
        for budget in protecting {
            self.modify(&BUDGETS, namespace, budget.name(), Part::Status, |object| {
                let allowed = number(object, &["status", "disruptionsAllowed"]).unwrap_or(0);
                object["status"]["disruptionsAllowed"] = (allowed - 1).into();
            })?;
        }
        Ok(deleted)
    }
}

/// Whether a budget's `matchLabels` select a pod; expressions are not read.
fn selects(budget: &Value, pod: &Value) -> bool {
    let Some(selector) = at(budget, &["spec", "selector"]) else { return false };
    let labels = at(selector, &["matchLabels"]).and_then(Value::as_object);
    labels
        .into_iter()
        .flatten()
        .all(|(key, value)| value.as_str() == Some(text(pod, &["metadata", "labels", key])))
}
