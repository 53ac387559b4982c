//! What Prometheus scrapes: the programs of this cluster, under the chart's PodMonitors, as Prometheus's operator would
//! translate them. So their `honorLabels` and relabelings are tried, and not some of this test's.

use anyhow::{Context, Result};
use serde_json::{Map, Value, json};
use stowage_chart_tests::{files, helm};
use stowage_monitoring_tests::{alerts, path};

use super::super::stowage::{EXTENDER_HTTP, NodeFiles, plugin_http};

/// How often: the programs themselves look at GPUs every 10 s.
const INTERVAL: &str = "2s";

/// What the plugins' pods and their PodMonitor are called.
pub(super) const PLUGIN: &str = "stowage-device-plugin";

/// One program, as the API server would describe its pod.
struct Target {
    monitor: &'static str,
    address: String,
    pod: String,
    container: &'static str,
    node: &'static str,
}

/// Prometheus's configuration, with the chart's rule files.
pub(super) fn configuration() -> Result<Value> {
    let values = ["--set", "podMonitor.enabled=true", "--set", &format!("podMonitor.interval={INTERVAL}")];
    let objects = helm::objects(&helm::template(&files::chart(), values)?)?;
    let monitors: Vec<&Value> = objects.iter().filter(|object| object["kind"] == "PodMonitor").collect();
    let jobs = monitors.into_iter().map(|monitor| job(monitor, &targets()));
    Ok(json!({
        "global": {"evaluation_interval": INTERVAL},
        "rule_files": [path(alerts::FOLDER).join("*.yaml")],
        "scrape_configs": jobs.collect::<Result<Vec<_>>>()?,
    }))
}

fn targets() -> Vec<Target> {
    let plugin = |(number, files): (usize, NodeFiles)| Target {
        monitor: PLUGIN,
        address: plugin_http(number),
        pod: format!("{PLUGIN}-{number}"),
        container: "device-plugin",
        node: files.node,
    };
    let extender = Target {
        monitor: "stowage-scheduler",
        address: EXTENDER_HTTP.to_owned(),
        pod: "stowage-scheduler-0".to_owned(),
        container: "extender",
        node: "cpu-node-1",
    };
    (0..).zip(NodeFiles::all()).map(plugin).chain([extender]).collect()
}

/// The scrape job of a PodMonitor's only endpoint.
fn job(monitor: &Value, targets: &[Target]) -> Result<Value> {
    let name = monitor["metadata"]["name"].as_str().context("a PodMonitor without a name")?;
    let namespace = monitor["metadata"]["namespace"].as_str().context("a PodMonitor without a namespace")?;
    let endpoint = &monitor["spec"]["podMetricsEndpoints"][0];
    let relabelings = endpoint["relabelings"].as_array().map(Vec::as_slice).unwrap_or_default();
    let found = targets.iter().filter(|target| target.monitor == name).map(|target| {
        json!({"targets": [target.address], "labels": {
            "__meta_kubernetes_namespace": namespace,
            "__meta_kubernetes_pod_name": target.pod,
            "__meta_kubernetes_pod_container_name": target.container,
            "__meta_kubernetes_pod_node_name": target.node,
        }})
    });
    // What the operator adds to every PodMonitor, before its own.
    let of_pod = [("namespace", "namespace"), ("pod_container_name", "container"), ("pod_name", "pod")]
        .map(|(meta, label)| json!({"source_labels": [format!("__meta_kubernetes_{meta}")], "target_label": label}));
    let of_monitor = [("job", format!("{namespace}/{name}")), ("endpoint", "metrics".to_owned())]
        .map(|(label, text)| json!({"target_label": label, "replacement": text}));
    let relabel: Vec<Value> =
        of_pod.into_iter().chain(of_monitor).chain(relabelings.iter().map(in_snake_case)).collect();
    Ok(json!({
        "job_name": format!("podMonitor/{namespace}/{name}/0"),
        "honor_labels": endpoint["honorLabels"],
        "scrape_interval": endpoint["interval"],
        "static_configs": found.collect::<Vec<_>>(),
        "relabel_configs": relabel,
    }))
}

/// The operator's `sourceLabels` are Prometheus's `source_labels`.
fn in_snake_case(relabeling: &Value) -> Value {
    let snake = |key: &String| {
        key.chars().fold(String::new(), |text, letter| match letter.is_ascii_uppercase() {
            true => text + "_" + &letter.to_ascii_lowercase().to_string(),
            false => text + &letter.to_string(),
        })
    };
    let fields = relabeling.as_object().into_iter().flatten();
    Value::Object(fields.map(|(key, value)| (snake(key), value.clone())).collect::<Map<_, _>>())
}
