//! The labels of metrics: words of fixed sets.

use prometheus_client::encoding::{EncodeLabelSet, EncodeLabelValue, LabelValueEncoder};

use crate::planner::track::Outcome as NominationOutcome;
use crate::verbs::Outcome;

/// What kube-scheduler calls.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Verb {
    /// filter.
    Filter,
    /// prioritize.
    Prioritize,
    /// preempt.
    Preempt,
    /// bind.
    Bind,
}

/// What became of a bind.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum BindOutcome {
    /// The API server said so at once.
    Bound,
    /// The answer was lost, and the pod turned out to be bound as planned.
    FoundBound,
    /// We did not try.
    Refused,
    /// The API server refused it.
    Rejected,
    /// It is not known; the devices stay held for a while.
    InDoubt,
}

/// A label's values that are a fixed set.
pub(super) trait Words: Copy + 'static {
    /// All of them.
    const ALL: &'static [Self];
}

/// A label's value that is one word of a fixed set.
macro_rules! words {
    ($kind:ty { $($value:path => $word:literal),+ $(,)? }) => {
        impl Words for $kind {
            const ALL: &'static [Self] = &[$($value),+];
        }

        impl EncodeLabelValue for $kind {
            fn encode(&self, encoder: &mut LabelValueEncoder<'_>) -> Result<(), std::fmt::Error> {
                let word = match self { $($value => $word),+ };
                EncodeLabelValue::encode(&word, encoder)
            }
        }
    };
}

words!(Verb { Verb::Filter => "filter", Verb::Prioritize => "prioritize", Verb::Preempt => "preempt", Verb::Bind => "bind" });
words!(Outcome { Outcome::Ok => "ok", Outcome::Error => "error", Outcome::BadRequest => "bad_request" });
words!(BindOutcome {
    BindOutcome::Bound => "bound",
    BindOutcome::FoundBound => "found_bound",
    BindOutcome::Refused => "refused",
    BindOutcome::Rejected => "rejected",
    BindOutcome::InDoubt => "in_doubt",
});

/// What became of an eviction of ours.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum EvictionResult {
    /// The pod goes.
    Evicted,
    /// It was gone already.
    Gone,
    /// A PodDisruptionBudget keeps it.
    Protected,
    /// It is not known, or not allowed.
    Failed,
}

words!(EvictionResult {
    EvictionResult::Evicted => "evicted",
    EvictionResult::Gone => "gone",
    EvictionResult::Protected => "protected",
    EvictionResult::Failed => "failed",
});

/// What became of a TLS handshake.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Handshake {
    /// The client is served.
    Done,
    /// It has no certificate that is accepted, or speaks something else than TLS.
    Refused,
    /// It said too little for too long.
    TimedOut,
    /// Too many others came after it.
    GivenUp,
}

words!(Handshake {
    Handshake::Done => "done",
    Handshake::Refused => "refused",
    Handshake::TimedOut => "timed_out",
    Handshake::GivenUp => "given_up",
});

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(super) struct HandshakeLabel {
    pub(super) result: Handshake,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(super) struct EvictionLabel {
    pub(super) result: EvictionResult,
}

/// How far a move has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum MoveOutcome {
    /// A pod was found whose move lets another in.
    Proposed,
    /// What became of its eviction.
    Eviction(EvictionResult),
    /// The other one got its place.
    Helped,
    /// It did not.
    InVain,
    /// The one that was moved has found no place.
    Displaced,
}

impl Words for MoveOutcome {
    const ALL: &'static [Self] = &[
        Self::Proposed,
        Self::Eviction(EvictionResult::Evicted),
        Self::Eviction(EvictionResult::Gone),
        Self::Eviction(EvictionResult::Protected),
        Self::Eviction(EvictionResult::Failed),
        Self::Helped,
        Self::InVain,
        Self::Displaced,
    ];
}

impl EncodeLabelValue for MoveOutcome {
    fn encode(&self, encoder: &mut LabelValueEncoder<'_>) -> Result<(), std::fmt::Error> {
        let word = match self {
            Self::Eviction(result) => return result.encode(encoder),
            Self::Proposed => "proposed",
            Self::Helped => "helped",
            Self::InVain => "in_vain",
            Self::Displaced => "displaced",
        };
        EncodeLabelValue::encode(&word, encoder)
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(super) struct MoveLabel {
    pub(super) outcome: MoveOutcome,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(super) struct ReasonLabel {
    pub(super) reason: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(super) struct WriteLabel {
    result: &'static str,
}

impl WriteLabel {
    pub(super) fn of(written: bool) -> Self {
        Self { result: if written { "written" } else { "failed" } }
    }
}

words!(NominationOutcome {
    NominationOutcome::OnNode => "on_node",
    NominationOutcome::Elsewhere => "elsewhere",
    NominationOutcome::TooLate => "too_late",
    NominationOutcome::LeftAlone => "left_alone",
    NominationOutcome::None => "none",
    NominationOutcome::Expired => "expired",
});

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(super) struct OutcomeLabel {
    pub(super) outcome: NominationOutcome,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(super) struct VerbLabel {
    pub(super) verb: Verb,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(super) struct RequestLabels {
    pub(super) verb: Verb,
    pub(super) result: Outcome,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(super) struct ResultLabel {
    pub(super) result: BindOutcome,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(super) struct KindLabel {
    pub(super) kind: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(crate) struct StateLabel {
    pub(crate) state: &'static str,
}
