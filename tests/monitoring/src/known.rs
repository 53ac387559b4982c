//! The metrics that the programs tell, as `docs/telemetry.md` lists them.
//!
//! `tests/workspace` compares that page with the programs, so whoever agrees with the page agrees with them; and nothing
//! here must be built again when a program changes. Prometheus's own `up` is known besides.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::{Context, Result, bail};

use crate::promql::Used;

/// Labels that Prometheus adds when it scrapes as `docs/alerts.md` says.
pub const SCRAPED: [&str; 6] = ["job", "instance", "namespace", "pod", "container", "node"];

/// A label's values, or none where any is possible.
type Labels = BTreeMap<String, BTreeSet<String>>;

/// Metrics by name, with their labels.
#[derive(Debug)]
pub struct Known(BTreeMap<String, Labels>);

impl Known {
    /// Reads the page.
    ///
    /// # Errors
    /// Where the page has another form than this reads.
    pub fn read() -> Result<Self> {
        let page = crate::text("docs/telemetry.md")?;
        let mut metrics: BTreeMap<String, Labels> = BTreeMap::new();
        let mut before = Labels::new();
        for line in page.lines() {
            let Some((name, rest)) = line.strip_prefix("| `").and_then(|row| row.split_once("` | ")) else {
                continue;
            };
            let cell = rest.split('|').next().unwrap_or_default();
            // The GPUs' table has the labels below it, the same for all.
            let labels = match (of_gpus(&metrics, name), cell.trim()) {
                (true, _) => gpu_labels(&page)?,
                (false, "the same") => before,
                (false, cell) => labels(cell),
            };
            before = labels.clone();
            metrics.insert(name.to_owned(), labels.clone());
            if cell.contains("(histogram)") {
                let mut buckets = labels.clone();
                buckets.insert("le".into(), BTreeSet::new());
                metrics.insert(format!("{name}_bucket"), buckets);
                metrics.insert(format!("{name}_count"), labels.clone());
                metrics.insert(format!("{name}_sum"), labels);
            }
        }
        if metrics.len() < 40 {
            bail!("docs/telemetry.md has another form than this test reads: {:?}", metrics.keys());
        }
        // Prometheus's own, of every target: whether it answered.
        metrics.insert("up".into(), Labels::new());
        Ok(Self(metrics))
    }

    /// The values that a label of a metric may have; none where any is possible.
    pub fn values(&self, metric: &str, label: &str) -> Option<&BTreeSet<String>> {
        self.0.get(metric)?.get(label)
    }

    /// Compares what a query uses of a metric with what there is.
    ///
    /// # Errors
    /// What there is not.
    pub fn check(&self, used: &Used) -> Result<()> {
        let name = &used.metric;
        let labels = self.0.get(name).with_context(|| format!("no program tells {name}"))?;
        for (label, values) in &used.labels {
            let Some(known) = labels.get(label) else {
                if SCRAPED.contains(&label.as_str()) {
                    continue;
                }
                bail!("{name} has no label {label}: it has {:?}", labels.keys());
            };
            let unknown = values.iter().find(|value| !known.is_empty() && !known.contains(*value));
            if let Some(value) = unknown {
                bail!("{label} of {name} is never {value}: it is one of {known:?}");
            }
        }
        Ok(())
    }
}

/// The table of the GPUs is the first one, and ends with the one metric of ours in it.
fn of_gpus(before: &BTreeMap<String, Labels>, name: &str) -> bool {
    let last = "stowage_device_plugin_allocated_devices";
    name.starts_with("DCGM_") || name == last && !before.contains_key(last)
}

fn gpu_labels(page: &str) -> Result<Labels> {
    let paragraph = page.split("\n\n").find(|text| text.starts_with("Labels: "));
    let paragraph = paragraph.context("docs/telemetry.md does not say which labels GPUs have")?;
    Ok(codes(paragraph).map(|label| (label, BTreeSet::new())).collect())
}

/// Reads a cell such as `` `gpu`, `scope`: `gpu`, `instance` ``: before a colon are labels, of which the last has the
/// values behind it, as far as the semicolon.
fn labels(cell: &str) -> Labels {
    let mut all = Labels::new();
    for part in cell.split(';') {
        let (names, values) = part.split_once(": ").unwrap_or((part, ""));
        all.extend(codes(names).map(|name| (name, BTreeSet::new())));
        if let Some(last) = codes(names).last() {
            // What it says in words before the last colon, such as "or why: ", is none of them.
            all.insert(last, codes(values).collect());
        }
    }
    all
}

/// What stands between backticks.
fn codes(text: &str) -> impl Iterator<Item = String> {
    text.split('`').skip(1).step_by(2).map(str::to_owned)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_cell_is_read_as_labels_and_their_values() {
        let all = labels("`gpu`, `scope`: `gpu`, `instance`; `cause`: `lost`");
        let values = |label: &str| all[label].iter().cloned().collect::<Vec<_>>();
        assert_eq!(all.keys().collect::<Vec<_>>(), ["cause", "gpu", "scope"]);
        assert_eq!(values("scope"), ["gpu", "instance"]);
        assert_eq!((values("gpu").len(), values("cause").len()), (0, 1));
    }

    #[test]
    fn what_no_program_tells_is_noticed() {
        let known = Known::read().unwrap();
        let check = |query: &str| match crate::promql::used(query) {
            Ok(used) => used.iter().try_for_each(|used| known.check(used)).is_ok(),
            Err(error) => panic!("{query}: {error}"),
        };
        assert!(check(r#"sum by (node) (stowage_scheduler_extender_nodes{state="old"})"#));
        assert!(check("rate(stowage_device_plugin_plan_wait_seconds_bucket[5m])"));
        assert!(check(r#"stowage_device_plugin_share_memory_used_bytes{pod="a"}"#));
        assert!(check(r#"up{job=~"(.+/)?stowage-device-plugin"}"#), "Prometheus tells it of every target");
        assert!(!check(r#"up{resource_name="a"}"#), "a target has no such label");
        assert!(!check("stowage_scheduler_extender_node"), "no such metric");
        assert!(!check("stowage_device_plugin_nvml_up_total"), "a gauge is no counter");
        assert!(!check(r#"stowage_scheduler_extender_nodes{reason="old"}"#), "no such label");
        assert!(!check(r#"stowage_scheduler_extender_nodes{state=~"old|odd"}"#), "no such value");
        assert!(!check("sum by (gpu) (stowage_scheduler_extender_nodes)"), "no such label to sum by");
    }
}
