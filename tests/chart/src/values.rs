//! The chart's values, read from `values.yaml` with their comments: the schema and the page are made from them.
//!
//! A comment that begins with a type in parentheses makes a value; any other makes a section of what stands below it. What
//! is indented below a value is its default.

use std::fmt::Write;

use serde_json::{Map, Value, json};

use crate::files::read;

/// Where they stand.
pub const FILE: &str = "deploy/helm/stowage/values.yaml";

/// One value.
#[derive(Debug, Clone)]
pub struct Setting {
    /// Its keys, with dots between.
    pub path: String,
    /// Its type, as the comment says it.
    pub kind: String,
    /// What it does.
    pub what: String,
    /// Its default.
    pub default: Value,
}

/// All values of the chart, in the order of the file.
///
/// # Panics
/// Where a key has no comment, or a comment's type is none.
pub fn all() -> Vec<Setting> {
    let text = read(FILE);
    let defaults: Value = serde_saphyr::from_str(&text).expect("values.yaml is YAML");
    let mut settings = Vec::new();
    let mut above: Vec<(usize, &str)> = Vec::new();
    let mut comment = String::new();
    let mut inside_default = None;
    for line in text.lines() {
        let indent = line.len() - line.trim_start().len();
        let line = line.trim_start();
        if line.is_empty() {
            comment.clear();
            continue;
        }
        if inside_default.is_some_and(|value| indent > value) {
            continue;
        }
        if let Some(said) = line.strip_prefix('#') {
            inside_default = None;
            let _ = write!(comment, "{said}");
            continue;
        }
        let (key, _) = line.split_once(':').unwrap_or_else(|| panic!("values.yaml: {line} is no key"));
        above.retain(|(deep, _)| *deep < indent);
        above.push((indent, key));
        let said = std::mem::take(&mut comment);
        inside_default = None;
        let Some((kind, what)) = said.trim().strip_prefix('(').and_then(|said| said.split_once(") ")) else {
            continue;
        };
        inside_default = Some(indent);
        let keys: Vec<&str> = above.iter().map(|(_, key)| *key).collect();
        let default = keys.iter().fold(&defaults, |value, key| &value[key]).clone();
        settings.push(Setting { path: keys.join("."), kind: kind.into(), what: what.into(), default });
    }
    assert_eq!(
        leaves(&defaults, "", &settings),
        Vec::<String>::new(),
        "values.yaml: keys without a comment that begins with a type"
    );
    settings
}

/// Keys of the defaults that no setting is about.
fn leaves(value: &Value, path: &str, settings: &[Setting]) -> Vec<String> {
    if settings.iter().any(|setting| setting.path == path) {
        return Vec::new();
    }
    let Value::Object(map) = value else { return vec![path.to_owned()] };
    let below = |(key, value): (&String, &Value)| {
        let path = if path.is_empty() { key.clone() } else { format!("{path}.{key}") };
        leaves(value, &path, settings)
    };
    map.iter().flat_map(below).collect()
}

impl Setting {
    /// Its JSON schema.
    ///
    /// # Panics
    /// Where its type is not one that is known here.
    pub fn schema(&self) -> Value {
        let (kind, rest) = self.kind.split_once(", ").unwrap_or((&self.kind, ""));
        let nullable = kind.ends_with('?');
        let words: Vec<Value> = match rest.split_once("one of ") {
            Some((_, words)) => words.split(", ").map(Value::from).collect(),
            None => Vec::new(),
        };
        let typed =
            |name: &str| if nullable { json!({"type": [name, "null"]}) } else { json!({"type": name}) };
        let mut schema = match kind.trim_end_matches('?') {
            "bool" => typed("boolean"),
            "string" => typed("string"),
            "integer" => typed("integer"),
            "integer or string" => json!({"type": ["integer", "string"]}),
            "object" => typed("object"),
            "map" => json!({"type": "object", "additionalProperties": {"type": "string"}}),
            "list" => json!({"type": "array", "items": {"type": "object"}}),
            "strings" => {
                let mut items = json!({"type": "string"});
                if !words.is_empty() {
                    items["enum"] = words.clone().into();
                }
                json!({"type": "array", "items": items})
            }
            "string or strings" => {
                let word = words.iter().filter_map(Value::as_str).collect::<Vec<_>>().join("|");
                let mut either = vec![
                    json!({"type": "string", "pattern": format!("^({word})(,({word}))*$")}),
                    json!({"type": "array", "items": {"type": "string", "enum": words}}),
                ];
                if nullable {
                    either.push(json!({"type": "null"}));
                }
                json!({"anyOf": either})
            }
            other => panic!("values.yaml: {} has the unknown type {other}", self.path),
        };
        if kind.starts_with("string") && !kind.contains("strings") && !words.is_empty() {
            let nothing = nullable.then_some(Value::Null);
            schema["enum"] = words.into_iter().chain(nothing).collect();
        }
        if let Some(least) = rest.strip_prefix("at least ") {
            schema["minimum"] = least.parse::<u64>().expect("a number follows `at least`").into();
        }
        schema["description"] = self.what.as_str().into();
        schema
    }
}

/// `values.schema.json`.
///
/// # Panics
/// As [`all`].
pub fn schema() -> String {
    let mut root = section();
    for setting in all() {
        let mut at = &mut root;
        for key in setting.path.split('.') {
            let properties = at["properties"].as_object_mut().expect("a section has properties");
            at = properties.entry(key).or_insert_with(section);
        }
        *at = setting.schema();
    }
    // What a chart gets that is part of another one.
    root["properties"]["global"] = json!({"type": "object"});
    root["$schema"] = "http://json-schema.org/draft-07/schema#".into();
    root["$comment"] = "Made from values.yaml by `cargo xtask generate`. Do not edit.".into();
    let text = serde_json::to_string_pretty(&root).expect("JSON of our own making");
    format!("{text}\n")
}

fn section() -> Value {
    json!({"type": "object", "additionalProperties": false, "properties": Map::new()})
}

/// The table of `docs/helm.md`.
///
/// # Panics
/// As [`all`].
pub fn table() -> String {
    /// Longer defaults are better read in the file.
    const LONGEST: usize = 60;
    let mut table = "| value | type | default | what it does |\n|---|---|---|---|".to_owned();
    for Setting { path, kind, what, default } in all() {
        let default = match default {
            Value::Null => String::new(),
            Value::String(text) if text.is_empty() => String::new(),
            Value::String(text) => format!("`{text}`"),
            other if other.to_string().len() > LONGEST => "see `values.yaml`".to_owned(),
            other => format!("`{other}`"),
        };
        let kind = kind.replacen('?', " or null", 1);
        let _ = write!(table, "\n| `{path}` | {kind} | {default} | {} |", what.replace('|', "\\|"));
    }
    table
}
