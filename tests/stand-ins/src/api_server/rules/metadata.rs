//! The rules for `metadata`, the same for every resource.

use serde_json::{Map, Value};

use super::super::error::{ApiError, FieldError};
use super::super::object::{self, Object, copy_or_remove, list, now, number, text};
use super::super::resources::{ResourceType, Rules};

/// All annotations of an object together, keys and values, in bytes. A Binding goes around it, and a
/// pod that it made too large can then never be updated again.
const MAX_ANNOTATIONS: usize = 256 * 1024;
/// The longest name, in bytes.
const MAX_NAME: usize = 253;
/// How much of a `generateName` is kept before the suffix.
const MAX_GENERATED_BASE: usize = 58;

/// Metadata that is the server's: an update cannot change it.
const SYSTEM_FIELDS: [&str; 8] = [
    "uid",
    "creationTimestamp",
    "deletionTimestamp",
    "deletionGracePeriodSeconds",
    "generation",
    "resourceVersion",
    "namespace",
    "generateName",
];

/// Checks that a body is an object of this kind for this namespace.
pub(in super::super) fn check_type(
    kind: &ResourceType,
    namespace: &str,
    object: &Value,
) -> Result<(), ApiError> {
    let (own_kind, own_version) = (text(object, &["kind"]), text(object, &["apiVersion"]));
    let same_kind = own_kind.is_empty() || own_kind == kind.kind;
    let same_version = own_version.is_empty() || own_version == kind.api_version();
    if !object.is_object() || !same_kind || !same_version {
        return Err(ApiError::bad_request(format!(
            "{own_kind} in version \"{own_version}\" cannot be handled as a {}",
            kind.kind
        )));
    }
    let own_namespace = text(object, &["metadata", "namespace"]);
    if !own_namespace.is_empty() && own_namespace != namespace {
        return Err(ApiError::bad_request(
            "the namespace of the provided object does not match the namespace sent on the request",
        ));
    }
    Ok(())
}

/// Checks that a body is the object that the URL names.
pub(in super::super) fn check_identity(
    kind: &ResourceType,
    namespace: &str,
    name: &str,
    object: &Value,
) -> Result<(), ApiError> {
    check_type(kind, namespace, object)?;
    let own = text(object, &["metadata", "name"]);
    if own != name {
        let why = format!("the name of the object ({own}) does not match the name on the URL ({name})");
        return Err(ApiError::bad_request(why));
    }
    Ok(())
}

/// Checks the UID that a PUT or a binding expects; an empty one is expected by nobody.
pub(in super::super) fn check_uid(kind: &ResourceType, current: &Object, uid: &str) -> Result<(), ApiError> {
    if uid.is_empty() || uid == current.uid() {
        return Ok(());
    }
    let why = format!("UID in precondition: {uid}, UID in object meta: {}", current.uid());
    Err(failed_precondition(kind, current, &why))
}

/// Checks the version that a binding expects; an update that fails has a text of its own.
pub(in super::super) fn check_version(
    kind: &ResourceType,
    current: &Object,
    version: &str,
) -> Result<(), ApiError> {
    let own = current.version().to_string();
    if version.is_empty() || version == own {
        return Ok(());
    }
    let why = format!("ResourceVersion in precondition: {version}, ResourceVersion in object meta: {own}");
    Err(failed_precondition(kind, current, &why))
}

/// The real server lets its storage check these, and passes the storage's sentence on.
fn failed_precondition(kind: &ResourceType, current: &Object, why: &str) -> ApiError {
    let group = if kind.rules == Rules::Custom { format!("{}/", kind.gvr.group) } else { String::new() };
    let namespace = if kind.namespaced { format!("{}/", current.namespace()) } else { String::new() };
    let key = format!("/registry/{group}{}/{namespace}{}", kind.gvr.resource, current.name());
    let why = format!(
        "StorageError: invalid object, Code: 4, Key: {key}, ResourceVersion: 0, AdditionalErrorMsg: Precondition \
         failed: {why}"
    );
    ApiError::conflict(kind, current.name(), &why)
}

/// Checks that a patch has left the UID as it was.
pub(in super::super) fn check_same_uid(
    kind: &ResourceType,
    current: &Object,
    object: &Value,
) -> Result<(), ApiError> {
    let uid = text(object, &["metadata", "uid"]);
    if uid.is_empty() || uid == current.uid() {
        return Ok(());
    }
    let cause = FieldError::invalid("metadata.uid", &format!("{uid:?}"), "field is immutable");
    Err(ApiError::invalid(kind, current.name(), &cause))
}

