//! The one place where the state changes: whoever changes it holds a lock, and leaves a new snapshot behind.

use std::sync::{Arc, Mutex};

use arc_swap::ArcSwap;

use super::{Snapshot, State};

/// The state and its newest snapshot.
///
/// Readers of the snapshot never wait. The lock is held for microseconds, and never over an `.await`.
#[derive(Debug, Default)]
pub struct Store {
    state: Mutex<State>,
    snapshot: ArcSwap<Snapshot>,
}

/// A change panicked half-way, so the state cannot be trusted any more: the process must end.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the state was left half-changed by a panic")]
pub struct Broken;

impl Store {
    /// Starts with a state, such as one made for a benchmark.
    pub fn new(mut state: State) -> Self {
        let snapshot = state.snapshot().unwrap_or_default();
        Self { state: Mutex::new(state), snapshot: ArcSwap::from_pointee(snapshot) }
    }

    /// Changes the state. When this returns, every new reader sees the change.
    ///
    /// # Errors
    /// [`Broken`] after a panic in an earlier change.
    pub fn change<R>(&self, change: impl FnOnce(&mut State) -> R) -> Result<R, Broken> {
        let mut state = self.state.lock().map_err(|_| Broken)?;
        let result = change(&mut state);
        if let Some(snapshot) = state.snapshot() {
            self.snapshot.store(Arc::new(snapshot));
        }
        Ok(result)
    }

    /// The newest snapshot.
    pub fn snapshot(&self) -> Arc<Snapshot> {
        self.snapshot.load_full()
    }
}
