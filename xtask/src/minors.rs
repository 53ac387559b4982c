//! Each Kubernetes minor that Stowage supports: the tests that need its API server and its kube-scheduler.

use anyhow::{Result, ensure};
use clap::Args;

use crate::steps::{cargo, step};

/// The minors. Which patch is built of each says `tests/cluster/src/versions.rs`.
const MINORS: &[&str] = &["1.33", "1.34", "1.35", "1.36", "1.37"];

/// Which minors to test.
#[derive(Debug, Args)]
pub struct MinorsArgs {
    /// The minors; by default all that are supported.
    minors: Vec<String>,
}

/// Tests on hollow nodes with the API server and the kube-scheduler of each minor, and says at the end how each went.
///
/// # Errors
/// When a minor fails; the others are tested all the same.
pub fn test(args: &MinorsArgs) -> Result<()> {
    let supported = || MINORS.iter().map(|&minor| minor.to_owned());
    for minor in &args.minors {
        ensure!(supported().any(|known| known == *minor), "{minor} is none of {}", MINORS.join(", "));
    }
    let minors = if args.minors.is_empty() { supported().collect() } else { args.minors.clone() };
    step("build", cargo(["build", "--quiet", "-p", "stowage-scheduler-extender", "-p", "stowage-scale"]))?;
    let mut failed = Vec::new();
    for minor in minors {
        let mut tests = cargo(["test", "--quiet", "--package", "stowage-scale", "--test", "hollow"]);
        // Nothing may be skipped: a minor that was not tested did not pass.
        tests.env("STOWAGE_KUBERNETES_VERSION", &minor).env("CI", "true");
        if let Err(error) = step(&format!("Kubernetes {minor}"), tests) {
            println!("xtask: {error:#}");
            failed.push(minor);
        }
    }
    ensure!(failed.is_empty(), "failed with Kubernetes {}", failed.join(", "));
    Ok(())
}
