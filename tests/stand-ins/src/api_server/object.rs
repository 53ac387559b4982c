//! One stored object: its JSON tree, and its text, written once however many watchers get it.

use std::ops::Deref;
use std::sync::OnceLock;

use bytes::Bytes;
use serde_json::{Map, Value};

/// An object at one version, immutable. Derefs to its JSON tree.
#[derive(Debug)]
pub struct Object {
    value: Value,
    version: u64,
    /// The members as text, without braces and without `kind` and `apiVersion`: a list of a
    /// built-in type leaves those two out, a watch event has them.
    members: OnceLock<Bytes>,
}

impl Object {
    pub(super) fn new(value: Value) -> Self {
        let version = text(&value, &["metadata", "resourceVersion"]).parse().unwrap_or_default();
        Self { value, version, members: OnceLock::new() }
    }

    /// `metadata.name`.
    pub fn name(&self) -> &str {
        text(&self.value, &["metadata", "name"])
    }

    /// `metadata.namespace`; empty for a cluster-scoped object.
    pub fn namespace(&self) -> &str {
        text(&self.value, &["metadata", "namespace"])
    }

    /// `metadata.uid`.
    pub fn uid(&self) -> &str {
        text(&self.value, &["metadata", "uid"])
    }

    /// `metadata.resourceVersion`.
    pub fn version(&self) -> u64 {
        self.version
    }

    /// Appends the object as JSON; `with_type` adds `kind` and `apiVersion`.
    pub(super) fn write(&self, out: &mut Vec<u8>, with_type: bool) {
        out.push(b'{');
        if with_type {
            for key in ["kind", "apiVersion"] {
                if let Some(value) = self.value.get(key) {
                    write_member(out, key, value);
                    out.push(b',');
                }
            }
        }
        out.extend_from_slice(self.members.get_or_init(|| members(&self.value)));
        out.push(b'}');
    }
}

impl Deref for Object {
    type Target = Value;

    fn deref(&self) -> &Value {
        &self.value
    }
}

/// Every object has `metadata`, so the members are never empty and the comma above never dangles.
fn members(value: &Value) -> Bytes {
    let mut out = Vec::new();
    for (key, member) in value.as_object().into_iter().flatten() {
        if key == "kind" || key == "apiVersion" {
            continue;
        }
        if !out.is_empty() {
            out.push(b',');
        }
        write_member(&mut out, key, member);
    }
    Bytes::from(out)
}

fn write_member(out: &mut Vec<u8>, key: &str, value: &Value) {
    write_json(out, &Value::from(key));
    out.push(b':');
    write_json(out, value);
}

/// Appends a JSON tree as text.
pub(super) fn write_json(out: &mut Vec<u8>, value: &Value) {
    serde_json::to_writer(out, value).expect("a JSON tree with text keys always has a text form");
}

/// The value at `path`, if there is one.
pub(super) fn at<'a>(value: &'a Value, path: &[&str]) -> Option<&'a Value> {
    path.iter().try_fold(value, |inner, key| inner.get(key)).filter(|found| !found.is_null())
}

/// The text at `path`; empty where there is none, as Go's zero value has it.
pub(super) fn text<'a>(value: &'a Value, path: &[&str]) -> &'a str {
    at(value, path).and_then(Value::as_str).unwrap_or_default()
}

/// The number at `path`.
pub(super) fn number(value: &Value, path: &[&str]) -> Option<i64> {
    at(value, path).and_then(Value::as_i64)
}

/// The list at `path`; empty where there is none.
pub(super) fn list<'a>(value: &'a Value, path: &[&str]) -> &'a [Value] {
    at(value, path).and_then(Value::as_array).map_or(&[], Vec::as_slice)
}

/// The map under `key`, put there if missing or not a map.
pub(super) fn map_in<'a>(value: &'a mut Value, key: &str) -> &'a mut Map<String, Value> {
    if !value.is_object() {
        *value = Value::Object(Map::new());
    }
    let outer = value.as_object_mut().expect("made a map above");
    let inner = outer.entry(key).or_insert_with(|| Value::Object(Map::new()));
    if !inner.is_object() {
        *inner = Value::Object(Map::new());
    }
    inner.as_object_mut().expect("made a map above")
}

/// `metadata`, for writing.
pub(super) fn metadata(value: &mut Value) -> &mut Map<String, Value> {
    map_in(value, "metadata")
}

/// Copies `key` from `from`, or removes it where `from` has none.
pub(super) fn copy_or_remove(to: &mut Map<String, Value>, from: Option<&Value>, key: &str) {
    match from.and_then(|map| map.get(key)).filter(|value| !value.is_null()) {
        Some(value) => to.insert(key.to_owned(), value.clone()),
        None => to.remove(key),
    };
}

/// Now, as RFC 3339 in whole seconds: the form of every time in `metadata`.
pub(super) fn now() -> String {
    in_seconds(0)
}

/// The time so many seconds from now.
pub(super) fn in_seconds(seconds: i64) -> String {
    let now = jiff::Timestamp::now().as_second();
    jiff::Timestamp::from_second(now.saturating_add(seconds)).unwrap_or(jiff::Timestamp::MAX).to_string()
}

/// The same without members whose value is null: what Go makes of a null.
pub(super) fn without_nulls(value: Value) -> Value {
    match value {
        Value::Object(map) => map
            .into_iter()
            .filter(|(_, member)| !member.is_null())
            .map(|(key, member)| (key, without_nulls(member)))
            .collect::<Map<_, _>>()
            .into(),
        Value::Array(items) => items.into_iter().map(without_nulls).collect::<Vec<_>>().into(),
        other => other,
    }
}
