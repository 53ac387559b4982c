//! Strategic merge patch: a merge patch that knows which lists are maps in disguise.
//!
//! All directives are followed: `$patch: delete` and `$patch: replace`, `$deleteFromPrimitiveList/…`,
//! `$retainKeys`, and `$setElementOrder/…` beside the list that it orders.

use serde_json::{Map, Value};

/// Lists that are merged item by item, and the member that tells their items apart. By field name
/// alone: no two lists of the types here share a name and differ in the key.
const KEYED: [(&str, &str); 18] = [
    ("conditions", "type"),
    ("addresses", "type"),
    ("containers", "name"),
    ("initContainers", "name"),
    ("ephemeralContainers", "name"),
    ("volumes", "name"),
    ("env", "name"),
    ("imagePullSecrets", "name"),
    ("secrets", "name"),
    ("schedulingGates", "name"),
    ("resourceClaims", "name"),
    ("ports", "containerPort"),
    ("volumeMounts", "mountPath"),
    ("volumeDevices", "devicePath"),
    ("ownerReferences", "uid"),
    ("podIPs", "ip"),
    ("hostAliases", "ip"),
    ("topologySpreadConstraints", "topologyKey"),
];

/// Lists that are sets: merging adds what is missing.
const SETS: [&str; 2] = ["finalizers", "podCIDRs"];

const DIRECTIVE: &str = "$patch";
const RETAIN_KEYS: &str = "$retainKeys";
const DELETE_FROM: &str = "$deleteFromPrimitiveList/";
const ELEMENT_ORDER: &str = "$setElementOrder/";

/// The member by which the items of the list `field` are told apart, if it is such a list.
pub(super) fn merge_key(field: &str) -> Option<&'static str> {
    KEYED.iter().find(|(name, _)| *name == field).map(|(_, key)| *key)
}

/// True of a list of plain values that is merged as a set.
pub(super) fn is_set(field: &str) -> bool {
    SETS.contains(&field)
}

/// Merges `patch` into `target`.
pub(super) fn merge(target: &mut Value, patch: &Value) {
    let Some(patch) = patch.as_object() else {
        *target = patch.clone();
        return;
    };
    if !target.is_object() || patch.get(DIRECTIVE).is_some_and(|what| what == "replace") {
        *target = Value::Object(Map::new());
    }
    let Some(target) = target.as_object_mut() else { return };
    if let Some(kept) = patch.get(RETAIN_KEYS).and_then(Value::as_array) {
        target.retain(|key, _| kept.iter().any(|name| name == key));
    }
    for (key, value) in patch {
        if key == DIRECTIVE || key == RETAIN_KEYS || key.starts_with(ELEMENT_ORDER) {
            continue;
        }
        if let Some(field) = key.strip_prefix(DELETE_FROM) {
            if let Some(items) = target.get_mut(field).and_then(Value::as_array_mut) {
                items.retain(|item| !value.as_array().is_some_and(|gone| gone.contains(item)));
            }
        } else if value.is_null() || is_deletion(value) {
            target.remove(key);
        } else {
            let order = patch.get(&format!("{ELEMENT_ORDER}{key}")).and_then(Value::as_array);
            merge_member(target.entry(key).or_insert(Value::Null), key, value, order);
        }
    }
}

fn merge_member(target: &mut Value, field: &str, patch: &Value, order: Option<&Vec<Value>>) {
    let Some(items) = patch.as_array() else {
        merge(target, patch);
        return;
    };
    let wanted: Vec<Value> = items.iter().filter(|item| !is_directive(item)).cloned().collect();
    let replaces = items.iter().any(|item| is_directive(item) && item[DIRECTIVE] == "replace");
    let keyed = merge_key(field).is_some() || is_set(field);
    match target.as_array_mut() {
        Some(old) if keyed && !replaces => {
            merge_list(old, merge_key(field), &wanted, order.unwrap_or(&wanted));
        }
        _ => *target = wanted.into_iter().filter(|item| !is_deletion(item)).collect::<Vec<_>>().into(),
    }
}

/// Merges item by item, then puts the list in order: the items that `order` names as it has them,
/// each other one before the first of these that stood behind it. So new items come first.
fn merge_list(items: &mut Vec<Value>, key: Option<&str>, wanted: &[Value], order: &[Value]) {
    let name = |item: &Value| key.map_or_else(|| item.clone(), |key| item[key].clone());
    let before: Vec<Value> = items.iter().map(name).collect();
    for item in wanted {
        let place = items.iter().position(|old| name(old) == name(item));
        match place {
            Some(place) if is_deletion(item) => drop(items.remove(place)),
            Some(place) => merge(&mut items[place], item),
            None if is_deletion(item) => {}
            None => {
                let mut new = Value::Null;
                merge(&mut new, item);
                items.push(new);
            }
        }
    }
    let order: Vec<Value> = order.iter().map(name).collect();
    let place_in = |list: &[Value], item: &Value| list.iter().position(|other| *other == name(item));
    let (mut named, others): (Vec<_>, Vec<_>) =
        std::mem::take(items).into_iter().partition(|item| place_in(&order, item).is_some());
    named.sort_by_key(|item| place_in(&order, item));
    let mut others = others.into_iter().peekable();
    for item in named {
        if let Some(place) = place_in(&before, &item) {
            while let Some(other) = others.next_if(|other| place_in(&before, other) < Some(place)) {
                items.push(other);
            }
        }
        items.push(item);
    }
    items.extend(others);
}

fn is_deletion(value: &Value) -> bool {
    value.get(DIRECTIVE).is_some_and(|what| what == "delete")
}

/// True of a list item that only says what to do with the list.
fn is_directive(value: &Value) -> bool {
    value.as_object().is_some_and(|map| map.len() == 1 && map.contains_key(DIRECTIVE))
}
