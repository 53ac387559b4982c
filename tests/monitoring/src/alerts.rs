//! The chart's alerts, as Prometheus reads them.

use anyhow::{Context, Result};
use serde_json::Value;

/// Where they lie.
pub const FOLDER: &str = "deploy/helm/stowage/files/alerts";

/// The alerts of a folder's rule files, each with its file.
///
/// # Errors
/// The file that is no rule file.
pub fn of(folder: &str) -> Result<Vec<(String, Value)>> {
    let mut all = Vec::new();
    for file in crate::files(folder, "yaml")? {
        let rules: Value =
            serde_saphyr::from_str(&crate::text(&file)?).with_context(|| format!("{file} is no YAML"))?;
        let groups = rules["groups"].as_array().with_context(|| format!("{file} has no groups"))?;
        for group in groups {
            let rules =
                group["rules"].as_array().with_context(|| format!("a group of {file} has no rules"))?;
            all.extend(rules.iter().map(|rule| (file.clone(), rule.clone())));
        }
    }
    Ok(all)
}
