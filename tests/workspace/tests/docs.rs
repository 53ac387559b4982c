//! The tables in `docs/` say what the programs say: options and XIDs are written by `cargo xtask generate`, metrics and the
//! keys of NVIDIA's file are compared.
#![allow(clippy::unwrap_used)]

use std::collections::{BTreeMap, BTreeSet};

use clap::{Arg, Command, CommandFactory};
use prometheus_client::registry::Registry;
use stowage_device_plugin::config::settings::{SETTINGS, Setting, Support};
use stowage_device_plugin::config::{self, File};
use stowage_device_plugin::health::{Rules, XIDS};
use stowage_monitoring_tests::known::Known;
use stowage_scheduler_extender::program::Args;
use stowage_workspace_tests::pages::{cell, code, is_fresh, page, root};

fn codes<'a>(texts: impl IntoIterator<Item = &'a str>) -> String {
    texts.into_iter().filter(|text| !text.is_empty()).map(code).collect::<Vec<_>>().join(", ")
}

const HEAD: &str = "| flag | environment | key in the file | default | what it does |\n|---|---|---|---|---|";

fn row(setting: &Setting) -> String {
    let alias = setting.alias.unwrap_or_default();
    let flags: Vec<String> = [setting.flag, alias]
        .iter()
        .filter(|flag| !flag.is_empty())
        .map(|flag| format!("--{flag}"))
        .collect();
    let flags = codes(flags.iter().map(String::as_str));
    let key = if setting.in_file { code(setting.key) } else { String::new() };
    let what = match setting.support {
        Support::Used => setting.help.to_owned(),
        Support::NotYet { neutral, cure } => {
            format!("Accepted: {}. Else refused: {cure}", codes(neutral.iter().copied()))
        }
    };
    let env = codes(setting.env.iter().copied());
    format!("| {flags} | {env} | {key} | {} | {} |", code(setting.default), cell(&what))
}

/// A row of a flag that clap itself knows all about.
fn clap_row(arg: &Arg) -> String {
    let env = arg.get_env().map(|env| env.to_string_lossy().into_owned()).unwrap_or_default();
    let default: Vec<String> =
        arg.get_default_values().iter().map(|text| text.to_string_lossy().into_owned()).collect();
    let help = arg.get_help().map(ToString::to_string).unwrap_or_default();
    format!(
        "| `--{}` | {} | | {} | {} |",
        arg.get_long().unwrap(),
        code(&env),
        code(&default.join(",")),
        cell(&help)
    )
}

fn own_args(command: &Command) -> impl Iterator<Item = &Arg> {
    command.get_arguments().filter(|arg| !["help", "version"].contains(&arg.get_id().as_str()))
}

#[test]
fn the_plugins_options_are_those_of_the_program() {
    let mut rows = vec![HEAD.to_owned()];
    rows.extend(SETTINGS.iter().map(row));
    let ours: BTreeSet<&str> = SETTINGS.iter().map(|setting| setting.flag).collect();
    let command = config::arguments();
    rows.extend(own_args(&command).filter(|arg| !ours.contains(arg.get_long().unwrap())).map(clap_row));
    is_fresh("options.md", "device plugin", &rows.join("\n"));
}

#[test]
fn the_extenders_options_are_those_of_the_program() {
    let mut rows = vec![HEAD.to_owned()];
    rows.extend(own_args(&Args::command()).map(clap_row));
    is_fresh("options.md", "scheduler extender", &rows.join("\n"));
}

/// The first column of the page's tables.
fn first_column(name: &str) -> BTreeSet<String> {
    let text = page(name);
    let cells = text.lines().filter_map(|line| line.strip_prefix("| `")?.split_once("` |"));
    cells.map(|(first, _)| first.to_owned()).collect()
}

/// The sections that are read by hand name what they know when they meet what they do not.
#[test]
fn the_files_keys_without_a_flag_are_those_that_the_program_reads() {
    let documented = first_column("options.md");
    for (section, text) in [
        ("", "unknown: 1"),
        ("resources", "resources: {unknown: 1}"),
        ("resources.gpus[]", "resources: {gpus: [{unknown: 1}]}"),
        ("resources.mig[]", "resources: {mig: [{unknown: 1}]}"),
        ("sharing", "sharing: {unknown: 1}"),
        ("sharing.timeSlicing", "sharing: {timeSlicing: {unknown: 1}}"),
        ("sharing.timeSlicing.resources[]", "sharing: {timeSlicing: {resources: [{unknown: 1}]}}"),
        ("sharing.mps", "sharing: {mps: {unknown: 1}}"),
        ("sharing.mps.resources[]", "sharing: {mps: {resources: [{unknown: 1}]}}"),
    ] {
        let refused = File::parse(text, "here").unwrap_err().to_string();
        let Some((_, known)) = refused.split_once("known here are ") else {
            panic!("{text} is refused otherwise: {refused}");
        };
        for key in known.split(", ") {
            let key = if section.is_empty() { key.to_owned() } else { format!("{section}.{key}") };
            let has_keys = documented
                .iter()
                .any(|known| known.starts_with(&format!("{key}.")) || known.starts_with(&format!("{key}[]")));
            let is_setting = SETTINGS.iter().any(|setting| setting.in_file && setting.key.starts_with(&key));
            assert!(documented.contains(&key) || has_keys || is_setting, "docs/options.md lacks {key}");
        }
        // And what the page names is known.
        let prefix = if section.is_empty() { None } else { Some(format!("{section}.")) };
        let named = documented.iter().filter_map(|key| key.strip_prefix(prefix.as_ref()?));
        for key in named.filter_map(|rest| rest.split(['.', '[']).next()) {
            assert!(
                known.split(", ").any(|known| known == key),
                "docs/options.md has {section}.{key}, which is not read"
            );
        }
    }
}

