//! What the chart renders, the plain manifests and what is applied by hand, against the schemas of every supported minor.
#![allow(clippy::unwrap_used)]

use std::path::{Path, PathBuf};

use stowage_chart_tests::validate::{self, MINORS};
use stowage_chart_tests::{files, helm};

/// The program; `None`, said aloud, where it cannot be had and nobody insists.
fn program() -> Option<&'static Path> {
    match validate::program(Path::new(env!("CARGO_TARGET_TMPDIR"))) {
        Ok(program) => Some(program),
        Err(why) => {
            assert!(std::env::var_os("CI").is_none_or(|ci| ci != "true"), "{why:#}");
            eprintln!("skipped: {why:#}");
            None
        }
    }
}

fn manifests(folder: &Path) -> Vec<PathBuf> {
    let mut found: Vec<_> = std::fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "yaml"))
        .filter(|path| !path.ends_with("kustomization.yaml"))
        .collect();
    found.sort();
    assert!(!found.is_empty(), "{}", folder.display());
    found
}

#[test]
fn what_the_chart_renders_is_what_every_supported_kubernetes_takes() {
    let Some(program) = program() else { return };
    let folder = tempfile::tempdir().unwrap();
    let everything = [
        "podMonitor.enabled=true",
        "prometheusRule.enabled=true",
        "dashboards.enabled=true",
        "schedulerNamePolicy.enabled=true",
        "scheduler.extender.nominate=true",
        "scheduler.extender.preemption=true",
        "scheduler.extender.defrag=true",
        "scheduler.extender.drainScaleDowns=true",
        "gfd.useNodeFeatureAPI=true",
        r#"migStrategy="on-demand""#,
        r#"deviceListStrategy="cdi-cri""#,
        r#"nvidiaDriverRoot="/""#,
    ];
    for minor in MINORS {
        // The policy for scheduler names is there from 1.34 on.
        let all: Vec<&str> = everything
            .into_iter()
            .filter(|value| minor != "1.33" || !value.starts_with("schedulerNamePolicy"))
            .collect();
        let service = ["scheduler.extender.service.enabled=true"];
        for (name, values) in [
            ("the chart as it is", &[][..]),
            ("the chart with everything", &all),
            ("the chart with the extender behind a Service", &service),
        ] {
            let mut arguments = vec!["--kube-version".to_owned(), format!("{minor}.0")];
            arguments.extend(values.iter().flat_map(|value| ["--set-json", value]).map(str::to_owned));
            let rendered = folder.path().join("rendered.yaml");
            std::fs::write(&rendered, helm::template(&files::chart(), arguments).unwrap()).unwrap();
            validate::check(program, &[minor], name, &[rendered]).unwrap();
        }
    }
}

#[test]
fn what_is_applied_by_hand_is_what_every_supported_kubernetes_takes() {
    let Some(program) = program() else { return };
    // One start of the program a minor: it takes longer than to judge a file.
    let folders = ["deploy/crds", "deploy/manifests", "deploy/options", "deploy/kustomize/base"];
    let all: Vec<_> = folders.iter().flat_map(|folder| manifests(&files::root().join(folder))).collect();
    validate::check(program, &MINORS, "what is applied by hand", &all).unwrap();
}

#[test]
fn a_field_that_kubernetes_does_not_know_is_refused() {
    let Some(program) = program() else { return };
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("wrong.yaml");
    let wrong = "{apiVersion: v1, kind: Namespace, metadata: {name: a}, spec: {finalizer: []}}";
    std::fs::write(&file, wrong).unwrap();
    let error = validate::check(program, &MINORS, "a wrong one", &[file]).unwrap_err();
    assert!(error.to_string().contains("finalizer"), "{error}");
}
