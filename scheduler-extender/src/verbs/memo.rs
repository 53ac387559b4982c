//! What was judged once need not be judged again.
//!
//! Whether a request fits, and what it takes of the GPUs, depends on the class of a node, and where namespaces matter on
//! which of its GPUs the pod may not join: on nothing else of it. What it costs by the market depends on what the node
//! has idle. So what was judged once serves the next pod of the same shape, whatever snapshot it meets; after an event
//! only what came up is new.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use foldhash::fast::FixedState;
use stowage_shared::host::Host;
use stowage_shared::pack::Mix;
use stowage_shared::pack::fleet::Shape;
use stowage_shared::policy::{Occupied, Rank, Want, WhyNot};

use crate::state::{Barred, Class, KnownGpus, Snapshot};

/// Judgements kept; beyond that all are forgotten and made again.
const JUDGEMENTS_MAX: usize = 1 << 16;
/// Costs kept, which are smaller; the same goes for them.
const COSTS_MAX: usize = 1 << 18;

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

    /// The same of a node that is judged by itself, with what the pod costs there.
    pub fn of_room(room: &Occupied, want: &Want, namespace: &str, mix: &Mix) -> Self {
        let market = |rank| Rank { market: room.market_cost(want, mix), ..rank };
        Self::of(room.rank(want, namespace, mix).map(market))
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
    costs: Costs,
}

/// What shapes cost where so much is idle, by one market.
#[derive(Debug, Default)]
struct Costs {
    market_version: u64,
    count: usize,
    by_shape: HashMap<Shape, HashMap<u64, i64, FixedState>>,
}

/// The judgements of one shape of request.
#[derive(Debug, Default)]
struct Judged {
    classes: HashMap<Class, Judgement, FixedState>,
    /// Those on nodes of which the pod may not join some GPUs.
    barred: HashMap<(Class, Barred), Judgement, FixedState>,
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
            let (mix_version, costs) = (snapshot.mix_version, std::mem::take(&mut inner.costs));
            *inner = Inner { mix_version, costs, ..Inner::default() };
        }
        // What a pod asks for beside its devices does not matter here.
        let bare;
        let want = if want.host == Host::default() {
            want
        } else {
            bare = Want { host: Host::default(), ..want.clone() };
            &bare
        };
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

    /// The same with what the pod costs by the market: [`Rank::market`].
    pub fn weigh<'a>(
        &self,
        snapshot: &Snapshot,
        want: &Want,
        namespace: &str,
        nodes: impl IntoIterator<Item = &'a KnownGpus>,
    ) -> Vec<Judgement> {
        let nodes: Vec<&KnownGpus> = nodes.into_iter().collect();
        let mut judgements = self.judge(snapshot, want, namespace, nodes.iter().copied());
        let market = snapshot.mix.market();
        if let Some(shape) = market.and_then(|market| want.ranked_shape(market.stands())) {
            let ranks = judgements.iter_mut().map(|judgement| match judgement {
                Judgement::Fits(rank) => Some(rank),
                Judgement::DoesNot { .. } => None,
            });
            let fits = nodes.into_iter().zip(ranks).filter_map(|(node, rank)| Some((node, rank?)));
            let (nodes, ranks): (Vec<&KnownGpus>, Vec<&mut Rank>) = fits.unzip();
            let costs = self.costs(snapshot, shape, nodes);
            ranks.into_iter().zip(costs).for_each(|(rank, cost)| rank.market = cost);
        }
        judgements
    }

    /// What a pod of a shape costs by the market on each of these nodes: [`Rank::market`].
    pub fn costs<'a>(
        &self,
        snapshot: &Snapshot,
        shape: Shape,
        nodes: impl IntoIterator<Item = &'a KnownGpus>,
    ) -> Vec<i64> {
        let nodes = nodes.into_iter();
        let Some(market) = snapshot.mix.market() else { return nodes.map(|_| 0).collect() };
        let mut inner = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
        let costs = &mut inner.costs;
        if costs.market_version != snapshot.market_version || costs.count >= COSTS_MAX {
            *costs = Costs { market_version: snapshot.market_version, ..Costs::default() };
        }
        let known = costs.by_shape.entry(shape).or_default();
        let before = known.len();
        let cost =
            |gpus: &KnownGpus| *known.entry(gpus.idle()).or_insert_with(|| market.cost(gpus.lots(), &shape));
        let answer = nodes.map(cost).collect();
        costs.count += known.len() - before;
        answer
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
