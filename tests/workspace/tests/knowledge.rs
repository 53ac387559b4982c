//! What each crate may know. The architecture rests on what is *absent* from a crate, so it is tested.
#![allow(clippy::unwrap_used)]

use std::collections::{BTreeMap, BTreeSet};
use std::process::Command;

use serde_json::Value;

/// Crate names by package id, and each package's normal dependencies.
struct Graph {
    names: BTreeMap<String, String>,
    dependencies: BTreeMap<String, BTreeSet<String>>,
}

impl Graph {
    fn read() -> Self {
        let output = Command::new(env!("CARGO"))
            .args([
                "metadata",
                "--format-version",
                "1",
                "--offline",
                "--filter-platform",
                "x86_64-unknown-linux-gnu",
            ])
            .current_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/../.."))
            .output()
            .expect("cargo runs");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let metadata: Value = serde_json::from_slice(&output.stdout).unwrap();
        let text = |value: &Value| value.as_str().unwrap().to_owned();
        let names = metadata["packages"]
            .as_array()
            .unwrap()
            .iter()
            .map(|p| (text(&p["id"]), text(&p["name"])))
            .collect();
        let normal =
            |dep: &&Value| dep["dep_kinds"].as_array().unwrap().iter().any(|kind| kind["kind"].is_null());
        let dependencies = metadata["resolve"]["nodes"].as_array().unwrap().iter().map(|node| {
            let deps = node["deps"].as_array().unwrap().iter().filter(normal).map(|dep| text(&dep["pkg"]));
            (text(&node["id"]), deps.collect())
        });
        Self { names, dependencies: dependencies.collect() }
    }

    /// Everything a crate is built from.
    fn all_of(&self, name: &str) -> BTreeSet<&str> {
        let root = self
            .names
            .iter()
            .find(|(_, known)| *known == name)
            .unwrap_or_else(|| panic!("no crate {name}"))
            .0;
        let (mut seen, mut open) = (BTreeSet::new(), vec![root]);
        while let Some(id) = open.pop() {
            for dependency in &self.dependencies[id] {
                if seen.insert(dependency) {
                    open.push(dependency);
                }
            }
        }
        seen.into_iter().map(|id| self.names[id].as_str()).collect()
    }

    #[track_caller]
    fn knows_nothing_of(&self, name: &str, forbidden: &[&str]) {
        let all = self.all_of(name);
        let found: Vec<_> = forbidden.iter().filter(|one| all.contains(**one)).collect();
        assert!(found.is_empty(), "{name} must not know {found:?}");
    }
}

const EDGES: [&str; 9] =
    ["tokio", "kube", "k8s-openapi", "tonic", "prost", "hyper", "nvml-wrapper", "nvml-wrapper-sys", "libc"];

#[test]
fn crates_know_only_what_the_architecture_allows() {
    let graph = Graph::read();
    graph.knows_nothing_of("stowage-shared", &EDGES);
    graph.knows_nothing_of("stowage-shared", &["rand", "jiff", "notify", "tracing"]);
    graph.knows_nothing_of(
        "stowage-scheduler-extender",
        &["nvml-wrapper", "nvml-wrapper-sys", "tonic", "kubelet-api"],
    );
    graph.knows_nothing_of("stowage-device-plugin", &["nvml-simulator", "stowage-stand-ins"]);
    graph.knows_nothing_of("stowage-ops", &["tonic", "nvml-wrapper"]);
    graph.knows_nothing_of(
        "stowage-monitoring-tests",
        &["stowage-device-plugin", "stowage-scheduler-extender"],
    );
    graph.knows_nothing_of("stowage-simulator", &["tokio", "kube", "tonic", "hyper"]);
    graph.knows_nothing_of("nvml-simulator", &["tokio", "kube", "tonic", "hyper"]);
    graph.knows_nothing_of("stowage-simulator", &["tokio", "kube", "hyper", "clap", "indicatif"]);
    graph.knows_nothing_of("kubectl-stowage", &["tonic", "nvml-wrapper", "stowage-scheduler-extender"]);
    graph.knows_nothing_of(
        "stowage-stand-ins",
        &["stowage-device-plugin", "stowage-scheduler-extender", "nvml-wrapper"],
    );
}

#[test]
fn one_crypto_provider_and_one_tls_are_built() {
    let graph = Graph::read();
    for name in ["stowage-scheduler-extender", "stowage-device-plugin", "kubectl-stowage"] {
        let all = graph.all_of(name);
        assert!(all.contains("ring"), "{name} uses rustls with ring");
        graph.knows_nothing_of(name, &["aws-lc-rs", "openssl", "native-tls"]);
    }
}
