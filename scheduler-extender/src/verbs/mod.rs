//! filter and prioritize, from a request's bytes to an answer's.
//!
//! No HTTP here, so that a benchmark or a simulator asks exactly what kube-scheduler asks.

mod filter;
mod judge;
mod memo;
#[cfg(test)]
mod policy_tests;
mod preempt;
mod prioritize;
mod template;
#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::time::Instant;

pub use self::filter::filter;
pub use self::memo::{Judgement, Memo};
pub use self::preempt::{Asker, fits_without, preempt, room_without};
pub use self::prioritize::{SCORE_MAX, prioritize};

use crate::state::Store;
use crate::wire::{self, WireError};

/// What is said before everything was listed once: an answer from a half-filled cache would be a lie.
pub const NOT_SYNCED: &str = "caches are not synced yet";

/// An answer, ready for HTTP.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    /// The HTTP status.
    pub status: u16,
    /// Whether the body is JSON; else it is a sentence.
    pub json: bool,
    /// The body.
    pub body: Vec<u8>,
    /// How it went, for metrics.
    pub outcome: Outcome,
}

/// How a request went.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Outcome {
    /// It was answered.
    Ok,
    /// It was understood, and cannot be served.
    Error,
    /// It was not understood.
    BadRequest,
}

impl Answer {
    pub(crate) fn json(body: Vec<u8>) -> Self {
        Self { status: 200, json: true, body, outcome: Outcome::Ok }
    }

    pub(crate) fn text(status: u16, text: impl Into<String>) -> Self {
        let outcome = if status < 500 { Outcome::BadRequest } else { Outcome::Error };
        Self { status, json: false, body: text.into().into_bytes(), outcome }
    }

    fn error(body: Vec<u8>) -> Self {
        Self { outcome: Outcome::Error, ..Self::json(body) }
    }

    /// A request to filter that cannot be served: kube-scheduler shows only errors that come with a 200.
    pub(crate) fn filter_error(error: &str) -> Self {
        Self::error(wire::filter_error(error))
    }

    /// A request to bind that cannot be served.
    pub(crate) fn binding_error(error: &str) -> Self {
        Self::error(wire::binding_result(error))
    }
}

/// Answers filter and prioritize from the newest snapshot.
#[derive(Debug, Default)]
pub struct Verbs {
    store: Arc<Store>,
    memo: Memo,
}

impl Verbs {
    /// Answers from this store.
    pub fn new(store: Arc<Store>) -> Self {
        Self { store, memo: Memo::default() }
    }

    /// The store.
    pub fn store(&self) -> &Arc<Store> {
        &self.store
    }

    /// How many judgements are remembered.
    pub fn remembered(&self) -> usize {
        self.memo.len()
    }

    /// `ExtenderArgs` to `ExtenderFilterResult`.
    pub fn filter(&self, body: &[u8], now: Instant) -> Answer {
        let asked = match wire::read_args(body) {
            Ok(asked) => asked,
            Err(error @ WireError::NotJson(_)) => return not_json(&error),
            Err(error) => return Answer::filter_error(&error.to_string()),
        };
        let snapshot = self.store.snapshot();
        if !snapshot.synced {
            return Answer::filter_error(NOT_SYNCED);
        }
        Answer::json(filter(&snapshot, &self.memo, &asked, now))
    }

    /// The UID of the pod that kube-scheduler wants to place, if it asks for GPUs.
    pub fn asker(&self, body: &[u8]) -> Option<String> {
        let pod = wire::read_asker(body)?;
        pod.want(&self.store.snapshot().names).ok()?.map(|_| pod.metadata.uid)
    }

    /// `ExtenderPreemptionArgs` to `ExtenderPreemptionResult`. It has no room for an error, so one is a 500: the pod is
    /// then tried again later.
    pub fn preempt(&self, body: &[u8], now: Instant) -> Answer {
        let (pod, candidates) = match wire::read_preemption_args(body) {
            Ok(asked) => asked,
            Err(error @ WireError::NotJson(_)) => return not_json(&error),
            Err(error) => return Answer::text(500, error.to_string()),
        };
        let snapshot = self.store.snapshot();
        if !snapshot.synced {
            return Answer::text(500, NOT_SYNCED);
        }
        match preempt(&self.store, &snapshot, &pod, candidates, now) {
            Ok(candidates) => Answer::json(wire::preemption_result(&candidates)),
            Err(broken) => Answer::text(500, broken.to_string()),
        }
    }

    /// `ExtenderArgs` to `HostPriorityList`. It has no room for an error, so one is a 500: kube-scheduler then
    /// goes without our scores.
    pub fn prioritize(&self, body: &[u8], now: Instant) -> Answer {
        let asked = match wire::read_args(body) {
            Ok(asked) => asked,
            Err(error @ WireError::NotJson(_)) => return not_json(&error),
            Err(error) => return Answer::text(500, error.to_string()),
        };
        let snapshot = self.store.snapshot();
        if !snapshot.synced {
            return Answer::text(500, NOT_SYNCED);
        }
        let scores = prioritize(&snapshot, &self.memo, &asked, now);
        Answer::json(wire::host_priorities(asked.names(), &scores))
    }
}

/// The answer to what is no JSON, with the place where it stops being JSON.
pub(crate) fn not_json(error: &WireError) -> Answer {
    let cause = std::error::Error::source(error).map(|cause| format!(": {cause}")).unwrap_or_default();
    Answer::text(400, format!("{error}{cause}\n"))
}
