//! What the chart renders, with helm.
#![allow(clippy::unwrap_used)]

mod each_value;
mod objects;
mod observability;
mod pods;
mod refusals;

use serde_json::Value;
use stowage_chart_tests::{files, helm};

/// What the chart renders with these values, each `path=JSON`.
#[track_caller]
fn render(values: &[&str]) -> String {
    helm::template(&files::chart(), set(values)).unwrap_or_else(|error| panic!("{values:?}: {error:#}"))
}

fn set<'a>(values: &'a [&'a str]) -> impl Iterator<Item = &'a str> {
    values.iter().flat_map(|value| ["--set-json", value])
}

/// The object of that kind and name.
#[track_caller]
fn find<'a>(objects: &'a [Value], kind: &str, name: &str) -> &'a Value {
    let is = |object: &&Value| object["kind"] == kind && object["metadata"]["name"] == name;
    objects.iter().find(is).unwrap_or_else(|| panic!("there is no {kind} {name}"))
}

#[test]
fn helm_has_nothing_to_say_against_it() {
    let mut command = std::process::Command::new(helm::helm().unwrap());
    command.args(["lint", "--strict"]).arg(files::chart());
    let said = helm::run(command).unwrap();
    assert!(said.contains("0 chart(s) failed"), "{said}");
}
