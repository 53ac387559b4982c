//! What was judged once need not be judged again.
//!
//! Whether a request fits, and at what cost, depends on the class of a node, and where namespaces matter on which of its
//! GPUs the pod may not join: on nothing else of it. So a judgement made for filter serves prioritize as well, and the
//! next pod of the same shape, whatever snapshot it meets; after an event only the classes that came up are new.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use stowage_shared::policy::{Rank, Want, WhyNot};

use crate::state::{Barred, Class, KnownGpus, Snapshot};

/// Judgements kept; beyond that all are forgotten and made again.
const JUDGEMENTS_MAX: usize = 1 << 16;

/// Whether a request fits a class of nodes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Judgement {
    /// It fits, and is as good as this.
    Fits(Rank),
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
    /// What the packing core and the policies say.
    pub fn of(rank: Result<Rank, WhyNot>) -> Self {
        rank.map_or_else(|no| Self::no(&no), Self::Fits)
    }

    /// How good it is, where it fits.
    pub fn rank(&self) -> Option<Rank> {
        match self {
            Self::Fits(rank) => Some(*rank),
            Self::DoesNot { .. } => None,
        }
    }

    pub(super) fn no(why: &WhyNot) -> Self {
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
    judgements: HashMap<Want, Judged>,
}

/// The judgements of one shape of request.
#[derive(Debug, Default)]
struct Judged {
    classes: HashMap<Class, Judgement>,
    /// Those on nodes of which the pod may not join some GPUs.
    barred: HashMap<(Class, Barred), Judgement>,
}

impl Memo {
    /// Judges what a pod in `namespace` wants on many nodes.
    ///
    /// The lock is held while it does, which makes two requests at once wait for one another; kube-scheduler
    /// sends one at a time, and each would only do the work of the other.
    pub fn judge<'a>(
        &self,
        snapshot: &Snapshot,
        want: &Want,
        namespace: &str,
        nodes: impl IntoIterator<Item = &'a KnownGpus>,
    ) -> Vec<Judgement> {
        // A judgement is inserted whole or not at all, so a panic elsewhere leaves nothing half-done.
        let mut inner = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
        let inner = &mut *inner;
        if inner.mix_version != snapshot.mix_version || inner.count >= JUDGEMENTS_MAX {
            *inner = Inner { mix_version: snapshot.mix_version, ..Inner::default() };
        }
        if !inner.judgements.contains_key(want) {
            // Counts like a judgement, so that nobody fills the memory with requests that nothing is asked about.
            inner.judgements.insert(want.clone(), Judged::default());
            inner.count += 1;
        }
        let known = inner.judgements.entry(want.clone()).or_default();
        let before = known.classes.len() + known.barred.len();
        let judge = |gpus: &KnownGpus| Judgement::of(gpus.now.rank(want, namespace, &snapshot.mix));
        let answer = |gpus: &KnownGpus| {
            let barred = gpus.barred(&want.policy, namespace);
            let judged = if barred.is_none() {
                known.classes.entry(gpus.class).or_insert_with(|| judge(gpus))
            } else {
                known.barred.entry((gpus.class, barred)).or_insert_with(|| judge(gpus))
            };
            judged.clone()
        };
        let answers = nodes.into_iter().map(answer).collect();
        inner.count += known.classes.len() + known.barred.len() - before;
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
