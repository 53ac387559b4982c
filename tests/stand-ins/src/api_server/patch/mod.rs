//! The four kinds of patch, each as far as our programs use it.
//!
//! JSON patch and JSON merge patch are the `json-patch` crate's. Strategic merge patch
//! ([`strategic`]) and server-side apply ([`mod@apply`]) need to know which lists are maps in disguise;
//! a short table by field name stands in for the real server's schemas.

mod apply;
mod fields;
mod strategic;
#[cfg(test)]
mod tests;

use serde_json::Value;

pub use self::apply::ApplyConfig;
pub(super) use self::apply::first_apply;

use super::error::{ApiError, FieldError};
use super::object::Object;
use super::resources::{ResourceType, Rules};
use super::store::Part;

/// A patch, parsed.
#[derive(Clone, Debug)]
pub enum Patch {
    /// A list of operations (RFC 6902).
    Json(json_patch::Patch),
    /// A tree to merge, in which null removes and a list replaces (RFC 7386).
    Merge(Value),
    /// A tree to merge, in which some lists are merged by a key. Not for custom resources.
    Strategic(Value),
    /// A server-side apply.
    Apply(ApplyConfig),
}

impl Patch {
    /// Reads a patch from a request: its content type, its body and its parameters.
    ///
    /// # Errors
    /// 415 for an unknown content type, 400 for a body that is no such patch, 422 for an apply
    /// without a field manager.
    pub(super) fn parse(
        content_type: &str,
        body: &[u8],
        field_manager: &str,
        force: bool,
    ) -> Result<Self, ApiError> {
        let media = content_type.split(';').next().unwrap_or_default().trim();
        let malformed =
            |why: serde_json::Error| ApiError::bad_request(format!("error decoding patch: {why}"));
        match media {
            "application/json-patch+json" => serde_json::from_slice(body).map(Self::Json).map_err(malformed),
            "application/merge-patch+json" => {
                serde_json::from_slice(body).map(Self::Merge).map_err(malformed)
            }
            "application/strategic-merge-patch+json" => {
                serde_json::from_slice(body).map(Self::Strategic).map_err(malformed)
            }
            // YAML by name, but every client of ours sends the JSON that YAML includes.
            "application/apply-patch+yaml" => {
                let config = serde_json::from_slice(body).map_err(malformed)?;
                ApplyConfig::new(config, field_manager, force).map(Self::Apply)
            }
            _ => Err(ApiError::unsupported_media_type(MEDIA_TYPES)),
        }
    }
}

const MEDIA_TYPES: &str = "application/json-patch+json, application/merge-patch+json, \
    application/strategic-merge-patch+json, application/apply-patch+yaml";

/// What `current` becomes; the rules for updates still have to be applied to it.
///
/// # Errors
/// 422 for a JSON patch that does not fit the object, 415 for a strategic merge patch of a custom
/// resource, 409 for an apply that would take another applier's field.
pub(super) fn apply(
    kind: &ResourceType,
    part: Part,
    current: &Object,
    patch: &Patch,
) -> Result<Value, ApiError> {
    let mut object = Value::clone(current);
    match patch {
        Patch::Json(operations) => {
            json_patch::patch(&mut object, operations).map_err(|_| unfit(kind, current.name()))?;
        }
        Patch::Merge(tree) => json_patch::merge(&mut object, tree),
        Patch::Strategic(_) if kind.rules == Rules::Custom => {
            return Err(ApiError::unsupported_media_type(
                &MEDIA_TYPES.replace("application/strategic-merge-patch+json, ", ""),
            ));
        }
        Patch::Strategic(tree) => strategic::merge(&mut object, tree),
        Patch::Apply(config) => apply::apply(kind, part, &mut object, config)?,
    }
    Ok(object)
}

/// What the real server says of an operation whose path is not there or whose test fails.
fn unfit(kind: &ResourceType, name: &str) -> ApiError {
    let cause = FieldError::invalid("patch", "null", "the operations do not fit the object");
    ApiError::invalid(kind, name, &cause)
}
