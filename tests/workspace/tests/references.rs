//! The references in `docs/` are what the programs write: Events, and the GpuNode.
#![allow(clippy::unwrap_used)]

use serde_json::Value;
use stowage_device_plugin::cluster::Reason;
use stowage_scheduler_extender::preempt::Reason as ExtenderReason;
use stowage_workspace_tests::pages::{cell, code, is_fresh, root};

#[test]
fn the_plugins_events_are_those_of_the_program() {
    let mut rows = vec!["| reason | type | what has happened |\n|---|---|---|".to_owned()];
    rows.extend(Reason::ALL.map(|reason| {
        let kind = if reason.is_warning() { "Warning" } else { "Normal" };
        format!("| `{}` | {kind} | {} |", reason.word(), cell(reason.meaning()))
    }));
    is_fresh("events.md", "events of the device plugin", &rows.join("\n"));
}

#[test]
fn the_extenders_events_are_those_of_the_program() {
    let mut rows = vec!["| reason | type | what has happened |\n|---|---|---|".to_owned()];
    let row =
        |reason: ExtenderReason| format!("| `{}` | Normal | {} |", reason.word(), cell(reason.meaning()));
    rows.extend(ExtenderReason::ALL.map(row));
    is_fresh("events.md", "events of the scheduler extender", &rows.join("\n"));
}

#[test]
fn the_gpu_nodes_fields_are_those_of_the_crd() {
    let text = std::fs::read_to_string(root().join("deploy/crds/gpunodes.yaml")).unwrap();
    let crd: Value = serde_saphyr::from_str(&text).unwrap();
    let schema = &crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["status"];
    let mut rows = vec!["| field | type | what it tells |\n|---|---|---|".to_owned()];
    fields(schema, "status", &mut rows);
    assert!(rows.len() > 40, "the CRD has another shape");
    is_fresh("gpunode.md", "fields", &rows.join("\n"));
}

/// A row for each field, those of an object below it.
fn fields(schema: &Value, path: &str, rows: &mut Vec<String>) {
    let required = schema["required"].as_array().cloned().unwrap_or_default();
    for (name, field) in schema["properties"].as_object().into_iter().flatten() {
        let list = &field["items"];
        let (of, path) = match list.is_object() {
            true => (list, format!("{path}.{name}[]")),
            false => (field, format!("{path}.{name}")),
        };
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let kind = text(&of["type"]);
        let kind = if list.is_object() { format!("list of {kind}s") } else { kind };
        let optional = field["nullable"] == true || !required.contains(&Value::from(name.as_str()));
        let kind = if optional { format!("{kind}, may be absent") } else { kind };
        rows.push(format!("| {} | {kind} | {} |", code(&path), one_line(&text(&field["description"]))));
        fields(of, &path, rows);
    }
}

/// Rustdoc's paragraphs as a cell.
fn one_line(text: &str) -> String {
    cell(&text.split_whitespace().collect::<Vec<_>>().join(" "))
}
