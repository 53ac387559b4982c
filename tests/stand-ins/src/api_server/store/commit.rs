//! The last step of every write: from an object that the rules have passed to a new version.

use std::sync::Arc;

use serde_json::Value;

use super::super::error::ApiError;
use super::super::object::{self, Object};
use super::super::resources::{Gvr, NAMESPACES, ResourceType};
use super::super::rules;
use super::State;
use super::collection::{Key, at_version};
use super::write::Part;

impl State {
    pub(super) fn create(
        &mut self,
        resource: &Gvr,
        namespace: &str,
        object: Value,
        dry_run: bool,
    ) -> Result<Arc<Object>, ApiError> {
        let (uid, suffix) = (self.new_uid(), self.new_suffix());
        let kind = self.collection(resource)?.kind.clone();
        rules::check_type(&kind, namespace, &object)?;
        self.check_namespace(&kind, namespace)?;
        let object = rules::prepare_create(&kind, namespace, object, uid, &suffix)?;
        let key = Key::new(namespace, object::text(&object, &["metadata", "name"]));
        let collection = self.collection(resource)?;
        if collection.objects.contains_key(&key) {
            return Err(ApiError::already_exists(&kind, &key.name));
        }
        self.put(resource, key, object, dry_run)
    }

    /// Namespaced objects need their namespace, unless the caller does without namespaces altogether.
    fn check_namespace(&self, kind: &ResourceType, namespace: &str) -> Result<(), ApiError> {
        match self.collections.get(&NAMESPACES) {
            Some(namespaces) if kind.namespaced => namespaces.get(&Key::new("", namespace)).map(drop),
            _ => Ok(()),
        }
    }

    /// Checks an update of `current` to `object` and writes it.
    pub(super) fn replace(
        &mut self,
        resource: &Gvr,
        key: Key,
        part: Part,
        current: &Arc<Object>,
        object: Value,
        dry_run: bool,
    ) -> Result<Arc<Object>, ApiError> {
        let kind = self.collection(resource)?.kind.clone();
        let object = rules::prepare_update(&kind, part, current, object)?;
        self.commit(resource, key, current, object, dry_run)
    }

    /// Writes what the rules have made of an update: nothing if it changes nothing, and a removal if
    /// it takes away the last thing that kept a deleted object.
    pub(super) fn commit(
        &mut self,
        resource: &Gvr,
        key: Key,
        current: &Arc<Object>,
        object: Value,
        dry_run: bool,
    ) -> Result<Arc<Object>, ApiError> {
        if rules::is_finished(&object) {
            return self.remove(resource, key, object, dry_run);
        }
        if object == ***current {
            return Ok(current.clone());
        }
        self.put(resource, key, object, dry_run)
    }

    fn put(
        &mut self,
        resource: &Gvr,
        key: Key,
        object: Value,
        dry_run: bool,
    ) -> Result<Arc<Object>, ApiError> {
        if dry_run {
            return Ok(Arc::new(Object::new(object)));
        }
        self.version += 1;
        let version = self.version;
        let object = Arc::new(at_version(object, version));
        self.collection_mut(resource)?.write(version, key, Some(object.clone()));
        Ok(object)
    }

    /// Removes the object under `key`, whose last form is `object`.
    pub(super) fn remove(
        &mut self,
        resource: &Gvr,
        key: Key,
        object: Value,
        dry_run: bool,
    ) -> Result<Arc<Object>, ApiError> {
        let object = Arc::new(Object::new(object));
        if !dry_run {
            self.version += 1;
            let version = self.version;
            self.collection_mut(resource)?.write(version, key, None);
        }
        Ok(object)
    }

    /// What the namespace controller of a real cluster does in its own time, at once and without
    /// heeding finalizers.
    pub(super) fn empty_namespace(&mut self, namespace: &str) {
        for collection in self.collections.values_mut() {
            let inside: Vec<Key> =
                collection.objects.keys().filter(|key| key.namespace == namespace).cloned().collect();
            for key in inside {
                self.version += 1;
                collection.write(self.version, key, None);
            }
        }
    }
}
