//! `deploy/kustomize` is the chart, rendered.
#![allow(clippy::unwrap_used)]

use stowage_chart_tests::{files, helm, plain};

#[test]
fn the_plain_manifests_are_what_the_chart_renders() {
    files::is_fresh(plain::FOLDER, &plain::base().unwrap());
}

#[test]
fn the_components_switch_on_what_the_charts_values_do() {
    for (name, switch) in plain::OPTIONS {
        let files = plain::option(name, switch.map(|(_, variable)| variable));
        files::is_fresh(&format!("{}/{name}", plain::OPTIONS_FOLDER), &files);
        if let Some((value, variable)) = switch {
            let rendered = helm::template(&files::chart(), ["--set", &format!("{value}=true")]).unwrap();
            assert!(
                rendered.contains(&format!("- name: {variable}\n              value: \"true\"\n")),
                "{variable}"
            );
        }
    }
}
