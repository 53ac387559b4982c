//! Server-side apply, in a simple form.
//!
//! What is as on the real server: the config is merged; each applier's fields are recorded in
//! `metadata.managedFields`; a field that an applier no longer names goes away unless another applier
//! names it; a field that another applier set to another value is a conflict, which `force` wins.
//!
//! What is not: only appliers own fields. Creates, updates and other patches own none, so an apply
//! never conflicts with them. Lists of custom resources are always replaced whole, and lists of
//! built-in types are keyed by one member (the table in [`strategic`](super::strategic)).

use serde_json::{Map, Value, json};

use super::super::error::{ApiError, FieldError};
use super::super::object::{self, list, now, text};
use super::super::resources::ResourceType;
use super::super::store::Part;
use super::fields::{disown, dotted, fields_of, list_key, look_up, remove_unnamed, shared_leaves};
use super::strategic::is_set;

/// What an applier wants an object to be.
#[derive(Clone, Debug)]
pub struct ApplyConfig {
    config: Value,
    manager: String,
    force: bool,
}

impl ApplyConfig {
    /// `config` names the fields that `manager` wants; `force` takes them from other appliers.
    ///
    /// # Errors
    /// 422 without a manager, 400 for a config without a type or with `managedFields`.
    pub fn new(config: Value, manager: &str, force: bool) -> Result<Self, ApiError> {
        if manager.is_empty() {
            let cause = FieldError::required("fieldManager", "is required for apply patch");
            return Err(ApiError::invalid_options("PatchOptions", &cause));
        }
        if text(&config, &["apiVersion"]).is_empty() || text(&config, &["kind"]).is_empty() {
            return Err(ApiError::bad_request("apiVersion and kind are required in an apply patch"));
        }
        if object::at(&config, &["metadata", "managedFields"]).is_some() {
            return Err(ApiError::bad_request("metadata.managedFields must be nil"));
        }
        Ok(Self { config, manager: manager.to_owned(), force })
    }
}

/// The object that an apply creates where there is none.
///
/// # Errors
/// 400 for a config that names another object.
pub(in super::super) fn first_apply(
    kind: &ResourceType,
    name: &str,
    apply: &ApplyConfig,
) -> Result<Value, ApiError> {
    let mut object = apply.config.clone();
    let own = text(&object, &["metadata", "name"]).to_owned();
    if !own.is_empty() && own != name {
        let why = format!("the name of the object ({own}) does not match the name on the URL ({name})");
        return Err(ApiError::bad_request(why));
    }
    object::metadata(&mut object).insert("name".to_owned(), name.into());
    let fields = fields_of(kind, &apply.config);
    record(kind, Part::Main, &mut object, apply, fields);
    Ok(object)
}

/// Applies to an object that exists.
///
/// # Errors
/// 409 for fields that other appliers have set otherwise, unless forced.
pub(super) fn apply(
    kind: &ResourceType,
    part: Part,
    object: &mut Value,
    apply: &ApplyConfig,
) -> Result<(), ApiError> {
    let fields = fields_of(kind, &apply.config);
    let entries: Vec<Value> = list(object, &["metadata", "managedFields"]).to_vec();
    let (own, others): (Vec<_>, Vec<_>) =
        entries.iter().partition(|entry| is_of(entry, part, &apply.manager));

    let mut conflicts = Vec::new();
    for entry in &others {
        let mut path = Vec::new();
        let differs = |path: &[String]| {
            let (is, wanted) = (look_up(object, path), look_up(&apply.config, path));
            // Two maps agree on being maps; what is in them has paths of its own.
            let both_maps = is.is_some_and(Value::is_object) && wanted.is_some_and(Value::is_object);
            is != wanted && !both_maps
        };
        shared_leaves(&fields, &entry["fieldsV1"], &mut path, &mut |path| {
            if differs(path) {
                conflicts.push((entry["manager"].as_str().unwrap_or_default().to_owned(), path.to_vec()));
            }
        });
    }
    if !conflicts.is_empty() && !apply.force {
        return Err(conflict(&conflicts));
    }

    let others: Vec<&Value> = others.iter().map(|entry| &entry["fieldsV1"]).collect();
    for entry in own {
        remove_unnamed(object, &entry["fieldsV1"], Some(&fields), &others);
    }
    merge(kind, object, &apply.config);
    let managed = object::metadata(object).get_mut("managedFields").and_then(Value::as_array_mut);
    for entry in managed.into_iter().flatten() {
        let lost: Vec<_> =
            conflicts.iter().filter(|(manager, _)| entry["manager"] == manager.as_str()).collect();
        for (_, path) in lost {
            disown(&mut entry["fieldsV1"], path);
        }
    }
    record(kind, part, object, apply, fields);
    Ok(())
}

