//! Bindings: how a scheduler gives a pod its node, with everything else that belongs to that moment,
//! in one write.
//!
//! As `BindingREST` of the real server (`pkg/registry/core/pod/storage/storage.go`, 1.36.1) does it:
//! nothing but the target is validated, so neither a node that does not exist nor an annotation
//! longer than any update may have it is refused.

use std::sync::Arc;

use serde_json::{Value, json};

use super::super::error::ApiError;
use super::super::object::{Object, list, map_in, metadata, text};
use super::super::resources::PODS;
use super::super::rules;
use super::collection::Key;
use super::{State, Store};

impl Store {
    /// Binds a pod, as a POST of `binding` to `pods/binding` does; answers with the bound pod.
    ///
    /// `metadata.uid` and `metadata.resourceVersion` of the binding are preconditions; its
    /// annotations and labels go over the pod's own.
    ///
    /// # Errors
    /// 404 for a pod that is not there; 409 for a precondition that fails and for a pod that is
    /// bound, being deleted, or behind a scheduling gate; 400 or 500 for a binding without a target.
    pub fn bind(&self, namespace: &str, name: &str, binding: &Value) -> Result<Arc<Object>, ApiError> {
        self.bind_or_try(namespace, name, binding, false)
    }

    pub(in super::super) fn bind_or_try(
        &self,
        namespace: &str,
        name: &str,
        binding: &Value,
        dry_run: bool,
    ) -> Result<Arc<Object>, ApiError> {
        self.with(|state| bind(state, namespace, name, binding, dry_run))
    }
}

fn bind(
    state: &mut State,
    namespace: &str,
    name: &str,
    binding: &Value,
    dry_run: bool,
) -> Result<Arc<Object>, ApiError> {
    if text(binding, &["metadata", "name"]) != name {
        return Err(ApiError::bad_request("name in URL does not match name in Binding object"));
    }
    let target_kind = text(binding, &["target", "kind"]);
    if !["", "Node"].contains(&target_kind) {
        let why = format!(
            "target.kind: Unsupported value: \"{target_kind}\": supported values: \"Node\", \"<empty>\""
        );
        return Err(ApiError::new(500, "", why));
    }
    let node = text(binding, &["target", "name"]);
    if node.is_empty() {
        return Err(ApiError::new(500, "", "target.name: Required value"));
    }

    let key = Key::new(namespace, name);
    let collection = state.collection(&PODS)?;
    let pod = collection.get(&key)?;
    rules::check_uid(&collection.kind, &pod, text(binding, &["metadata", "uid"]))?;
    rules::check_version(&collection.kind, &pod, text(binding, &["metadata", "resourceVersion"]))?;
    if !text(&pod, &["metadata", "deletionTimestamp"]).is_empty() {
        let why = format!("pod {name} is being deleted, cannot be assigned to a host");
        return Err(ApiError::binding_conflict(name, &why));
    }
    let bound_to = text(&pod, &["spec", "nodeName"]);
    if !bound_to.is_empty() {
        let why = format!("pod {name} is already assigned to node \"{bound_to}\"");
        return Err(ApiError::binding_conflict(name, &why));
    }
    if !list(&pod, &["spec", "schedulingGates"]).is_empty() {
        let why = format!("pod {name} has non-empty .spec.schedulingGates");
        return Err(ApiError::binding_conflict(name, &why));
    }

    let mut bound = Value::clone(&pod);
    for key in ["annotations", "labels"] {
        let Some(added) = binding["metadata"][key].as_object().filter(|added| !added.is_empty()) else {
            continue;
        };
        let own = metadata(&mut bound).entry(key).or_insert_with(|| json!({}));
        own.as_object_mut().into_iter().for_each(|own| own.extend(added.clone()));
    }
    map_in(&mut bound, "spec").insert("nodeName".to_owned(), node.into());
    map_in(&mut bound, "status").remove("nominatedNodeName");
    rules::set_condition(&mut bound, json!({ "type": "PodScheduled", "status": "True" }));
    state.commit(&PODS, key, &pod, bound, dry_run)
}
