//! What is configured of the GPUs' health: NVIDIA's two environment names, and how patient we are.

use std::time::Duration;

use super::ConfigError;
use super::check::Given;
use super::labels::duration;
use super::settings::{Kind, Setting, outside};
use crate::health::{Rules, RulesError};

/// What is configured of the GPUs' health.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HealthConfig {
    /// What counts as ill.
    pub rules: Rules,
    /// How often the GPUs are looked at while nothing happens.
    pub period: Duration,
    /// How long one NVML call may take before it is said that it hangs.
    pub call_limit: Duration,
}

pub(super) const DISABLE: Setting = Setting {
    key: "DP_DISABLE_HEALTHCHECKS",
    ..outside(
        "",
        &["DP_DISABLE_HEALTHCHECKS"],
        "",
        "Which failures leave a GPU healthy: all, xids, or numbers of XIDs with commas between",
    )
};
pub(super) const ENABLE: Setting = Setting {
    key: "DP_ENABLE_HEALTHCHECKS",
    ..outside(
        "",
        &["DP_ENABLE_HEALTHCHECKS"],
        "",
        "Which failures make a GPU unhealthy in spite of that: all, xids, or numbers of XIDs",
    )
};
pub(super) const CLASSES: Setting = Setting {
    kind: Kind::List,
    ..outside(
        "xid-classes",
        &["XID_CLASSES"],
        "",
        "What XIDs mean where NVIDIA's catalogue is not followed, such as 74=contained,31=reset: information, \
         application, contained, reset or fatal",
    )
};
pub(super) const QUIET: Setting = outside(
    "health-quiet-time",
    &["HEALTH_QUIET_TIME"],
    "60s",
    "How long a GPU must have been quiet after a contained error before it gets new work",
);
pub(super) const PERIOD: Setting = outside(
    "nvml-period",
    &["NVML_PERIOD"],
    "5s",
    "How often the GPUs are looked at while nothing happens: MIG devices that come and go, and health",
);
pub(super) const CALL_LIMIT: Setting = outside(
    "nvml-call-limit",
    &["NVML_CALL_LIMIT"],
    "10s",
    "How long one NVML call may take before its GPU is said to hang; MIG under load takes seconds",
);

/// The shortest and the longest time that any of them may be.
const TIMES: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(3600));

/// What is said of health.
pub(super) fn read(given: &Given) -> Result<HealthConfig, ConfigError> {
    let text = |setting: &Setting| given.text(setting.key).unwrap_or_default();
    let quiet = time(given, &QUIET)?;
    let wrong = |setting: &Setting, error: RulesError| given.wrong(setting.key, error.to_string());
    // One at a time, so that what is wrong can be named.
    Rules::new(text(&DISABLE), "", "", quiet).map_err(|error| wrong(&DISABLE, error))?;
    Rules::new("", text(&ENABLE), "", quiet).map_err(|error| wrong(&ENABLE, error))?;
    let rules = Rules::new(text(&DISABLE), text(&ENABLE), text(&CLASSES), quiet);
    Ok(HealthConfig {
        rules: rules.map_err(|error| wrong(&CLASSES, error))?,
        period: time(given, &PERIOD)?,
        call_limit: time(given, &CALL_LIMIT)?,
    })
}

fn time(given: &Given, setting: &Setting) -> Result<Duration, ConfigError> {
    let (least, most) = TIMES;
    duration(given.text(setting.key).unwrap_or(setting.default))
        .filter(|time| (least..=most).contains(time))
        .ok_or_else(|| given.wrong(setting.key, format!("use a time from {least:?} to 1h, such as 10s")))
}
