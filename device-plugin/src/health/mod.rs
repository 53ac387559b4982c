//! Which GPUs and MIG instances are ill, since when, why, and until when.
//!
//! A pure state machine: [`Health::apply`] takes what was seen of one GPU, and gives what changed with the reason.
//! Time comes in as a number; the log, the metrics and the events are others' business.
//!
//! Nothing stays unhealthy by itself. What NVML can be asked again (a lost GPU, a call that hangs, a row to be
//! remapped) ends with the first answer that says so. An error that was contained ends when the GPU has been quiet
//! for a while and answers. What wants a reset ends when one is seen: the GPU was away and is back, its error
//! counters begin again, or the driver says that nothing must be done any more. A restart of this program forgets
//! what it was told by events, and sees anew what can be asked.

mod ailments;
mod metrics;
mod rules;
#[cfg(test)]
mod tests;
mod xids;

use std::collections::BTreeMap;
use std::time::Duration;

use stowage_shared::gpu::GpuUuid;

use self::ailments::{OfGpu, changes};
use crate::nvml::{RecoveryAction, Trouble, Vitals};

pub use metrics::HealthMetrics;
pub use rules::{QUIET_DEFAULT, Rules, RulesError};
pub use xids::{Class, TABLE as XIDS, look_up};

/// What of a GPU is ill.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Scope {
    /// All of it.
    Gpu,
    /// One GPU instance.
    GpuInstance(u32),
    /// One compute instance in a GPU instance.
    ComputeInstance(u32, u32),
}

impl Scope {
    fn covers(self, instances: Option<(u32, u32)>) -> bool {
        match (self, instances) {
            // Whoever has the whole GPU has its ill instance as well.
            (Self::Gpu, _) | (_, None) => true,
            (Self::GpuInstance(one), Some((other, _))) => one == other,
            (Self::ComputeInstance(gpu, compute), Some(other)) => (gpu, compute) == other,
        }
    }
}

/// What made it ill; the order is that of gravity.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Cause {
    /// It cannot be reached.
    Lost,
    /// Calls about it hang.
    Hangs,
    /// The driver wants a reset or a reboot.
    Recovery(RecoveryAction),
    /// A damaged row could not be replaced.
    RowRemapFailed,
    /// An XID.
    Xid(u64),
    /// A damaged row waits for a reset to be replaced.
    RowRemapPending,
    /// Memory errors that ECC could not mend.
    Ecc,
    /// It answers with errors.
    Unreadable,
    /// It is not there any more: a MIG instance that was destroyed, or a GPU whose MIG mode was switched, while a pod
    /// holds it. Not this module's to find: what is listed, and missing, is known where it is listed.
    Gone,
}

impl Cause {
    /// One word of a closed set: a metric's label.
    pub fn word(self) -> &'static str {
        match self {
            Self::Lost => "lost",
            Self::Hangs => "hangs",
            Self::Recovery(_) => "recovery_action",
            Self::RowRemapFailed => "row_remap_failed",
            Self::RowRemapPending => "row_remap_pending",
            Self::Xid(_) => "xid",
            Self::Ecc => "ecc",
            Self::Unreadable => "unreadable",
            Self::Gone => "gone",
        }
    }
}

/// What was seen of a GPU.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Seen {
    /// An XID, perhaps about no more than an instance.
    Xid {
        /// Its number.
        xid: u64,
        /// GPU instance and perhaps compute instance.
        instances: Option<(u32, Option<u32>)>,
    },
    /// It answered.
    Well(Vitals),
    /// It did not.
    Ill(Trouble),
}

/// What changed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Change {
    /// What of the GPU.
    pub scope: Scope,
    /// The new ailment; `None` where there is none left.
    pub ill: Option<(Cause, String)>,
}

/// See the [module](self).
#[derive(Debug, Clone)]
pub struct Health {
    rules: Rules,
    gpus: BTreeMap<GpuUuid, OfGpu>,
}

impl Health {
    /// Everybody is well.
    pub fn new(rules: Rules) -> Self {
        Self { rules, gpus: BTreeMap::new() }
    }

    /// What counts as ill.
    pub fn rules(&self) -> &Rules {
        &self.rules
    }

    /// Takes note of what was seen of a GPU.
    pub fn apply(&mut self, gpu: &GpuUuid, seen: Seen, now: Duration) -> Vec<Change> {
        let of = self.gpus.entry(gpu.clone()).or_default();
        let before = of.ailments.clone();
        match seen {
            Seen::Xid { xid, instances } => of.xid(&self.rules, xid, instances, now),
            Seen::Well(vitals) => of.well(&self.rules, vitals, now),
            Seen::Ill(trouble) => of.trouble(trouble, now),
        }
        changes(&before, &of.ailments)
    }

    /// Why a part of a GPU must not be handed out: its GPU instance and compute instance, or `None` for the whole
    /// GPU. The gravest reason, of those the one that has always been there.
    pub fn why_not(&self, gpu: &GpuUuid, instances: Option<(u32, u32)>) -> Option<&str> {
        let ailments = &self.gpus.get(gpu)?.ailments;
        let of_part = ailments.iter().filter(|((scope, _), _)| scope.covers(instances));
        of_part.min_by_key(|((scope, cause), _)| (*cause, *scope)).map(|(_, ailment)| ailment.why.as_str())
    }

    /// Why none of a GPU must be handed out.
    pub fn why_none(&self, gpu: &GpuUuid) -> Option<&str> {
        let ailments = &self.gpus.get(gpu)?.ailments;
        ailments.iter().find(|((scope, _), _)| *scope == Scope::Gpu).map(|(_, ailment)| ailment.why.as_str())
    }

    /// Whether it answered when it was last asked.
    pub fn answers(&self, gpu: &GpuUuid) -> bool {
        let silent = |cause: &Cause| matches!(cause, Cause::Lost | Cause::Hangs | Cause::Unreadable);
        self.gpus.get(gpu).is_some_and(|of| !of.ailments.keys().any(|(_, cause)| silent(cause)))
    }

    /// Whether nothing of it is ill.
    pub fn is_well(&self, gpu: &GpuUuid) -> bool {
        self.gpus.get(gpu).is_some_and(|of| of.ailments.is_empty())
    }
}
