//! What the server makes of an object before it stores it: what it fills in, what it does not let
//! anyone change, and what it refuses.
//!
//! Only the rules that our programs can meet are here. Missing on purpose: admission plugins (no
//! tolerations, priorities or token volumes are added), schemas of custom resources, and most of the
//! validation of built-in types. An object that this server takes may be refused by the real one;
//! one that the real server takes is taken here.

mod deletion;
mod metadata;
mod pod;

use std::sync::Arc;

use serde_json::{Value, json};

pub(super) use self::deletion::{Deletion, begin_delete, is_finished};
pub(super) use self::metadata::{check_identity, check_same_uid, check_type, check_uid, check_version};

use super::error::{ApiError, FieldError};
use super::object::{self, Object, copy_or_remove, map_in, now, text, without_nulls};
use super::resources::{ResourceType, Rules};
use super::store::Part;

/// A new object as it is stored, but for its version. `uid` becomes its UID, and `suffix` ends its
/// name if it asks for a generated one.
///
/// # Errors
/// 422 for an invalid object, 500 for one that has a version already.
pub(super) fn prepare_create(
    kind: &ResourceType,
    namespace: &str,
    object: Value,
    uid: String,
    suffix: &str,
) -> Result<Value, ApiError> {
    let mut object = without_nulls(object);
    metadata::stamp(kind, namespace, &mut object, uid, suffix)?;
    match kind.rules {
        Rules::Pod => pod::prepare_create(kind, &mut object)?,
        Rules::Namespace => {
            let name = text(&object, &["metadata", "name"]).to_owned();
            let labels = map_in(&mut object["metadata"], "labels");
            labels.insert("kubernetes.io/metadata.name".to_owned(), name.into());
            object["spec"] = json!({ "finalizers": ["kubernetes"] });
            object["status"] = json!({ "phase": "Active" });
        }
        Rules::BuiltIn => {}
        Rules::Custom => {
            object::metadata(&mut object).insert("generation".to_owned(), 1.into());
            if kind.status {
                remove_member(&mut object, "status");
            }
        }
    }
    metadata::drop_empty(kind, &mut object);
    metadata::check(kind, &object)?;
    Ok(object)
}

/// An update of `current` to `object` as it is stored, but for its version.
///
/// # Errors
/// 409 for a version that is not `current`'s, 422 for what may not be or not be changed.
pub(super) fn prepare_update(
    kind: &ResourceType,
    part: Part,
    current: &Arc<Object>,
    object: Value,
) -> Result<Value, ApiError> {
    let mut object = without_nulls(object);
    let version = text(&object, &["metadata", "resourceVersion"]);
    match version {
        "" | "0" if !kind.unconditional_update => {
            let why = "must be specified for an update";
            let cause = FieldError::invalid("metadata.resourceVersion", "0", why);
            let (group, resource) = (&kind.gvr.group, &kind.gvr.resource);
            return Err(ApiError::invalid_kind(group, resource, current.name(), &cause));
        }
        "" | "0" => {}
        _ if version == current.version().to_string() => {}
        _ => return Err(ApiError::modified(kind, current.name())),
    }
    keep_other_half(kind, part, current, &mut object);
    metadata::keep_system_fields(current, &mut object);
    match (kind.rules, part) {
        (Rules::Pod, Part::Main) => pod::prepare_update(kind, current, &mut object)?,
        (Rules::Pod, Part::Status) => pod::prepare_status(kind, current, &mut object)?,
        (Rules::Custom, Part::Main) if spec_changed(current, &object) => {
            metadata::bump_generation(&mut object);
        }
        _ => {}
    }
    metadata::drop_empty(kind, &mut object);
    metadata::check(kind, &object)?;
    metadata::check_finalizers(kind, current, &object)?;
    Ok(object)
}

/// A write to one half leaves the other alone. What "the other half" is differs: a custom resource's
/// status write changes nothing but `status`, a built-in's may change labels and annotations too.
fn keep_other_half(kind: &ResourceType, part: Part, current: &Object, object: &mut Value) {
    if !kind.status {
        return;
    }
    match (part, kind.rules) {
        (Part::Main, _) => copy_member(object, current, "status"),
        (Part::Status, Rules::Custom) => {
            let status = object.get("status").cloned();
            let managed = object.get("metadata").and_then(|own| own.get("managedFields")).cloned();
            *object = Value::clone(current);
            match status {
                Some(status) => object["status"] = status,
                None => remove_member(object, "status"),
            }
            if let Some(managed) = managed {
                object["metadata"]["managedFields"] = managed;
            }
        }
        (Part::Status, _) => copy_member(object, current, "spec"),
    }
    if kind.rules == Rules::Namespace {
        copy_member(object, current, "spec");
    }
}

/// Sets a status condition by its type; `lastTransitionTime` moves only if its status changes.
pub(super) fn set_condition(object: &mut Value, mut condition: Value) {
    let conditions = map_in(object, "status").entry("conditions").or_insert_with(|| Value::Array(Vec::new()));
    let Some(conditions) = conditions.as_array_mut() else { return };
    let old = conditions.iter_mut().find(|old| old["type"] == condition["type"]);
    let since = old.as_ref().filter(|old| old["status"] == condition["status"]);
    condition["lastTransitionTime"] =
        since.map(|old| old["lastTransitionTime"].clone()).unwrap_or_else(|| now().into());
    match old {
        Some(old) => *old = condition,
        None => conditions.push(condition),
    }
}

fn spec_changed(current: &Value, object: &Value) -> bool {
    let others = |value: &Value| {
        let mut rest = value.clone();
        remove_member(&mut rest, "metadata");
        rest
    };
    others(current) != others(object)
}

fn copy_member(object: &mut Value, from: &Value, key: &str) {
    if let Some(map) = object.as_object_mut() {
        copy_or_remove(map, Some(from), key);
    }
}

fn remove_member(object: &mut Value, key: &str) {
    object.as_object_mut().map(|map| map.remove(key));
}
