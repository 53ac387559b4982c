//! The dashboards as Grafana reads them: what each panel asks, and which values people may choose.

use anyhow::{Context, Result};
use serde_json::Value;

/// Where they lie.
pub const FOLDER: &str = "deploy/helm/stowage/files/dashboards";

/// A dashboard.
#[derive(Debug, Clone)]
pub struct Dashboard {
    /// Its file's name, without the extension.
    pub name: String,
    /// What people choose, in the order in which one depends on the other.
    pub variables: Vec<Variable>,
    /// What the panels ask.
    pub targets: Vec<Target>,
}

/// A variable whose values come from Prometheus.
#[derive(Debug, Clone)]
pub struct Variable {
    /// What queries call it, without the `$`.
    pub name: String,
    /// The series whose label it is; may name variables before it.
    pub of: String,
    /// The label.
    pub label: String,
    /// What stands for all values.
    pub all: String,
}

/// One query of a panel.
#[derive(Debug, Clone)]
pub struct Target {
    /// The panel's title, and what the lines are called where a panel has several queries.
    pub title: String,
    /// The query, with variables.
    pub query: String,
    /// The labels that lines are called by.
    pub legend: Vec<String>,
}

/// All of them.
///
/// # Errors
/// The file that cannot be read, or is of another form than Grafana's.
pub fn all() -> Result<Vec<Dashboard>> {
    crate::files(FOLDER, "json")?
        .iter()
        .map(|file| read(file).with_context(|| format!("in {file}")))
        .collect()
}

fn read(file: &str) -> Result<Dashboard> {
    let json: Value = serde_json::from_str(&crate::text(file)?)?;
    let name = file.trim_start_matches(FOLDER).trim_matches('/').trim_end_matches(".json").to_owned();
    let variables = list(&json["templating"], "list")?;
    let variables = variables.iter().filter(|variable| variable["type"] == "query").map(variable);
    let panels = list(&json, "panels")?.iter().filter(|panel| panel["type"] != "row");
    let mut targets = Vec::new();
    for panel in panels {
        targets.extend(targets_of(panel)?);
    }
    Ok(Dashboard { name, variables: variables.collect::<Result<_>>()?, targets })
}

fn variable(json: &Value) -> Result<Variable> {
    let query = word(&json["query"], "query")?;
    let inner = query.strip_prefix("label_values(").and_then(|rest| rest.strip_suffix(')'));
    let (of, label) = inner
        .and_then(|inner| inner.rsplit_once(", "))
        .with_context(|| format!("{query} is not label_values(series, label)"))?;
    let (name, all) = (word(json, "name")?, word(json, "allValue")?);
    Ok(Variable { name, of: of.to_owned(), label: label.to_owned(), all })
}

fn targets_of(panel: &Value) -> Result<Vec<Target>> {
    let (title, targets) = (word(panel, "title")?, list(panel, "targets")?);
    let target = |target: &Value| {
        let lines = word(target, "legendFormat")?;
        let legend = lines.split("{{").skip(1).filter_map(|rest| rest.split("}}").next());
        let legend = legend.map(|label| label.trim().to_owned()).collect();
        let title = if targets.len() > 1 { format!("{title}: {lines}") } else { title.clone() };
        Ok(Target { title, query: word(target, "expr")?, legend })
    };
    targets.iter().map(target).collect()
}

fn list<'a>(of: &'a Value, key: &str) -> Result<&'a [Value]> {
    of[key].as_array().map(Vec::as_slice).with_context(|| format!("{key} is no list"))
}

fn word(of: &Value, key: &str) -> Result<String> {
    let text = of[key].as_str().filter(|text| !text.is_empty());
    text.map(str::to_owned).with_context(|| format!("no {key} in {of}"))
}
