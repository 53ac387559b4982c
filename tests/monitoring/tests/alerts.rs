//! Alerts ask for what the programs tell, say what to do, and fire when they should.
#![allow(clippy::unwrap_used)]

use std::collections::BTreeSet;
use std::io::Write;
use std::process::Command;

use serde_json::Value;
use stowage_monitoring_tests::programs::Program;
use stowage_monitoring_tests::{alerts, alerts::FOLDER as ALERTS, files, known::Known, path, promql, text};

const EXAMPLES: &str = "deploy/examples/alerts";
const RULES: &str = "tests/monitoring/rules";
/// What the examples ask for: the names of model servers and of Prometheus's client libraries.
const OF_SERVERS: [&str; 5] = [
    "http_request_duration_seconds_bucket",
    "http_requests_total",
    "nv_inference_request_duration_us",
    "nv_inference_request_failure",
    "nv_inference_request_success",
];

/// The alerts of a folder's rule files, each with its file.
fn alerts(folder: &str) -> Vec<(String, Value)> {
    let all = alerts::of(folder).unwrap();
    assert!(!all.is_empty(), "{folder} has no alerts");
    all
}

fn word<'a>(of: &'a Value, key: &str) -> &'a str {
    of[key].as_str().filter(|text| !text.is_empty()).unwrap_or_else(|| panic!("no {key} in {of}"))
}

#[test]
fn every_alert_asks_for_what_the_programs_tell() {
    let known = Known::read().unwrap();
    for (file, alert) in alerts(ALERTS) {
        for used in promql::used(word(&alert, "expr")).unwrap() {
            known.check(&used).unwrap_or_else(|error| panic!("{file}: {}: {error:#}", alert["alert"]));
        }
    }
    for (file, alert) in alerts(EXAMPLES) {
        for used in promql::used(word(&alert, "expr")).unwrap() {
            assert!(OF_SERVERS.contains(&used.metric.as_str()), "{file}: {used:?}");
        }
    }
}

#[test]
fn every_alert_says_how_bad_it_is_and_what_it_means() {
    let mut names = BTreeSet::new();
    for (file, alert) in alerts(ALERTS).into_iter().chain(alerts(EXAMPLES)) {
        let name = word(&alert, "alert");
        assert!(names.insert(name.to_owned()), "{file}: {name} stands there twice");
        let severity = word(&alert["labels"], "severity");
        assert!(["critical", "warning", "info"].contains(&severity), "{file}: {name} is {severity}");
        let annotations = &alert["annotations"];
        assert!(
            !word(annotations, "summary").contains("{{"),
            "{file}: {name}: a summary is the same for all"
        );
        assert!(word(annotations, "description").ends_with('.'), "{file}: {name}");
    }
}

#[test]
fn every_alert_has_its_chapter_and_every_chapter_its_alert() {
    let page = text("docs/alerts.md").unwrap();
    let chapters: BTreeSet<&str> = page.lines().filter_map(|line| line.strip_prefix("### ")).collect();
    let mut names = BTreeSet::new();
    for (file, alert) in alerts(ALERTS) {
        let name = word(&alert, "alert").to_owned();
        let runbook = format!("docs/alerts.md#{}", name.to_lowercase());
        assert_eq!(word(&alert["annotations"], "runbook"), runbook, "{file}");
        names.insert(name);
    }
    assert_eq!(chapters, names.iter().map(String::as_str).collect());
}

/// A label that the expression does not have is empty in the text, and nobody notices.
#[test]
fn descriptions_use_labels_that_the_expression_keeps() {
    for (file, alert) in alerts(ALERTS).into_iter().chain(alerts(EXAMPLES)) {
        let description = word(&alert["annotations"], "description");
        let named = description.split("$labels.").skip(1).map(|rest| rest.split([' ', '}']).next().unwrap());
        let (expr, name) = (word(&alert, "expr"), word(&alert, "alert"));
        let kept = promql::used(expr).unwrap();
        let sums = ["by (", "without ("].iter().any(|word| expr.contains(word));
        for label in named {
            let is_kept = kept.iter().any(|used| used.labels.contains_key(label));
            assert!(is_kept || !sums, "{file}: {name} names {label}, which its sum drops");
            let known = Known::read().unwrap();
            let has_it = |metric: &promql::Used| {
                let labels = [(label.to_owned(), BTreeSet::new())].into();
                known.check(&promql::Used { metric: metric.metric.clone(), labels }).is_ok()
            };
            assert!(file.starts_with(EXAMPLES) || kept.iter().all(has_it), "{file}: {name} names {label}");
        }
    }
}

#[test]
fn every_alert_has_a_test_that_it_fires_and_one_that_it_does_not() {
    let rules: String = files(RULES, "yaml").unwrap().iter().map(|file| text(file).unwrap()).collect();
    for (file, alert) in alerts(ALERTS).into_iter().chain(alerts(EXAMPLES)) {
        for what in ["fires", "does not fire"] {
            let name = format!("- name: {} {what}\n", word(&alert, "alert"));
            assert!(rules.contains(&name), "{file}: {RULES} has no test {name}");
        }
    }
}

#[test]
fn alerts_fire_when_they_should_and_only_then() {
    let promtool = match Program::Promtool.find().unwrap() {
        Ok(promtool) => promtool,
        Err(why) => {
            // Not by `eprintln!`, which is shown for failed tests only.
            writeln!(std::io::stderr(), "SKIPPED: alerts were not run: {why}").unwrap();
            return;
        }
    };
    let run = |kind: &[&str], files: Vec<String>| {
        let output = Command::new(&promtool).args(kind).args(files.iter().map(|f| path(f))).output().unwrap();
        let told = [output.stdout, output.stderr].map(|text| String::from_utf8_lossy(&text).into_owned());
        assert!(output.status.success(), "promtool {kind:?}: {}", told.concat());
    };
    let rules = files(ALERTS, "yaml").unwrap().into_iter().chain(files(EXAMPLES, "yaml").unwrap());
    run(&["check", "rules"], rules.collect());
    run(&["test", "rules"], files(RULES, "yaml").unwrap());
}
