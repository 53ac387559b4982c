//! What the API server says when it refuses: a `Status` object with a code, a reason and details.
//!
//! Clients decide on `code` and `reason` and print `message`, so both are spelled as the real API
//! server spells them (texts compared with kube-apiserver 1.36.1 by the script in
//! `tests/common/api_server_script`).

use serde_json::{Value, json};

use super::resources::ResourceType;

/// A refusal, as the API server's `Status` object carries it.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[error("{message}")]
pub struct ApiError {
    /// The HTTP status.
    pub code: u16,
    /// The machine-readable word, such as `NotFound`; empty where the real server gives none.
    pub reason: &'static str,
    /// The sentence for people.
    pub message: String,
    /// `details` of the `Status`; null where the real server gives none.
    pub details: Value,
    /// A continue token that resumes an expired list, less consistent than the one sent.
    pub continue_token: Option<String>,
}

impl ApiError {
    /// A refusal without details, for fault hooks as well: `ApiError::new(403, "Forbidden", "no")`.
    pub fn new(code: u16, reason: &'static str, message: impl Into<String>) -> Self {
        Self { code, reason, message: message.into(), details: Value::Null, continue_token: None }
    }

    /// The `Status` object that goes over the wire.
    pub fn to_status(&self) -> Value {
        let mut status = json!({
            "kind": "Status",
            "apiVersion": "v1",
            "metadata": {},
            "status": "Failure",
            "message": self.message,
            "code": self.code,
        });
        if !self.reason.is_empty() {
            status["reason"] = self.reason.into();
        }
        if !self.details.is_null() {
            status["details"] = self.details.clone();
        }
        if let Some(token) = &self.continue_token {
            status["metadata"]["continue"] = token.as_str().into();
        }
        status
    }

    fn with_details(mut self, details: Value) -> Self {
        self.details = details;
        self
    }

    pub(super) fn bad_request(message: impl Into<String>) -> Self {
        Self::new(400, "BadRequest", message)
    }

    /// The answer to a resource that is not installed, in a group that is.
    pub(super) fn no_such_resource() -> Self {
        Self::new(404, "NotFound", "the server could not find the requested resource").with_details(json!({}))
    }

    pub(super) fn method_not_allowed() -> Self {
        Self::new(405, "MethodNotAllowed", "the server does not allow this method on the requested resource")
            .with_details(json!({}))
    }

    pub(super) fn unauthorized() -> Self {
        Self::new(401, "Unauthorized", "Unauthorized")
    }

    pub(super) fn not_found(kind: &ResourceType, name: &str) -> Self {
        let message = format!("{} \"{name}\" not found", kind.qualified());
        Self::new(404, "NotFound", message).with_details(plural_details(kind, name))
    }

    pub(super) fn already_exists(kind: &ResourceType, name: &str) -> Self {
        let message = format!("{} \"{name}\" already exists", kind.qualified());
        Self::new(409, "AlreadyExists", message).with_details(plural_details(kind, name))
    }

    /// A precondition that does not hold: `why` says which.
    pub(super) fn conflict(kind: &ResourceType, name: &str, why: &str) -> Self {
        let what = kind.qualified();
        let message = format!("Operation cannot be fulfilled on {what} \"{name}\": {why}");
        Self::new(409, "Conflict", message).with_details(plural_details(kind, name))
    }

    /// The commonest conflict: someone else wrote the object since the caller read it.
    pub(super) fn modified(kind: &ResourceType, name: &str) -> Self {
        Self::conflict(
            kind,
            name,
            "the object has been modified; please apply your changes to the latest version and try again",
        )
    }

    /// The delete handler names the object's kind instead of its resource.
    pub(super) fn delete_conflict(kind: &ResourceType, name: &str, why: &str) -> Self {
        let what = kind.qualified_kind();
        let message = format!("Operation cannot be fulfilled on {what} \"{name}\": {why}");
        Self::new(409, "Conflict", message).with_details(details(&kind.gvr.group, &kind.kind, name))
    }

    /// A binding refused by the state of the pod.
    pub(super) fn binding_conflict(name: &str, why: &str) -> Self {
        let message = format!("Operation cannot be fulfilled on pods/binding \"{name}\": {why}");
        Self::new(409, "Conflict", message).with_details(details("", "pods/binding", name))
    }

    /// An object whose `field` is wrong; `cause` is the API's word, such as `FieldValueRequired`.
    pub(super) fn invalid(kind: &ResourceType, name: &str, cause: &FieldError) -> Self {
        Self::invalid_kind(&kind.gvr.group, &kind.kind, name, cause)
    }

    pub(super) fn invalid_kind(group: &str, kind: &str, name: &str, cause: &FieldError) -> Self {
        let FieldError { field, reason, message } = cause;
        let what = if group.is_empty() { kind.to_owned() } else { format!("{kind}.{group}") };
        let mut details = details(group, kind, name);
        details["causes"] = json!([{ "reason": reason, "message": message, "field": field }]);
        Self::new(422, "Invalid", format!("{what} \"{name}\" is invalid: {field}: {message}"))
            .with_details(details)
    }

    /// A wrong list or watch option.
    pub(super) fn invalid_options(options: &str, cause: &FieldError) -> Self {
        Self::invalid_kind("meta.k8s.io", options, "", cause)
    }

    /// The version asked for is no longer in the history.
    pub(super) fn expired(message: impl Into<String>) -> Self {
        Self::new(410, "Expired", message)
    }

    /// The version asked for has not happened yet.
    pub(super) fn version_too_large(wanted: u64, current: u64) -> Self {
        let message = format!("Timeout: Too large resource version: {wanted}, current: {current}");
        Self::new(504, "Timeout", message).with_details(json!({
            "causes": [{ "reason": "ResourceVersionTooLarge", "message": "Too large resource version" }],
            "retryAfterSeconds": 1,
        }))
    }

    pub(super) fn unsupported_media_type(accepted: &str) -> Self {
        let message = format!(
            "the body of the request was in an unknown format - accepted media types include: {accepted}"
        );
        Self::new(415, "UnsupportedMediaType", message)
    }
}

/// One wrong field of an object.
pub(super) struct FieldError {
    pub(super) field: String,
    pub(super) reason: &'static str,
    pub(super) message: String,
}

impl FieldError {
    pub(super) fn required(field: &str, hint: &str) -> Self {
        let separator = if hint.is_empty() { "" } else { ": " };
        Self::of(field, "FieldValueRequired", format!("Required value{separator}{hint}"))
    }

    pub(super) fn forbidden(field: &str, why: &str) -> Self {
        Self::of(field, "FieldValueForbidden", format!("Forbidden: {why}"))
    }

    /// `value` as Go prints it: text in quotes, numbers bare.
    pub(super) fn invalid(field: &str, value: &str, why: &str) -> Self {
        Self::of(field, "FieldValueInvalid", format!("Invalid value: {value}: {why}"))
    }

    pub(super) fn too_long(field: &str, limit: usize) -> Self {
        Self::of(field, "FieldValueTooLong", format!("Too long: may not be more than {limit} bytes"))
    }

    fn of(field: &str, reason: &'static str, message: String) -> Self {
        Self { field: field.to_owned(), reason, message }
    }
}

fn plural_details(kind: &ResourceType, name: &str) -> Value {
    details(&kind.gvr.group, &kind.gvr.resource, name)
}

fn details(group: &str, kind: &str, name: &str) -> Value {
    let mut details = json!({ "kind": kind });
    if !name.is_empty() {
        details["name"] = name.into();
    }
    if !group.is_empty() {
        details["group"] = group.into();
    }
    details
}
