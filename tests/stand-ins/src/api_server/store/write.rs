//! Create, update, patch and delete: each one reads, checks and writes under the store's lock, so
//! that it happens wholly or not at all.

use std::sync::Arc;

use serde_json::Value;

use super::super::error::ApiError;
use super::super::object::{self, Object};
use super::super::patch::{self, Patch};
use super::super::resources::{Gvr, Rules};
use super::super::rules::{self, Deletion};
use super::Store;
use super::collection::Key;
use super::list::ListOptions;

/// Which half of an object a write is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    /// Everything but `status` (which counts as everything where there is no `status` sub-resource).
    Main,
    /// The `status` sub-resource.
    Status,
}

/// How to delete, as `DeleteOptions` has it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DeleteOptions {
    /// How long a bound pod may take to end; the pod's own period if `None`. Only pods have grace.
    pub grace_period_seconds: Option<i64>,
    /// Only an object with this UID.
    pub uid: Option<String>,
    /// Only an object at this version.
    pub resource_version: Option<String>,
}

/// What became of an object that was to be deleted.
#[derive(Clone, Debug)]
pub enum Deleted {
    /// It is gone; this is how it last was.
    Gone(Arc<Object>),
    /// It is marked (`deletionTimestamp`) and goes once the kubelet or a finalizer lets it.
    Marked(Arc<Object>),
}

impl Store {
    /// Creates an object in `namespace` (empty for cluster-scoped resources).
    ///
    /// # Errors
    /// 404 for an unknown resource or namespace, 409 for a name in use, 422 for an invalid object.
    pub fn create(&self, resource: &Gvr, namespace: &str, object: Value) -> Result<Arc<Object>, ApiError> {
        self.create_or_try(resource, namespace, object, false)
    }

    /// Replaces an object, or its status. A `resourceVersion` or `uid` in it is a precondition.
    ///
    /// # Errors
    /// 404 for an object that is not there, 409 for a precondition that fails, 422 for an invalid object.
    pub fn update(
        &self,
        resource: &Gvr,
        namespace: &str,
        name: &str,
        part: Part,
        object: Value,
    ) -> Result<Arc<Object>, ApiError> {
        self.update_or_try(resource, namespace, name, part, object, false).map(|(object, _)| object)
    }

    /// Changes an object, or its status, in place: a read and an update that nothing can get between.
    ///
    /// # Errors
    /// As [`update`](Self::update).
    pub fn modify(
        &self,
        resource: &Gvr,
        namespace: &str,
        name: &str,
        part: Part,
        change: impl FnOnce(&mut Value),
    ) -> Result<Arc<Object>, ApiError> {
        self.with(|state| {
            let key = Key::new(namespace, name);
            let current = state.collection(resource)?.get(&key)?;
            let mut object = Value::clone(&current);
            change(&mut object);
            rules::check_identity(&state.collection(resource)?.kind, namespace, name, &object)?;
            state.replace(resource, key, part, &current, object, false)
        })
    }

    /// Patches an object, or its status. The flag is true if an apply created the object.
    ///
    /// # Errors
    /// As [`update`](Self::update); 400 or 422 for a patch that cannot be applied, 415 for a strategic
    /// merge patch of a custom resource.
    pub fn patch(
        &self,
        resource: &Gvr,
        namespace: &str,
        name: &str,
        part: Part,
        patch: &Patch,
    ) -> Result<(Arc<Object>, bool), ApiError> {
        self.patch_or_try(resource, namespace, name, part, patch, false)
    }

    /// Deletes an object.
    ///
    /// # Errors
    /// 404 for an object that is not there, 409 for a precondition that fails.
    pub fn delete(
        &self,
        resource: &Gvr,
        namespace: &str,
        name: &str,
        options: &DeleteOptions,
    ) -> Result<Deleted, ApiError> {
        self.delete_or_try(resource, namespace, name, options, false)
    }

    /// Deletes what a list shows, and says what that was.
    ///
    /// # Errors
    /// As [`list`](Self::list).
    pub fn delete_all(
        &self,
        resource: &Gvr,
        which: &ListOptions,
        options: &DeleteOptions,
    ) -> Result<Vec<Arc<Object>>, ApiError> {
        let found = self.list(resource, which)?.items;
        for object in &found {
            match self.delete(resource, object.namespace(), object.name(), options) {
                Err(refusal) if refusal.code != 404 => return Err(refusal),
                // Whoever deleted it first did what was asked.
                _ => {}
            }
        }
        Ok(found)
    }

    pub(in super::super) fn create_or_try(
        &self,
        resource: &Gvr,
        namespace: &str,
        object: Value,
        dry_run: bool,
    ) -> Result<Arc<Object>, ApiError> {
        self.with(|state| state.create(resource, namespace, object, dry_run))
    }

    /// The flag is true if the object was created.
    pub(in super::super) fn update_or_try(
        &self,
        resource: &Gvr,
        namespace: &str,
        name: &str,
        part: Part,
        object: Value,
        dry_run: bool,
    ) -> Result<(Arc<Object>, bool), ApiError> {
        self.with(|state| {
            let collection = state.collection(resource)?;
            rules::check_identity(&collection.kind, namespace, name, &object)?;
            let key = Key::new(namespace, name);
            match collection.get(&key) {
                Ok(current) => {
                    rules::check_uid(
                        &collection.kind,
                        &current,
                        object::text(&object, &["metadata", "uid"]),
                    )?;
                    Ok((state.replace(resource, key, part, &current, object, dry_run)?, false))
                }
                Err(_) if collection.kind.create_on_update && part == Part::Main => {
                    Ok((state.create(resource, namespace, object, dry_run)?, true))
                }
                Err(refusal) => Err(refusal),
            }
        })
    }

    pub(in super::super) fn patch_or_try(
        &self,
        resource: &Gvr,
        namespace: &str,
        name: &str,
        part: Part,
        patch: &Patch,
        dry_run: bool,
    ) -> Result<(Arc<Object>, bool), ApiError> {
        self.with(|state| {
            let collection = state.collection(resource)?;
            let kind = collection.kind.clone();
            let key = Key::new(namespace, name);
            match (collection.get(&key), patch) {
                (Ok(current), _) => {
                    let object = patch::apply(&kind, part, &current, patch)?;
                    rules::check_identity(&kind, namespace, name, &object)?;
                    rules::check_same_uid(&kind, &current, &object)?;
                    Ok((state.replace(resource, key, part, &current, object, dry_run)?, false))
                }
                (Err(_), Patch::Apply(config)) if part == Part::Main => {
                    let object = patch::first_apply(&kind, name, config)?;
                    Ok((state.create(resource, namespace, object, dry_run)?, true))
                }
                (Err(refusal), _) => Err(refusal),
            }
        })
    }

    pub(in super::super) fn delete_or_try(
        &self,
        resource: &Gvr,
        namespace: &str,
        name: &str,
        options: &DeleteOptions,
        dry_run: bool,
    ) -> Result<Deleted, ApiError> {
        self.with(|state| {
            let collection = state.collection(resource)?;
            let kind = collection.kind.clone();
            let key = Key::new(namespace, name);
            let current = collection.get(&key)?;
            match rules::begin_delete(&kind, &current, options)? {
                Deletion::Now(object) => {
                    if kind.rules == Rules::Namespace && !dry_run {
                        state.empty_namespace(name);
                    }
                    Ok(Deleted::Gone(state.remove(resource, key, object, dry_run)?))
                }
                Deletion::Marked(object) => {
                    Ok(Deleted::Marked(state.commit(resource, key, &current, object, dry_run)?))
                }
            }
        })
    }
}
