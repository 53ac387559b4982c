//! Sets of fields as trees, in the `fieldsV1` form of `metadata.managedFields`: `f:name` for a member
//! of a map, `k:{"type":"Ready"}` for an item of a keyed list, an empty map for a value taken whole.

use serde_json::{Map, Value, json};

use super::super::resources::{ResourceType, Rules};
use super::strategic::merge_key;

/// The fields that a config names.
pub(super) fn fields_of(kind: &ResourceType, config: &Value) -> Value {
    let mut fields = tree(kind, config);
    if let Some(fields) = fields.as_object_mut() {
        fields.remove("f:apiVersion");
        fields.remove("f:kind");
    }
    // What identifies an object is nobody's field.
    let metadata = fields.get_mut("f:metadata").and_then(Value::as_object_mut);
    if let Some(metadata) = metadata {
        for key in ["name", "namespace", "uid", "resourceVersion", "creationTimestamp", "generation"] {
            metadata.remove(&format!("f:{key}"));
        }
        if metadata.is_empty() {
            fields.as_object_mut().map(|fields| fields.remove("f:metadata"));
        }
    }
    fields
}

fn tree(kind: &ResourceType, value: &Value) -> Value {
    let mut fields = Map::new();
    for (key, member) in value.as_object().into_iter().flatten() {
        let inner = match (list_key(kind, key), member) {
            (Some(list_key), Value::Array(items)) => items
                .iter()
                .map(|item| (item_name(list_key, item), tree(kind, item)))
                .collect::<Map<_, _>>()
                .into(),
            _ => tree(kind, member),
        };
        fields.insert(format!("f:{key}"), inner);
    }
    Value::Object(fields)
}

/// The member that tells the items of the list `field` apart, if they are told apart.
pub(super) fn list_key(kind: &ResourceType, field: &str) -> Option<&'static str> {
    // The only keyed list of a custom resource is the one in its metadata.
    merge_key(field).filter(|_| kind.rules != Rules::Custom || field == "ownerReferences")
}

fn item_name(key: &str, item: &Value) -> String {
    format!("k:{}", json!({ key: item[key] }))
}

/// The value that a path of a field tree stands for.
pub(super) fn look_up<'a>(value: &'a Value, path: &[String]) -> Option<&'a Value> {
    path.iter().try_fold(value, |inner, step| child(inner, step))
}

fn child<'a>(value: &'a Value, step: &str) -> Option<&'a Value> {
    match step.split_once(':')? {
        ("f", name) => value.get(name),
        (_, key) => value.as_array()?.iter().find(|item| is_item(item, key)),
    }
}

fn is_item(item: &Value, key: &str) -> bool {
    let Ok(Value::Object(key)) = serde_json::from_str(key) else { return false };
    key.iter().all(|(name, value)| item.get(name) == Some(value))
}

/// Calls `found` with the path of every value that both trees name.
pub(super) fn shared_leaves(
    ours: &Value,
    theirs: &Value,
    path: &mut Vec<String>,
    found: &mut impl FnMut(&[String]),
) {
    let (Some(ours), Some(theirs)) = (ours.as_object(), theirs.as_object()) else { return };
    for (step, ours) in ours {
        let Some(theirs) = theirs.get(step) else { continue };
        path.push(step.clone());
        let is_leaf = |tree: &Value| tree.as_object().is_none_or(Map::is_empty);
        // The key of a list item is in both of necessity.
        if is_leaf(ours) && is_leaf(theirs) {
            found(path);
        } else {
            shared_leaves(ours, theirs, path, found);
        }
        path.pop();
    }
}

/// Removes from `value` what `before` names and neither `after` nor any of `others` does.
pub(super) fn remove_unnamed(value: &mut Value, before: &Value, after: Option<&Value>, others: &[&Value]) {
    for (step, before) in before.as_object().into_iter().flatten() {
        let after = after.and_then(|tree| tree.get(step));
        let others: Vec<&Value> = others.iter().filter_map(|tree| tree.get(step)).collect();
        if after.is_none() && others.is_empty() {
            remove_child(value, step);
        } else if let Some(inner) = child_mut(value, step) {
            remove_unnamed(inner, before, after, &others);
        }
    }
}

fn child_mut<'a>(value: &'a mut Value, step: &str) -> Option<&'a mut Value> {
    match step.split_once(':')? {
        ("f", name) => value.get_mut(name),
        (_, key) => value.as_array_mut()?.iter_mut().find(|item| is_item(item, key)),
    }
}

fn remove_child(value: &mut Value, step: &str) {
    match step.split_once(':') {
        Some(("f", name)) => drop(value.as_object_mut().map(|map| map.remove(name))),
        Some((_, key)) => drop(value.as_array_mut().map(|items| items.retain(|item| !is_item(item, key)))),
        None => {}
    }
}

/// Takes `path` out of an applier's tree.
pub(super) fn disown(tree: &mut Value, path: &[String]) {
    match path {
        [] => {}
        [last] => drop(tree.as_object_mut().map(|map| map.remove(last))),
        [step, rest @ ..] => {
            if let Some(inner) = tree.get_mut(step) {
                disown(inner, rest);
            }
        }
    }
}

/// A path as messages show it: `.status.conditions[{"type":"Ready"}].status`.
pub(super) fn dotted(path: &[String]) -> String {
    path.iter()
        .map(|step| match step.split_once(':') {
            Some(("f", name)) => format!(".{name}"),
            Some((_, key)) => format!("[{key}]"),
            None => step.clone(),
        })
        .collect()
}
