//! Configurations that cannot be used: what is said of them, and when one is tried again that did not go with this node.

use std::time::{Duration, Instant};

use super::ConfigMetrics;
use crate::config::Config;

/// How long after a configuration was refused because of how this node is, it is tried again; twice as long each time.
const FIRST_TRY: Duration = Duration::from_secs(300);
/// The same at most.
const LAST_TRY: Duration = Duration::from_secs(3600);

/// What cannot be used, so that it is said once.
#[derive(Default)]
pub(super) struct Refused {
    why: Option<String>,
    trial: Option<Trial>,
}

/// A configuration that can be read, and that this node could not have when it was tried.
struct Trial {
    config: Config,
    wait: Duration,
    due: Instant,
}

impl Refused {
    pub(super) fn is(&mut self, metrics: &ConfigMetrics, why: &str) {
        if self.why.as_deref() != Some(why) {
            metrics.set_refused(true);
            tracing::warn!(error = %why, "The configuration is not used: the one before stays.");
            self.why = Some(why.to_owned());
        }
    }

    /// This node cannot have `config` now: it is tried again later, and after each failure less soon, since each try
    /// costs a registration.
    pub(super) fn wait_with(&mut self, config: Config, now: Instant) {
        let before = self.trial.take().filter(|trial| trial.config == config);
        let wait = before.map_or(FIRST_TRY, |trial| (trial.wait * 2).min(LAST_TRY));
        self.trial = Some(Trial { config, wait, due: now + wait });
    }

    /// Whether `config` is to be tried; one that was not tried last is at once.
    pub(super) fn may_try(&self, config: &Config, now: Instant) -> bool {
        self.trial.as_ref().is_none_or(|trial| trial.config != *config || now >= trial.due)
    }

    /// A configuration that can be used is there. What is tried again stays refused until it serves.
    pub(super) fn ends(&mut self, metrics: &ConfigMetrics, config: &Config, serves: bool) {
        let is_tried = self.trial.as_ref().is_some_and(|trial| trial.config == *config);
        if !is_tried {
            self.trial = None;
        }
        if serves || !is_tried {
            self.why = None;
            metrics.set_refused(false);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config;

    fn config(flag: &str) -> Config {
        let line = ["x", "--kubernetes=false", flag];
        config::load(&config::arguments().try_get_matches_from(line).unwrap(), |_| None).unwrap()
    }

    #[test]
    fn what_the_node_could_not_have_is_tried_again_less_and_less_often() {
        let (start, minutes) = (Instant::now(), |minutes: u64| Duration::from_secs(60 * minutes));
        let mut refused = Refused::default();
        let (bad, good) = (config("--mig-strategy=single"), config("--mig-strategy=mixed"));
        let mut at = start;
        for wait in [5, 10, 20, 40, 60, 60] {
            assert!(refused.may_try(&bad, at));
            refused.wait_with(bad.clone(), at);
            assert!(!refused.may_try(&bad, at + minutes(wait) - Duration::from_secs(1)), "{wait}");
            assert!(refused.may_try(&good, at), "another one is tried at once");
            at += minutes(wait);
        }
        refused.wait_with(good.clone(), at);
        assert!(refused.may_try(&good, at + minutes(5)), "each begins anew");
    }

    #[test]
    fn what_is_tried_again_stays_refused_until_it_serves() {
        let metrics = ConfigMetrics::default();
        let (start, bad, good) =
            (Instant::now(), config("--mig-strategy=single"), config("--mig-strategy=mixed"));
        let mut refused = Refused::default();
        refused.is(&metrics, "no");
        refused.wait_with(bad.clone(), start);
        refused.ends(&metrics, &bad, false);
        assert_eq!(metrics.refused.get(), 1);
        refused.ends(&metrics, &bad, true);
        assert_eq!(metrics.refused.get(), 0);
        refused.ends(&metrics, &good, true);
        assert!(refused.may_try(&bad, start), "chosen again, it is tried at once");
    }
}
