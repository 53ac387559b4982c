//! Alerts and dashboards: whatever lies in the chart's `files`, and nothing where nothing does.

use std::fs;
use std::path::Path;
use std::process::Command;

use serde_json::Value;
use stowage_chart_tests::{files, helm};

use super::{each_value, find, set};

const BOTH: [&str; 2] = ["prometheusRule.enabled=true", "dashboards.enabled=true"];

/// An alert that there is no extender would fire for ever where none is wanted, and nobody would have made its namespace.
#[test]
fn without_the_scheduler_alerts_and_dashboards_are_the_plugins_alone() {
    let names = |objects: &[Value], kind: &str, prefix: &str| -> Vec<(String, String)> {
        let word = |object: &Value, key: &str| object["metadata"][key].as_str().unwrap().to_owned();
        let of_kind = objects.iter().filter(|object| object["kind"] == kind);
        let all = of_kind.map(|object| (word(object, "name"), word(object, "namespace")));
        all.filter(|(name, _)| name.starts_with(prefix)).collect()
    };
    let of = |values: &[&str]| {
        let objects = helm::objects(&render(&files::chart(), values)).unwrap();
        [names(&objects, "PrometheusRule", "stowage-"), names(&objects, "ConfigMap", "stowage-dashboard-")]
    };
    let [rules, dashboards] = of(&BOTH);
    assert!(rules.iter().chain(&dashboards).all(|(_, namespace)| namespace == "stowage-system"));
    let [of_plugin, of_nodes] = of(&[BOTH[0], BOTH[1], "scheduler.enabled=false"]);
    assert!(of_plugin.iter().chain(&of_nodes).all(|(_, namespace)| namespace == "stowage-device-plugin"));
    let gone: Vec<&str> = rules
        .iter()
        .map(|(name, _)| name.as_str())
        .filter(|name| !of_plugin.iter().any(|(other, _)| other == name))
        .collect();
    assert_eq!((gone, of_nodes.len()), (vec!["stowage-extender"], dashboards.len()));
    let absent = files::read("deploy/helm/stowage/files/alerts/extender.yaml");
    assert!(absent.contains("expr: absent("), "what fires where nothing is told stands in that file");
    for file in ["capacity", "health", "plans", "plugin", "shares"] {
        assert!(!files::read(&format!("deploy/helm/stowage/files/alerts/{file}.yaml")).contains("absent("));
    }
}

/// The chart with these files in place of its own.
fn chart_with(files: &[(&str, &str)]) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    let copied =
        Command::new("cp").arg("-R").arg(files::chart().join(".")).arg(folder.path()).status().unwrap();
    assert!(copied.success());
    let _ = fs::remove_dir_all(folder.path().join("files"));
    for (name, text) in files {
        let path = folder.path().join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }
    folder
}

fn render(chart: &Path, values: &[&str]) -> String {
    helm::template(chart, set(values)).unwrap()
}

#[test]
fn without_files_nothing_is_rendered() {
    let chart = chart_with(&[]);
    assert_eq!(render(chart.path(), &BOTH), render(chart.path(), &[]));
}

#[test]
fn files_are_rendered_as_they_are() {
    let chart = chart_with(&[
        (
            "files/alerts/gpus.yaml",
            "groups:\n  - name: gpus\n    rules:\n      - {alert: A, expr: up, annotations: {summary: \"{{ $labels.gpu }}\"}}\n",
        ),
        ("files/dashboards/node.json", "{\n  \"title\": \"{{gpu}}\"\n}\n"),
    ]);
    assert!(!render(chart.path(), &[]).contains("dashboard-node"), "off by default");
    let objects = helm::objects(&render(chart.path(), &BOTH)).unwrap();
    let rule = find(&objects, "PrometheusRule", "stowage-gpus");
    assert_eq!(rule["spec"]["groups"][0]["rules"][0]["annotations"]["summary"], "{{ $labels.gpu }}");
    let dashboard = find(&objects, "ConfigMap", "stowage-dashboard-node");
    assert_eq!(dashboard["data"]["stowage-node.json"], "{\n  \"title\": \"{{gpu}}\"\n}");
    assert_eq!(dashboard["metadata"]["labels"]["grafana_dashboard"], "1");

    for (path, to, text) in [
        ("prometheusRule.additionalLabels", r#"{"release":"prometheus"}"#, "release: prometheus"),
        ("dashboards.labels", r#"{"mine":"yes"}"#, "mine: \"yes\""),
        ("dashboards.annotations", r#"{"grafana_folder":"GPUs"}"#, "grafana_folder: GPUs"),
    ] {
        assert!(each_value::OF_FILES.contains(&path));
        let changed = format!("{path}={to}");
        let text_after = render(chart.path(), &[BOTH[0], BOTH[1], &changed]);
        assert!(text_after.contains(text) && !render(chart.path(), &BOTH).contains(text), "{changed}");
    }
}
