//! What is configured of the node's labels.
//!
//! They are NVIDIA's GPU feature discovery's settings, in its file's keys and its environment names. Ours is but the
//! switch. It is on where nobody says otherwise: NVIDIA's chart brings both programs, and who replaces it with
//! Stowage's has `nodeSelector`s that must go on finding their nodes.

use std::path::PathBuf;
use std::time::Duration;

use super::ConfigError;
use super::check::Given;
use super::settings::{Kind, Setting, nvidia, outside};

/// The shortest time between two looks at the machine.
const INTERVAL_MIN: Duration = Duration::from_secs(1);

/// Where labels go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LabelTarget {
    /// The Node itself.
    Node,
    /// A NodeFeature, from which node-feature-discovery labels the Node.
    NodeFeature,
}

/// What is configured of labels.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LabelConfig {
    /// Where they go.
    pub target: LabelTarget,
    /// Whether the label with the time of the start is left out.
    pub no_timestamp: bool,
    /// How often the machine is looked at; `None` for once.
    pub interval: Option<Duration>,
    /// The file that tells the machine's name.
    pub machine_type_file: PathBuf,
}

pub(super) const LABEL_NODE: Setting = Setting {
    kind: Kind::Switch,
    ..outside(
        "label-node",
        &["LABEL_NODE"],
        "true",
        "Whether the node is labelled with what GPUs it has, as NVIDIA's GPU feature discovery does",
    )
};
pub(super) const USE_NODE_FEATURE_API: Setting = Setting {
    kind: Kind::Switch,
    ..nvidia(
        "flags.useNodeFeatureAPI",
        "use-node-feature-api",
        &["GFD_USE_NODE_FEATURE_API", "USE_NODE_FEATURE_API"],
        "false",
        "Whether labels go into a NodeFeature for node-feature-discovery; else onto the Node",
    )
};
pub(super) const NO_TIMESTAMP: Setting = Setting {
    kind: Kind::Switch,
    ..nvidia(
        "flags.gfd.noTimestamp",
        "no-timestamp",
        &["GFD_NO_TIMESTAMP"],
        "false",
        "Whether the label nvidia.com/gfd.timestamp is left out",
    )
};
pub(super) const SLEEP_INTERVAL: Setting = nvidia(
    "flags.gfd.sleepInterval",
    "sleep-interval",
    &["GFD_SLEEP_INTERVAL"],
    "60s",
    "How often it is looked whether the labels are still true: a time such as 60s, or infinite",
);
pub(super) const MACHINE_TYPE_FILE: Setting = nvidia(
    "flags.gfd.machineTypeFile",
    "machine-type-file",
    &["GFD_MACHINE_TYPE_FILE"],
    "/sys/class/dmi/id/product_name",
    "The file that tells the machine's name",
);

/// What is said of labels; `None` where there are none.
pub(super) fn read(given: &Given, kubernetes: bool) -> Result<Option<LabelConfig>, ConfigError> {
    let wanted = given.boolean(LABEL_NODE.key)?.unwrap_or(true);
    let node_feature = given.boolean(USE_NODE_FEATURE_API.key)?.unwrap_or(false);
    let config = LabelConfig {
        target: if node_feature { LabelTarget::NodeFeature } else { LabelTarget::Node },
        no_timestamp: given.boolean(NO_TIMESTAMP.key)?.unwrap_or(false),
        interval: interval(given)?,
        machine_type_file: given.path(MACHINE_TYPE_FILE.key, MACHINE_TYPE_FILE.default)?,
    };
    Ok((wanted && kubernetes).then_some(config))
}

fn interval(given: &Given) -> Result<Option<Duration>, ConfigError> {
    let text = given.text(SLEEP_INTERVAL.key).unwrap_or(SLEEP_INTERVAL.default);
    if text == "infinite" {
        return Ok(None);
    }
    match duration(text) {
        Some(interval) if interval >= INTERVAL_MIN => Ok(Some(interval)),
        _ => Err(given.wrong(
            SLEEP_INTERVAL.key,
            format!("use a time of {INTERVAL_MIN:?} or more, such as 60s or 1h30m, or infinite"),
        )),
    }
}

/// A time as Go writes it, in whole hours, minutes, seconds and milliseconds: `1m0s`.
pub(super) fn duration(text: &str) -> Option<Duration> {
    let mut rest = text;
    let mut sum = Duration::ZERO;
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit())?;
        let number: u64 = rest[..digits].parse().ok()?;
        rest = &rest[digits..];
        let letters = rest.find(|c: char| c.is_ascii_digit()).unwrap_or(rest.len());
        let unit_ms = match &rest[..letters] {
            "ms" => 1,
            "s" => 1_000,
            "m" => 60_000,
            "h" => 3_600_000,
            _ => return None,
        };
        sum = sum.checked_add(Duration::from_millis(number.checked_mul(unit_ms)?))?;
        rest = &rest[letters..];
    }
    (!text.is_empty()).then_some(sum)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_read_as_go_writes_them() {
        for (text, seconds) in [
            ("60s", Some(60.0)),
            ("1m0s", Some(60.0)),
            ("1h30m", Some(5400.0)),
            ("1500ms", Some(1.5)),
            ("", None),
            ("60", None),
            ("s", None),
            ("1d", None),
            ("-1s", None),
            ("99999999999999999999s", None),
            ("18446744073709551615h", None),
        ] {
            assert_eq!(duration(text).map(|time| time.as_secs_f64()), seconds, "{text}");
        }
    }
}
