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

mod metrics;
mod rules;
#[cfg(test)]
mod tests;
mod xids;

use std::collections::BTreeMap;
use std::time::Duration;

use stowage_shared::gpu::GpuUuid;

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

/// When an ailment ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Until {
    /// When the GPU answers and says nothing of it.
    Answer,
    /// When it has been quiet for a while, or was reset.
    Quiet,
    /// When it was reset.
    Reset,
}

#[derive(Debug, Clone)]
struct Ailment {
    until: Until,
    last: Duration,
    why: String,
}

#[derive(Debug, Clone, Default)]
struct OfGpu {
    ailments: BTreeMap<(Scope, Cause), Ailment>,
    /// What it said last.
    vitals: Option<Vitals>,
    /// Whether it was away since then.
    away: bool,
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

impl OfGpu {
    fn fall_ill(&mut self, scope: Scope, cause: Cause, until: Until, now: Duration, why: String) {
        let ailment = Ailment { until, last: now, why };
        let known = self.ailments.entry((scope, cause)).or_insert(ailment);
        known.last = now;
    }

    fn xid(&mut self, rules: &Rules, xid: u64, instances: Option<(u32, Option<u32>)>, now: Duration) {
        if !rules.counts(xid) {
            return;
        }
        let class = rules.class(xid);
        let what = look_up(xid).1;
        let (until, cure) = match class {
            Class::Information | Class::Application | Class::Contained => (
                Until::Quiet,
                format!("it gets no new work until it has been quiet for {} s", rules.quiet.as_secs()),
            ),
            Class::Reset => (Until::Reset, "it needs a reset".to_owned()),
            Class::Fatal => (Until::Reset, "its node needs a reboot".to_owned()),
        };
        // A reset takes every instance with it.
        let scope = match instances.filter(|_| until == Until::Quiet) {
            None => Scope::Gpu,
            Some((gpu, None)) => Scope::GpuInstance(gpu),
            Some((gpu, Some(compute))) => Scope::ComputeInstance(gpu, compute),
        };
        self.fall_ill(scope, Cause::Xid(xid), until, now, format!("XID {xid}: {what}; {cure}"));
    }

    fn trouble(&mut self, trouble: Trouble, now: Duration) {
        let cause = match &trouble {
            Trouble::Lost(_) => {
                self.away = true;
                Cause::Lost
            }
            Trouble::Unreadable(_) => Cause::Unreadable,
            Trouble::Hangs(_) => Cause::Hangs,
        };
        let why = match cause {
            Cause::Lost => format!("it cannot be reached: {}", trouble.why()),
            Cause::Unreadable => format!("it cannot be read: {}", trouble.why()),
            _ => trouble.why().to_owned(),
        };
        self.ailments.retain(|(_, known), _| {
            *known == cause || !matches!(known, Cause::Lost | Cause::Unreadable | Cause::Hangs)
        });
        self.fall_ill(Scope::Gpu, cause, Until::Answer, now, why);
    }

    fn well(&mut self, rules: &Rules, vitals: Vitals, now: Duration) {
        let was_reset = self.away || self.vitals.is_some_and(|before| begins_again(&before, &vitals));
        self.ailments.retain(|(_, cause), ailment| match ailment.until {
            Until::Reset => !was_reset,
            Until::Quiet => !was_reset && now.saturating_sub(ailment.last) < rules.quiet,
            Until::Answer => still_says(*cause, &vitals),
        });
        if rules.memory_counts() {
            self.memory(rules, &vitals, now);
        }
        if let Some(action) = vitals.recovery_action.filter(|action| must_be_done(*action)) {
            let why = match action {
                RecoveryAction::Reboot => "the driver says that its node must be rebooted",
                _ => "the driver says that it must be reset",
            };
            self.fall_ill(Scope::Gpu, Cause::Recovery(action), Until::Answer, now, why.to_owned());
        }
        self.vitals = Some(vitals);
        self.away = false;
    }

    fn memory(&mut self, rules: &Rules, vitals: &Vitals, now: Duration) {
        let count = |vitals: &Vitals| vitals.uncorrected_errors.unwrap_or(0);
        // What was there when we came is history.
        if self.vitals.is_some_and(|before| count(vitals) > count(&before)) {
            let why = format!(
                "memory errors that ECC could not mend; it gets no new work until there have been none for {} s",
                rules.quiet.as_secs()
            );
            self.fall_ill(Scope::Gpu, Cause::Ecc, Until::Quiet, now, why);
        }
        for (is_so, cause, why) in [
            (
                vitals.row_remap_failed,
                Cause::RowRemapFailed,
                "a damaged memory row could not be replaced: have the GPU checked",
            ),
            (
                vitals.row_remap_pending,
                Cause::RowRemapPending,
                "a damaged memory row waits to be replaced: it needs a reset",
            ),
        ] {
            if is_so {
                self.fall_ill(Scope::Gpu, cause, Until::Answer, now, why.to_owned());
            }
        }
    }
}

/// Whether a GPU was reset between the two: its counters, which only grow, are smaller, or nothing is left to do of
/// what the driver wanted done.
fn begins_again(before: &Vitals, after: &Vitals) -> bool {
    let fewer = |before: Option<u64>, after: Option<u64>| before.zip(after).is_some_and(|(b, a)| a < b);
    let done = before.recovery_action.is_some_and(must_be_done)
        && after.recovery_action.is_some_and(|action| !must_be_done(action));
    fewer(before.uncorrected_errors, after.uncorrected_errors) || done
}

fn must_be_done(action: RecoveryAction) -> bool {
    matches!(action, RecoveryAction::DrainAndReset | RecoveryAction::Reset | RecoveryAction::Reboot)
}

/// Whether a GPU that answers still has what can be asked.
fn still_says(cause: Cause, vitals: &Vitals) -> bool {
    match cause {
        Cause::RowRemapFailed => vitals.row_remap_failed,
        Cause::RowRemapPending => vitals.row_remap_pending,
        Cause::Recovery(action) => vitals.recovery_action == Some(action),
        Cause::Lost | Cause::Hangs | Cause::Unreadable | Cause::Xid(_) | Cause::Ecc | Cause::Gone => false,
    }
}

type Ailments = BTreeMap<(Scope, Cause), Ailment>;

fn changes(before: &Ailments, after: &Ailments) -> Vec<Change> {
    let new = after.iter().filter(|(key, _)| !before.contains_key(key));
    let mut changes: Vec<Change> = new
        .map(|((scope, cause), ailment)| Change { scope: *scope, ill: Some((*cause, ailment.why.clone())) })
        .collect();
    let mut well: Vec<Scope> = before.keys().map(|(scope, _)| *scope).collect();
    well.dedup();
    well.retain(|scope| !after.keys().any(|(other, _)| other == scope));
    changes.extend(well.into_iter().map(|scope| Change { scope, ill: None }));
    changes
}
