//! What the tests of dashboards, alerts and examples share: which metrics there are, what dashboards ask, which metrics a
//! query names, and Prometheus's programs.

pub mod alerts;
pub mod dashboards;
pub mod known;
pub mod programs;
pub mod promql;

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

/// A path of the repository.
pub fn path(of_repository: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").join(of_repository)
}

/// The text of a file of the repository.
///
/// # Errors
/// Where it cannot be read.
pub fn text(of_repository: &str) -> Result<String> {
    std::fs::read_to_string(path(of_repository)).with_context(|| format!("cannot read {of_repository}"))
}

/// The files of a folder with that extension, by name, as paths of the repository.
///
/// # Errors
/// Where the folder cannot be read.
pub fn files(folder: &str, extension: &str) -> Result<Vec<String>> {
    let entries = std::fs::read_dir(path(folder)).with_context(|| format!("cannot read {folder}"))?;
    let names = entries.map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned()));
    let mut names: Vec<String> = names.collect::<Result<_>>()?;
    names.retain(|name| Path::new(name).extension().is_some_and(|of| of == extension));
    names.sort();
    Ok(names.into_iter().map(|name| format!("{folder}/{name}")).collect())
}
