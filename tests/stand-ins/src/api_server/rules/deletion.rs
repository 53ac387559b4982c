//! Deletion: at once, or marked first. Only pods have a grace period; anything may have finalizers.
//!
//! After `BeforeDelete` (`k8s.io/apiserver/pkg/registry/rest/delete.go`) and `CheckGracefulDelete` of
//! the pod strategy, both 1.36.1.

use serde_json::Value;

use super::super::error::ApiError;
use super::super::object::{self, Object, in_seconds, list, number, text};
use super::super::resources::{ResourceType, Rules};
use super::super::store::DeleteOptions;
use super::metadata;

/// What a request to delete comes to.
pub(in super::super) enum Deletion {
    /// The object goes, in this last form.
    Now(Value),
    /// The object stays, in this form, until someone lets it go.
    Marked(Value),
}

/// Decides what a request to delete `current` comes to.
///
/// # Errors
/// 409 for a precondition that does not hold.
pub(in super::super) fn begin_delete(
    kind: &ResourceType,
    current: &Object,
    options: &DeleteOptions,
) -> Result<Deletion, ApiError> {
    check_preconditions(kind, current, options)?;
    let mut object = Value::clone(current);
    let marked = !text(current, &["metadata", "deletionTimestamp"]).is_empty();
    match (kind.rules, marked) {
        (Rules::Pod, false) => mark(&mut object, grace_period(current, options)),
        (Rules::Pod, true) => shorten(&mut object, options.grace_period_seconds),
        (_, false) if has_finalizers(current) => mark(&mut object, 0),
        _ => {}
    }
    let waits = number(&object, &["metadata", "deletionGracePeriodSeconds"]).is_some_and(|period| period > 0);
    Ok(if waits || has_finalizers(current) { Deletion::Marked(object) } else { Deletion::Now(object) })
}

/// True of a marked object that nothing holds any more: its next update removes it.
pub(in super::super) fn is_finished(object: &Value) -> bool {
    !text(object, &["metadata", "deletionTimestamp"]).is_empty()
        && number(object, &["metadata", "deletionGracePeriodSeconds"]).unwrap_or_default() == 0
        && !has_finalizers(object)
}

fn check_preconditions(
    kind: &ResourceType,
    current: &Object,
    options: &DeleteOptions,
) -> Result<(), ApiError> {
    if let Some(uid) = options.uid.as_deref().filter(|uid| *uid != current.uid()) {
        let why = format!(
            "the UID in the precondition ({uid}) does not match the UID in record ({}). The object might have \
             been deleted and then recreated",
            current.uid()
        );
        return Err(ApiError::delete_conflict(kind, current.name(), &why));
    }
    let own = current.version().to_string();
    if let Some(version) = options.resource_version.as_deref().filter(|version| *version != own) {
        let why = format!(
            "the ResourceVersion in the precondition ({version}) does not match the ResourceVersion in record \
             ({own}). The object might have been modified"
        );
        return Err(ApiError::delete_conflict(kind, current.name(), &why));
    }
    Ok(())
}

/// How long a pod may take to end: no time for one that no kubelet has, or that has ended.
fn grace_period(pod: &Value, options: &DeleteOptions) -> i64 {
    let unbound = text(pod, &["spec", "nodeName"]).is_empty();
    let ended = ["Failed", "Succeeded"].contains(&text(pod, &["status", "phase"]));
    if unbound || ended {
        return 0;
    }
    let period = options.grace_period_seconds.or(number(pod, &["spec", "terminationGracePeriodSeconds"]));
    at_least_a_second_if_negative(period.unwrap_or_default())
}

fn at_least_a_second_if_negative(period: i64) -> i64 {
    if period < 0 { 1 } else { period }
}

fn mark(object: &mut Value, period: i64) {
    let metadata = object::metadata(object);
    metadata.insert("deletionTimestamp".to_owned(), in_seconds(period).into());
    metadata.insert("deletionGracePeriodSeconds".to_owned(), period.into());
    if metadata.contains_key("generation") {
        metadata::bump_generation(object);
    }
}

/// A second request can only make the end come sooner. The kubelet's last one says 0.
fn shorten(object: &mut Value, period: Option<i64>) {
    let current = number(object, &["metadata", "deletionGracePeriodSeconds"]).unwrap_or_default();
    let Some(period) = period.map(at_least_a_second_if_negative).filter(|period| *period < current) else {
        return;
    };
    let metadata = object::metadata(object);
    metadata.insert("deletionTimestamp".to_owned(), in_seconds(period).into());
    metadata.insert("deletionGracePeriodSeconds".to_owned(), period.into());
}

fn has_finalizers(object: &Value) -> bool {
    !list(object, &["metadata", "finalizers"]).is_empty()
}
