//! What was judged once need not be judged again.
//!
//! Whether a request fits, and at what cost, depends on the class of a node and nothing else of it. So a judgement
//! made for filter serves prioritize as well, and the next pod of the same shape, whatever snapshot it meets;
//! after an event only the classes that came up are new.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use stowage_shared::pack::{Cost, Demand, NoFit, Placement, place};

use crate::state::{Class, KnownGpus, Snapshot};

/// Judgements kept; beyond that all are forgotten and made again.
const JUDGEMENTS_MAX: usize = 1 << 16;

/// Whether a request fits a class of nodes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Judgement {
    /// It fits, and takes this away.
    Fits(Cost),
    /// It does not.
    DoesNot {
        /// Why, for the pod's event.
        text: Arc<str>,
        /// The same as a word for metrics.
        reason: &'static str,
        /// Whether it would not even if other pods left.
        permanent: bool,
    },
}

impl Judgement {
    /// What the packing core says.
    pub fn of(placement: Result<Placement, NoFit>) -> Self {
        placement.map_or_else(|no| Self::no(&no), |placement| Self::Fits(placement.cost))
    }

    pub(super) fn no(why: &NoFit) -> Self {
        Self::DoesNot { text: why.to_string().into(), reason: why.label(), permanent: why.is_permanent() }
    }
}

/// Judgements of one mix of requests to come.
#[derive(Debug, Default)]
pub struct Memo {
    inner: Mutex<Inner>,
}

#[derive(Debug, Default)]
struct Inner {
    mix_version: u64,
    count: usize,
    judgements: HashMap<Demand, HashMap<Class, Judgement>>,
}

impl Memo {
    /// Judges a request on many nodes.
    ///
    /// The lock is held while it does, which makes two requests at once wait for one another; kube-scheduler
    /// sends one at a time, and each would only do the work of the other.
    pub fn judge<'a>(
        &self,
        snapshot: &Snapshot,
        demand: &Demand,
        nodes: impl IntoIterator<Item = &'a KnownGpus>,
    ) -> Vec<Judgement> {
        // A judgement is inserted whole or not at all, so a panic elsewhere leaves nothing half-done.
        let mut inner = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
        let inner = &mut *inner;
        if inner.mix_version != snapshot.mix_version || inner.count >= JUDGEMENTS_MAX {
            *inner = Inner { mix_version: snapshot.mix_version, ..Inner::default() };
        }
        if !inner.judgements.contains_key(demand) {
            // Counts like a judgement, so that nobody fills the memory with requests that nothing is asked about.
            inner.judgements.insert(demand.clone(), HashMap::new());
            inner.count += 1;
        }
        let known = inner.judgements.entry(demand.clone()).or_default();
        let before = known.len();
        let judge = |gpus: &KnownGpus| Judgement::of(place(&gpus.gpus, demand, &snapshot.mix));
        let answers = nodes
            .into_iter()
            .map(|gpus| known.entry(gpus.class).or_insert_with(|| judge(gpus)).clone())
            .collect();
        inner.count += known.len() - before;
        answers
    }

    /// How many judgements are kept.
    pub fn len(&self) -> usize {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner).count
    }

    /// Whether none is kept.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}