/// Writes the applier's fields down, in the form the real server uses.
fn record(kind: &ResourceType, part: Part, object: &mut Value, apply: &ApplyConfig, fields: Value) {
    let mut entry = json!({
        "manager": apply.manager,
        "operation": "Apply",
        "apiVersion": kind.api_version(),
        "time": now(),
        "fieldsType": "FieldsV1",
        "fieldsV1": fields,
    });
    if part == Part::Status {
        entry["subresource"] = "status".into();
    }
    let managed = object::metadata(object).entry("managedFields").or_insert_with(|| json!([]));
    let Some(managed) = managed.as_array_mut() else { return };
    match managed.iter_mut().find(|old| is_of(old, part, &apply.manager)) {
        // An apply that changes nothing must not look like a change, so its time stays.
        Some(old) if old["fieldsV1"] == entry["fieldsV1"] => {}
        Some(old) => *old = entry,
        None => managed.push(entry),
    }
}

fn is_of(entry: &Value, part: Part, manager: &str) -> bool {
    let subresource = if part == Part::Status { "status" } else { "" };
    text(entry, &["manager"]) == manager && text(entry, &["subresource"]) == subresource
}

/// Merges a config: maps member by member, keyed lists item by item, everything else whole.
fn merge(kind: &ResourceType, target: &mut Value, config: &Value) {
    let Some(config) = config.as_object() else {
        *target = config.clone();
        return;
    };
    if !target.is_object() {
        *target = Value::Object(Map::new());
    }
    let Some(target) = target.as_object_mut() else { return };
    for (field, wanted) in config {
        let member = target.entry(field).or_insert(Value::Null);
        match (list_key(kind, field), member.as_array_mut(), wanted) {
            (Some(key), Some(items), Value::Array(wanted)) => {
                for item in wanted {
                    match items.iter_mut().find(|old| old[key] == item[key]) {
                        Some(old) => merge(kind, old, item),
                        None => items.push(item.clone()),
                    }
                }
            }
            (None, Some(items), Value::Array(wanted)) if is_set(field) => {
                items.extend(wanted.iter().filter(|item| !items.contains(item)).cloned().collect::<Vec<_>>());
            }
            _ => merge(kind, member, wanted),
        }
    }
}

fn conflict(conflicts: &[(String, Vec<String>)]) -> ApiError {
    let count = conflicts.len();
    let plural = if count == 1 { "" } else { "s" };
    let sentence =
        |(manager, path): &(String, Vec<String>)| format!("conflict with \"{manager}\": {}", dotted(path));
    let sentences: Vec<String> = conflicts.iter().map(sentence).collect();
    let causes: Vec<Value> = conflicts
        .iter()
        .map(|it| {
            json!({
                "reason": "FieldManagerConflict",
                "message": format!("conflict with \"{}\"", it.0),
                "field": dotted(&it.1),
            })
        })
        .collect();
    let message = format!("Apply failed with {count} conflict{plural}: {}", sentences.join(", "));
    let mut refusal = ApiError::new(409, "Conflict", message);
    refusal.details = json!({ "causes": causes });
    refusal
}