#[test]
fn the_xids_are_those_of_the_program() {
    let rules = Rules::default();
    let mut rows = vec!["| XID | class | takes work away | what happened |\n|---|---|---|---|".to_owned()];
    for (first, last, class, what) in XIDS {
        let xids = if first == last { first.to_string() } else { format!("{first}–{last}") };
        let counts = if rules.counts(*first) { "yes" } else { "no" };
        rows.push(format!("| {xids} | {} | {counts} | {what} |", class.word()));
    }
    is_fresh("health.md", "XIDs", &rows.join("\n"));
}

/// The names of all metrics of a registry, without the `_total` that counters get when they are told. Families that
/// have no value yet are told by nothing but its debug form.
fn registered(prefix: &str, registry: &Registry) -> BTreeSet<String> {
    let text = format!("{registry:?}");
    let descriptors = text.split("Descriptor { name: \"").skip(1);
    let name = |rest: &str| {
        let unit = rest.split("unit: ").nth(1).and_then(|unit| unit.strip_prefix("Some(")?.split(')').next());
        let unit = unit.map(|unit| format!("_{}", unit.to_lowercase())).unwrap_or_default();
        format!("{prefix}{}{unit}", rest.split('"').next().unwrap())
    };
    descriptors.map(name).collect()
}

#[track_caller]
fn are_documented(prefix: &str, registry: &Registry) {
    let documented: BTreeSet<String> =
        first_column("telemetry.md").into_iter().filter(|name| name.starts_with(prefix)).collect();
    let without_total = |name: &String| name.trim_end_matches("_total").to_owned();
    let known = registered(prefix, registry);
    assert!(known.len() > 9, "the registry's debug form has changed: {known:?}");
    // Made when somebody asks, of what is held just then.
    let collected = BTreeSet::from(
        ["allocated_devices", "share_memory_bytes", "share_memory_used_bytes"]
            .map(|name| format!("stowage_device_plugin_{name}")),
    );
    let named: BTreeSet<String> = documented.iter().map(without_total).collect();
    let named: BTreeSet<_> = named.difference(&collected).cloned().collect();
    let lacking: Vec<_> = known.difference(&named).collect();
    let gone: Vec<_> = named.difference(&known).collect();
    assert!(
        lacking.is_empty() && gone.is_empty(),
        "docs/telemetry.md lacks {lacking:?}, and has {gone:?}, which are not told"
    );
    // What has a value from the start shows whether it is a counter.
    let mut text = String::new();
    prometheus_client::encoding::text::encode(&mut text, registry).unwrap();
    for line in text.lines().filter_map(|line| line.strip_prefix("# TYPE ")) {
        let (name, kind) = line.split_once(' ').unwrap();
        let name = if kind == "counter" { format!("{name}_total") } else { name.to_owned() };
        assert!(documented.contains(&name), "docs/telemetry.md lacks {name}");
    }
    has_all_values(&text);
}

/// What is told before anything has happened has each value that the page lists for its labels, and no other;
/// where it lists none, any is possible.
#[track_caller]
fn has_all_values(text: &str) {
    let mut told: BTreeMap<(&str, &str), BTreeSet<String>> = BTreeMap::new();
    for line in text.lines().filter(|line| !line.starts_with('#')) {
        let Some((name, rest)) = line.split_once('{') else { continue };
        for pair in rest.split('}').next().unwrap().split(',').filter(|pair| !pair.starts_with("le=")) {
            let (label, value) = pair.split_once('=').unwrap();
            told.entry((name, label)).or_default().insert(value.trim_matches('"').to_owned());
        }
    }
    assert!(told.len() > 5, "{text}");
    let known = Known::read().unwrap();
    for ((name, label), values) in told {
        let listed = known.values(name, label);
        let is_right = listed.is_some_and(|listed| listed.is_empty() || *listed == values);
        assert!(is_right, "{label} of {name} is told as {values:?}; docs/telemetry.md lists {listed:?}");
    }
}

#[test]
fn the_plugins_metrics_are_those_of_the_program() {
    let mut registry = Registry::default();
    stowage_device_plugin::metrics::Metrics::default().register(&mut registry);
    stowage_device_plugin::node_config::ConfigMetrics::default().register(&mut registry);
    are_documented("stowage_device_plugin_", &registry);
}

#[test]
fn the_extenders_metrics_are_those_of_the_program() {
    let mut registry = Registry::default();
    let _metrics = stowage_scheduler_extender::metrics::Metrics::new(&mut registry);
    let _stock = stowage_scheduler_extender::stock::Stock::new(&mut registry);
    are_documented("stowage_scheduler_extender_", &registry);
}

/// Every link to a file of this repository leads somewhere.
#[test]
fn no_link_of_the_documents_is_dead() {
    let root = root();
    let folder = std::fs::read_dir(root.join("docs")).unwrap().map(|entry| entry.unwrap().path());
    let top = [
        "README.md",
        "ARCHITECTURE.md",
        "CONTRIBUTING.md",
        "SECURITY.md",
        "SPECIFICATION.md",
        "deploy/examples/README.md",
    ]
    .map(|name| root.join(name));
    for page in folder.chain(top).filter(|path| path.extension().is_some_and(|extension| extension == "md")) {
        let text = std::fs::read_to_string(&page).unwrap();
        for link in text.split("](").skip(1).filter_map(|rest| rest.split(')').next()) {
            let target = link.split('#').next().unwrap();
            if !target.is_empty() && !target.contains("://") {
                assert!(page.parent().unwrap().join(target).exists(), "{} links to {target}", page.display());
            }
        }
    }
}
