//! What panels show, and alerts find, of what Prometheus has seen.

use std::time::SystemTime;

use anyhow::Result;
use stowage_monitoring_tests::dashboards::{self, Dashboard, Target};
use stowage_monitoring_tests::{alerts, promql};

use super::prometheus::{Prometheus, Series};
use super::scrape::PLUGIN;

/// What Grafana takes for `$__rate_interval` where a panel shows minutes: some scrapes.
const RATE_INTERVAL: &str = "20s";
/// Labels that only a slice has, in lines that whole GPUs have too.
const OF_SLICES: [&str; 2] = ["GPU_I_PROFILE", "GPU_I_ID"];

/// Panels that may show nothing but zeros here, or quantiles of nothing, and why that is right. They show lines all the same.
const ZERO: [(&str, &str, &str); 10] = [
    ("cluster", "Plan drift", "every pod gets what was planned"),
    (
        "cluster",
        "Devices held and watches: assumption {{state}}",
        "some milliseconds long, between two scrapes",
    ),
    ("cluster", "Nominations, evictions and moves: move {{outcome}}", "moves have scenarios of their own"),
    ("node", "Wait for plans, 99th percentile", "every plan is there in time"),
    ("node", "Resources not followed", "every kubelet follows"),
    ("node", "Off plan", "every pod gets what was planned"),
    ("node", "Plans: look-up {{result}}", "every plan is there in time"),
    ("node", "Plans: ignored", "nobody but the extender may write a plan"),
    ("node", "Writes: labels {{result}}", "nodes are labelled before the first scrape"),
    ("node", "Kubelet: {{resource_name}} {{result}}", "plugins register before the first scrape"),
];

/// The queries that show nothing, each in a line that says which it is and what was seen.
pub(super) async fn lacking(prometheus: &Prometheus, since: SystemTime) -> Result<Vec<String>> {
    let mut lacking = Vec::new();
    for dashboard in dashboards::all()? {
        for chosen in choices(prometheus, &dashboard, since).await? {
            for target in &dashboard.targets {
                let query = fill(&target.query, &chosen);
                let lines = prometheus.range(&query, since).await?;
                if let Some(why) = fault(&dashboard, target, &lines) {
                    lacking.push(format!("  {} / {}: {why}: {query}", dashboard.name, target.title));
                }
            }
        }
    }
    for (_, alert) in alerts::of(alerts::FOLDER)? {
        for selector in promql::selectors(alert["expr"].as_str().unwrap_or_default())? {
            if prometheus.range(&selector, since).await?.is_empty() {
                lacking.push(format!("  {}: nothing: {selector}", alert["alert"]));
            }
        }
    }
    Ok(lacking)
}

/// A variable's name, and what Grafana puts in its place.
type Chosen = Vec<(String, String)>;

/// What people may choose: all, as at first, and each value by itself, all of them ticked.
async fn choices(prometheus: &Prometheus, dashboard: &Dashboard, since: SystemTime) -> Result<[Chosen; 2]> {
    let (mut all, mut ticked) = (Chosen::new(), Chosen::new());
    for variable in &dashboard.variables {
        let values = prometheus.label_values(&fill(&variable.of, &all), &variable.label, since).await?;
        anyhow::ensure!(!values.is_empty(), "{} has nothing to choose for {}", dashboard.name, variable.name);
        all.push((variable.name.clone(), variable.all.clone()));
        ticked.push((variable.name.clone(), format!("({})", values.join("|"))));
    }
    Ok([all, ticked])
}

fn fill(query: &str, chosen: &Chosen) -> String {
    let query = query.replace("$__rate_interval", RATE_INTERVAL);
    chosen.iter().fold(query, |query, (name, value)| query.replace(&format!("${name}"), value))
}

/// What is wrong with what a query answers.
fn fault(dashboard: &Dashboard, target: &Target, lines: &[Series]) -> Option<String> {
    let values = || lines.iter().flat_map(|line| &line.values).filter(|value| value.is_finite());
    let is_excepted = ZERO.iter().any(|(name, title, _)| *name == dashboard.name && *title == target.title);
    if values().next().is_none() && (lines.is_empty() || !is_excepted) {
        return Some(format!("no number in {} lines", lines.len()));
    }
    let nameless = lines.iter().find_map(|line| {
        let lacks =
            |label: &&String| !OF_SLICES.contains(&label.as_str()) && !line.labels.contains_key(*label);
        target.legend.iter().find(lacks).map(|label| (label, &line.labels))
    });
    if let Some((label, labels)) = nameless {
        return Some(format!("a line without {label}: {labels:?}"));
    }
    let of_plugin = |line: &&Series| {
        line.labels.get("pod").is_some_and(|pod| pod.starts_with(PLUGIN) && dashboard.name == "workload")
    };
    if let Some(line) = lines.iter().find(of_plugin) {
        return Some(format!("the plugin's own pod is taken for one that uses a GPU: {:?}", line.labels));
    }
    let is_zero = values().all(|value| value == &0.0);
    (is_zero && !is_excepted).then(|| "nothing but zeros".to_owned())
}
