//! What the server says about itself: health, version, and which resources it has.

use std::collections::BTreeMap;

use http::{Response, StatusCode};
use serde_json::{Value, json};

use super::super::object::write_json;
use super::super::resources::{PODS, ResourceType};
use super::route::Target;
use super::{Body, Shared, json_response, text_response};

/// Answers a GET of anything but objects.
pub(super) fn answer(shared: &Shared, target: &Target) -> Response<Body> {
    let body = match target {
        Target::Health => return text_response(StatusCode::OK, "ok"),
        Target::Version => Some(version(&shared.git_version)),
        Target::CoreVersions => Some(json!({ "kind": "APIVersions", "versions": ["v1"] })),
        Target::Groups => {
            let groups: Vec<Value> =
                groups(shared).into_iter().map(|(group, versions)| api_group(&group, &versions)).collect();
            Some(json!({ "kind": "APIGroupList", "apiVersion": "v1", "groups": groups }))
        }
        Target::Group(group) => groups(shared).get(group).map(|versions| {
            let mut body = api_group(group, versions);
            body["kind"] = "APIGroup".into();
            body["apiVersion"] = "v1".into();
            body
        }),
        Target::Resources { group, version } => resources(shared, group, version),
        Target::Objects(_) | Target::Unknown => None,
    };
    match body {
        Some(body) => {
            let mut text = Vec::new();
            write_json(&mut text, &body);
            json_response(StatusCode::OK, text)
        }
        None => text_response(StatusCode::NOT_FOUND, "404 page not found\n"),
    }
}

fn version(git_version: &str) -> Value {
    let mut numbers = git_version.trim_start_matches('v').split('.');
    json!({
        "major": numbers.next().unwrap_or_default(),
        "minor": numbers.next().unwrap_or_default(),
        "gitVersion": git_version,
        "gitCommit": "",
        "gitTreeState": "",
        "buildDate": "1970-01-01T00:00:00Z",
        "goVersion": "",
        "compiler": "",
        "platform": "",
    })
}

/// Every group but the core one, with its versions.
fn groups(shared: &Shared) -> BTreeMap<String, Vec<String>> {
    let mut groups = BTreeMap::<String, Vec<String>>::new();
    for kind in shared.store.resources().iter().filter(|kind| !kind.gvr.group.is_empty()) {
        let versions = groups.entry(kind.gvr.group.to_string()).or_default();
        if !versions.iter().any(|version| *version == kind.gvr.version) {
            versions.push(kind.gvr.version.to_string());
        }
    }
    groups
}

fn api_group(group: &str, versions: &[String]) -> Value {
    let versions: Vec<Value> = versions
        .iter()
        .map(|version| json!({ "groupVersion": format!("{group}/{version}"), "version": version }))
        .collect();
    json!({ "name": group, "versions": versions, "preferredVersion": versions.first() })
}

fn resources(shared: &Shared, group: &str, version: &str) -> Option<Value> {
    let kinds = shared.store.resources();
    let kinds: Vec<_> =
        kinds.iter().filter(|kind| kind.gvr.group == group && kind.gvr.version == version).collect();
    let group_version = kinds.first()?.api_version();
    let resources: Vec<Value> = kinds.into_iter().flat_map(|kind| api_resources(kind)).collect();
    Some(json!({
        "kind": "APIResourceList",
        "apiVersion": "v1",
        "groupVersion": group_version,
        "resources": resources,
    }))
}

/// The resource and its sub-resources.
fn api_resources(kind: &ResourceType) -> Vec<Value> {
    let entry = |name: String, singular: &str, object: &str, verbs: &[&str]| {
        json!({
            "name": name,
            "singularName": singular,
            "namespaced": kind.namespaced,
            "kind": object,
            "verbs": verbs,
        })
    };
    let plural = &kind.gvr.resource;
    let all = ["create", "delete", "deletecollection", "get", "list", "patch", "update", "watch"];
    let mut entries = vec![entry(plural.to_string(), &kind.singular, &kind.kind, &all)];
    if kind.gvr == PODS {
        entries.push(entry(format!("{plural}/binding"), "", "Binding", &["create"]));
    }
    if kind.status {
        entries.push(entry(format!("{plural}/status"), "", &kind.kind, &["get", "patch", "update"]));
    }
    entries
}
