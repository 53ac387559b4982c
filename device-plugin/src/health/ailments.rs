//! What ails one GPU, and what makes it well.

use std::collections::BTreeMap;
use std::time::Duration;

use super::{Cause, Change, Class, Rules, Scope, look_up};
use crate::nvml::{RecoveryAction, Trouble, Vitals};

/// What is known of one GPU.
#[derive(Debug, Clone, Default)]
pub(super) struct OfGpu {
    pub(super) ailments: Ailments,
    /// What it said last.
    vitals: Option<Vitals>,
    /// Whether it was away since then.
    away: bool,
}

/// What of a GPU is ill, by what of it and why.
pub(super) type Ailments = BTreeMap<(Scope, Cause), Ailment>;

/// One thing that is wrong.
#[derive(Debug, Clone)]
pub(super) struct Ailment {
    until: Until,
    /// When it was seen last.
    last: Duration,
    /// What is wrong, for people.
    pub(super) why: String,
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

impl OfGpu {
    fn fall_ill(&mut self, scope: Scope, cause: Cause, until: Until, now: Duration, why: String) {
        let ailment = Ailment { until, last: now, why };
        let known = self.ailments.entry((scope, cause)).or_insert(ailment);
        known.last = now;
    }

    /// An XID was raised.
    pub(super) fn xid(
        &mut self,
        rules: &Rules,
        xid: u64,
        instances: Option<(u32, Option<u32>)>,
        now: Duration,
    ) {
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

    /// It did not answer.
    pub(super) fn trouble(&mut self, trouble: Trouble, now: Duration) {
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

    /// It answered.
    pub(super) fn well(&mut self, rules: &Rules, vitals: Vitals, now: Duration) {
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

/// What is new, and what has got well altogether.
pub(super) fn changes(before: &Ailments, after: &Ailments) -> Vec<Change> {
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
