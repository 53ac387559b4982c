//! The words that labels take: closed sets, so that each counter can be told before its first event.

use crate::book::{Served, Source};

/// How a write of the GpuNode ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum GpuNodeWrite {
    /// It was written.
    Written,
    /// The API server knows no GpuNodes.
    MissingCrd,
    /// A right is missing, or an admission policy says no.
    Forbidden,
    /// It does not fit the schema.
    Invalid,
    /// Anything else: the API server is away, slow or busy.
    Failed,
}

impl GpuNodeWrite {
    pub(super) const ALL: [Self; 5] =
        [Self::Written, Self::MissingCrd, Self::Forbidden, Self::Invalid, Self::Failed];

    pub(super) fn word(self) -> &'static str {
        match self {
            Self::Written => "written",
            Self::MissingCrd => "missing_crd",
            Self::Forbidden => "forbidden",
            Self::Invalid => "invalid",
            Self::Failed => "failed",
        }
    }
}

/// How a try to label the node ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LabelWrite {
    /// It was labelled.
    Written,
    /// The machine could not be read.
    Unreadable,
    /// A right is missing, or an admission policy says no.
    Forbidden,
    /// Anything else: the API server is away, slow or busy.
    Failed,
}

impl LabelWrite {
    pub(super) const ALL: [Self; 4] = [Self::Written, Self::Unreadable, Self::Forbidden, Self::Failed];

    pub(super) fn word(self) -> &'static str {
        match self {
            Self::Written => "written",
            Self::Unreadable => "unreadable",
            Self::Forbidden => "forbidden",
            Self::Failed => "failed",
        }
    }
}

/// How a look-up of a plan ends.
pub(super) const LOOKUPS: [&str; 3] = ["found", "none", "failed"];
/// How a question to pod-resources ends.
pub(super) const LISTS: [&str; 2] = ["ok", "failed"];

pub(super) fn served(served: Served) -> &'static str {
    match served {
        Served::Planned => "planned",
        Served::OffPlan => "off_plan",
        Served::Unplanned => "unplanned",
    }
}

pub(super) fn source(source: Source) -> &'static str {
    match source {
        Source::Plan => "plan",
        Source::Policy => "policy",
        Source::Core => "core",
        Source::Nobody => "nobody",
    }
}
