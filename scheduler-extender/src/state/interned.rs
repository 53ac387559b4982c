//! One copy of what thousands say alike: namespaces, resource names, the counts of nodes of one make.

use std::borrow::Borrow;
use std::collections::HashSet;
use std::hash::Hash;
use std::sync::Arc;

/// Values that nobody has any more are swept out when there are so many.
const SWEEP_AT: usize = 4096;

/// One copy of each value.
#[derive(Debug)]
pub(super) struct Interned<T: ?Sized>(HashSet<Arc<T>>);

impl<T: ?Sized> Default for Interned<T> {
    fn default() -> Self {
        Self(HashSet::new())
    }
}

impl<T: ?Sized + Eq + Hash> Interned<T> {
    /// The one copy of a value.
    pub(super) fn of(&mut self, value: impl Borrow<T> + Into<Arc<T>>) -> Arc<T> {
        if let Some(known) = self.0.get(value.borrow()) {
            return known.clone();
        }
        if self.0.len() >= SWEEP_AT {
            self.0.retain(|known| Arc::strong_count(known) > 1);
        }
        let value: Arc<T> = value.into();
        self.0.insert(value.clone());
        value
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equals_are_kept_once_and_what_nobody_has_is_swept_out() {
        let mut names: Interned<str> = Interned::default();
        let first = names.of("default".to_owned());
        assert!(Arc::ptr_eq(&first, &names.of("default".to_owned())));
        (0..2 * SWEEP_AT).for_each(|n| drop(names.of(n.to_string())));
        assert!(names.0.len() <= SWEEP_AT);
        assert!(Arc::ptr_eq(&first, &names.of("default".to_owned())), "somebody has it");
    }
}
