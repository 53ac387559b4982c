//! Faults that a test can put between a client and the store.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use super::audit::Attributes;
use super::error::ApiError;

/// What goes wrong with one request.
#[derive(Clone, Debug)]
pub enum Fault {
    /// It is carried out after this time.
    Delay(Duration),
    /// It is not carried out and answered with this.
    Refuse(ApiError),
    /// It is not carried out, and the connection is closed without an answer.
    Drop,
    /// It is carried out, and the connection is closed without an answer: the client cannot know.
    LoseAnswer,
    /// A watch tells this many events, then breaks off in the middle of the answer. Any other request
    /// is carried out and its answer lost.
    CutWatchAfter(usize),
    /// A watch begins and then says nothing, not even bookmarks, while its connection stays open. Any
    /// other request is not carried out and never answered.
    Stall,
}

/// Chooses the fault of each request, or none. Called once a request, before it is carried out.
pub type FaultHook = Arc<dyn Fn(&Attributes) -> Option<Fault> + Send + Sync>;

#[derive(Default)]
pub(super) struct Faults {
    hook: Mutex<Option<FaultHook>>,
}

impl Faults {
    pub(super) fn set(&self, hook: Option<FaultHook>) {
        *self.hook.lock().unwrap_or_else(PoisonError::into_inner) = hook;
    }

    pub(super) fn of(&self, attributes: &Attributes) -> Option<Fault> {
        // Called without the lock, so that a hook may take its time or set another.
        let hook = self.hook.lock().unwrap_or_else(PoisonError::into_inner).clone();
        hook.and_then(|hook| hook(attributes))
    }
}
