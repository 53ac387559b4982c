//! `deploy/kustomize` is the chart, rendered.
#![allow(clippy::unwrap_used)]

use stowage_chart_tests::{files, helm, plain};

#[test]
fn the_plain_manifests_are_what_the_chart_renders() {
    files::is_fresh(plain::FOLDER, &plain::base().unwrap());
}

/// Helm sets it by itself; in a file it is right for one minor.
#[test]
fn the_tag_of_kube_scheduler_says_that_it_is_the_clusters_to_choose() {
    let base = plain::base().unwrap();
    let lines: Vec<&str> = base["scheduler.yaml"].lines().collect();
    let image = lines.iter().position(|line| line.contains("image: registry.k8s.io/kube-scheduler:v"));
    assert!(lines[image.unwrap() - 1].contains("# Change this tag to your API server's minor"), "{image:?}");
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

#[test]
fn the_component_of_the_map_is_what_the_chart_renders_for_it() {
    files::is_fresh(&format!("{}/{}", plain::OPTIONS_FOLDER, plain::MAP), &plain::map().unwrap());
    let rendered = helm::template(&files::chart(), ["--set", "scheduler.extender.map=network"]).unwrap();
    for said in [
        "- name: MAP_ADDRESS\n              value: \"0.0.0.0:9413\"\n",
        "- name: map\n              containerPort: 9413\n",
        "- ports: [{protocol: TCP, port: 9413}]\n",
    ] {
        assert!(rendered.contains(said), "the chart does not say {said}");
    }
}