/// Gives a new object its identity.
pub(super) fn stamp(
    kind: &ResourceType,
    namespace: &str,
    value: &mut Value,
    uid: String,
    suffix: &str,
) -> Result<(), ApiError> {
    let (kind_name, api_version) = (kind.kind.as_str(), kind.api_version());
    if !["", "0"].contains(&text(value, &["metadata", "resourceVersion"])) {
        return Err(ApiError::new(500, "", "resourceVersion should not be set on objects to be created"));
    }
    let mut name = text(value, &["metadata", "name"]).to_owned();
    if name.is_empty() {
        let base = text(value, &["metadata", "generateName"]);
        if base.is_empty() {
            let cause = FieldError::required("metadata.name", "name or generateName is required");
            return Err(ApiError::invalid(kind, "", &cause));
        }
        let kept: String = base.chars().take(MAX_GENERATED_BASE).collect();
        name = format!("{kept}{suffix}");
    }
    value["kind"] = kind_name.into();
    value["apiVersion"] = api_version.into();
    let metadata = object::metadata(value);
    for key in ["deletionTimestamp", "deletionGracePeriodSeconds", "generation", "selfLink"] {
        metadata.remove(key);
    }
    metadata.insert("name".to_owned(), name.into());
    metadata.insert("uid".to_owned(), uid.into());
    metadata.insert("creationTimestamp".to_owned(), now().into());
    if kind.namespaced {
        metadata.insert("namespace".to_owned(), namespace.into());
    }
    Ok(())
}

/// Puts back what an update may not change.
pub(super) fn keep_system_fields(current: &Value, object: &mut Value) {
    let (kind, api_version) = (current["kind"].clone(), current["apiVersion"].clone());
    object["kind"] = kind;
    object["apiVersion"] = api_version;
    let metadata: &mut Map<String, Value> = object::metadata(object);
    for key in SYSTEM_FIELDS {
        copy_or_remove(metadata, current.get("metadata"), key);
    }
}

/// Counts a change of what the object asks for.
pub(super) fn bump_generation(value: &mut Value) {
    let next = number(value, &["metadata", "generation"]).unwrap_or_default() + 1;
    object::metadata(value).insert("generation".to_owned(), next.into());
}

/// Removes what Go leaves out when it writes an empty map or list.
pub(super) fn drop_empty(kind: &ResourceType, value: &mut Value) {
    let is_empty = |value: &Value| match value {
        Value::Object(map) => map.is_empty(),
        Value::Array(items) => items.is_empty(),
        _ => false,
    };
    object::metadata(value).retain(|_, member| !is_empty(member));
    if kind.rules == Rules::BuiltIn
        && let Some(map) = value.as_object_mut()
    {
        map.retain(|key, member| key != "data" || !is_empty(member));
    }
}

/// What holds for every object that is created or updated.
pub(super) fn check(kind: &ResourceType, value: &Value) -> Result<(), ApiError> {
    let name = text(value, &["metadata", "name"]);
    if !is_subdomain(name) {
        let cause = FieldError::invalid("metadata.name", &format!("{name:?}"), NOT_A_SUBDOMAIN);
        return Err(ApiError::invalid(kind, name, &cause));
    }
    let annotations = object::at(value, &["metadata", "annotations"]).and_then(Value::as_object);
    let size: usize = annotations
        .into_iter()
        .flatten()
        .map(|(key, value)| key.len() + value.as_str().map_or(0, str::len))
        .sum();
    if size > MAX_ANNOTATIONS {
        let cause = FieldError::too_long("metadata.annotations", MAX_ANNOTATIONS);
        return Err(ApiError::invalid(kind, name, &cause));
    }
    Ok(())
}

/// Nothing may hold on to an object that is being deleted already.
pub(super) fn check_finalizers(kind: &ResourceType, current: &Value, object: &Value) -> Result<(), ApiError> {
    if text(current, &["metadata", "deletionTimestamp"]).is_empty() {
        return Ok(());
    }
    let path = ["metadata", "finalizers"];
    let old = list(current, &path);
    let added: Vec<String> =
        list(object, &path).iter().filter(|it| !old.contains(it)).map(Value::to_string).collect();
    if added.is_empty() {
        return Ok(());
    }
    let why = format!(
        "no new finalizers can be added if the object is being deleted, found new finalizers []string{{{}}}",
        added.join(", ")
    );
    let cause = FieldError::forbidden("metadata.finalizers", &why);
    Err(ApiError::invalid(kind, text(object, &["metadata", "name"]), &cause))
}

const NOT_A_SUBDOMAIN: &str = "a lowercase RFC 1123 subdomain must consist of lower case alphanumeric \
    characters, '-' or '.', and must start and end with an alphanumeric character (e.g. 'example.com', \
    regex used for validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?(\\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*')";

fn is_subdomain(name: &str) -> bool {
    let inner = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
    name.len() <= MAX_NAME
        && name.split('.').all(|part| {
            !part.is_empty() && part.chars().all(inner) && !part.starts_with('-') && !part.ends_with('-')
        })
}
