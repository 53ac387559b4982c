//! Dashboards show what the programs tell, and can be put beside others.
#![allow(clippy::unwrap_used)]

use std::collections::BTreeSet;

use serde_json::Value;
use stowage_monitoring_tests::{dashboards::FOLDER, files, known::Known, promql, text};

fn dashboards() -> Vec<(String, Value)> {
    let files = files(FOLDER, "json").unwrap();
    assert_eq!(files.len(), 3, "cluster, node and workload: {files:?}");
    files
        .into_iter()
        .map(|file| (file.clone(), serde_json::from_str(&text(&file).unwrap()).unwrap()))
        .collect()
}

fn list<'a>(of: &'a Value, key: &str) -> &'a [Value] {
    of[key].as_array().unwrap_or_else(|| panic!("{key} is no list"))
}

fn word<'a>(of: &'a Value, key: &str) -> &'a str {
    of[key].as_str().filter(|text| !text.is_empty()).unwrap_or_else(|| panic!("no {key} in {of}"))
}

/// Panels that show something: not the headings.
fn panels(of: &Value) -> impl Iterator<Item = &Value> {
    list(of, "panels").iter().filter(|panel| panel["type"] != "row")
}

fn variables(of: &Value) -> &[Value] {
    list(&of["templating"], "list")
}

/// All queries: those of panels, and the metrics in `label_values(…)` of variables.
fn queries(of: &Value) -> Vec<String> {
    let of_panels =
        panels(of).flat_map(|panel| list(panel, "targets")).map(|target| word(target, "expr").to_owned());
    let asked = variables(of).iter().filter(|variable| variable["type"] == "query").map(|variable| {
        let query = word(&variable["query"], "query");
        let inner = query.strip_prefix("label_values(").and_then(|rest| rest.strip_suffix(')'));
        let (metric, label) =
            inner.and_then(|inner| inner.rsplit_once(", ")).unwrap_or_else(|| panic!("{query}"));
        format!("sum by ({label}) ({metric})")
    });
    of_panels.chain(asked).collect()
}

#[test]
fn every_query_names_what_the_programs_tell() {
    let known = Known::read().unwrap();
    for (file, dashboard) in dashboards() {
        let queries = queries(&dashboard);
        assert!(queries.len() > 10, "{file}");
        for query in queries {
            // Grafana puts these in as numbers; what people choose stands between quotes.
            let query = query.replace("$__rate_interval", "5m");
            for used in promql::used(&query).unwrap() {
                known.check(&used).unwrap_or_else(|error| panic!("{file}: {query}: {error:#}"));
            }
        }
    }
}

#[test]
fn rates_follow_the_zoom() {
    for (file, dashboard) in dashboards() {
        for query in queries(&dashboard).iter().filter(|query| query.contains('[')) {
            let fixed = query.contains("[$__rate_interval]") || query.contains("[1d]");
            assert!(fixed, "{file}: {query}");
        }
    }
}

#[test]
fn dashboards_and_panels_have_numbers_of_their_own() {
    let mut uids = BTreeSet::new();
    for (file, dashboard) in dashboards() {
        assert!(uids.insert(word(&dashboard, "uid").to_owned()), "{file}");
        assert!(dashboard.get("id").is_none(), "{file}: the number of some Grafana's database");
        let ids: Vec<u64> =
            list(&dashboard, "panels").iter().map(|panel| panel["id"].as_u64().unwrap()).collect();
        assert_eq!(ids.iter().collect::<BTreeSet<_>>().len(), ids.len(), "{file}");
        assert_eq!(dashboard["editable"], false, "{file}");
        assert!(list(&dashboard, "tags").contains(&Value::from("stowage")), "{file}");
    }
}

#[test]
fn each_panel_says_what_it_shows_in_which_unit() {
    for (file, dashboard) in dashboards() {
        let mut titles = BTreeSet::new();
        for panel in panels(&dashboard) {
            let title = word(panel, "title");
            assert!(titles.insert(title), "{file}: {title} stands there twice");
            assert!(word(panel, "description").ends_with('.'), "{file}: {title}");
            word(&panel["fieldConfig"]["defaults"], "unit");
            for target in list(panel, "targets") {
                word(target, "legendFormat");
            }
        }
    }
}

#[test]
fn the_data_source_is_chosen_by_who_looks() {
    for (file, dashboard) in dashboards() {
        let is_chosen = |of: &Value| of["datasource"]["uid"] == "${datasource}";
        let chosen = &variables(&dashboard)[0];
        assert_eq!(
            (&chosen["name"], &chosen["type"]),
            (&"datasource".into(), &"datasource".into()),
            "{file}"
        );
        assert!(variables(&dashboard)[1..].iter().all(is_chosen), "{file}");
        for panel in panels(&dashboard) {
            assert!(is_chosen(panel) && list(panel, "targets").iter().all(is_chosen), "{file}: {panel}");
        }
        assert!(dashboard.get("__inputs").is_none(), "{file} asks when it is imported");
    }
}

#[test]
fn panels_do_not_lie_on_each_other() {
    for (file, dashboard) in dashboards() {
        let mut taken = BTreeSet::new();
        for panel in list(&dashboard, "panels") {
            let at = |key: &str| panel["gridPos"][key].as_u64().unwrap();
            assert!(at("x") + at("w") <= 24, "{file}: {panel}");
            for cell in
                (at("x")..at("x") + at("w")).flat_map(|x| (at("y")..at("y") + at("h")).map(move |y| (x, y)))
            {
                assert!(taken.insert(cell), "{file}: {} lies on another", panel["title"]);
            }
        }
    }
}

#[test]
fn every_variable_is_used_and_every_one_used_is_there() {
    for (file, dashboard) in dashboards() {
        let text = queries(&dashboard).join("\n");
        let used: BTreeSet<&str> = text
            .split('$')
            .skip(1)
            .map(|rest| rest.split(|c: char| !c.is_alphanumeric() && c != '_').next().unwrap())
            .filter(|name| !name.starts_with("__"))
            .collect();
        let there: BTreeSet<&str> =
            variables(&dashboard)[1..].iter().map(|variable| word(variable, "name")).collect();
        assert_eq!(used, there, "{file}");
    }
}
