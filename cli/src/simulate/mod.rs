//! `kubectl stowage simulate`: clusters that are not there. It reads no kubeconfig and asks no cluster.

mod day;
mod mig;

use std::io::IsTerminal;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result};
use clap::Subcommand;
use indicatif::{ProgressBar, ProgressStyle};

/// What to simulate.
#[derive(Debug, Subcommand)]
pub enum Simulate {
    /// MIG slices under steady load: how much of the GPUs is in use.
    Mig(mig::Args),
    /// A week of services that breathe with the day: how many GPUs each way of dividing them needs.
    Day(day::Args),
}

/// Runs a simulation and prints what came of it.
///
/// # Errors
/// Settings that make no sense, and files that cannot be written.
pub fn run(simulate: &Simulate) -> Result<()> {
    match simulate {
        Simulate::Mig(args) => mig::run(args.clone()),
        Simulate::Day(args) => day::run(args.clone()),
    }
}

/// A progress bar where a person looks, and nothing elsewhere.
fn progress(steps: u64) -> ProgressBar {
    if !std::io::stderr().is_terminal() {
        return ProgressBar::hidden();
    }
    let style = ProgressStyle::with_template("{bar:40} {percent:>3} %  {elapsed}");
    let bar = ProgressBar::new(steps);
    bar.set_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()));
    bar.enable_steady_tick(Duration::from_millis(200));
    bar
}

fn write(path: &Path, text: &str) -> Result<()> {
    std::fs::write(path, text).with_context(|| format!("cannot write {}", path.display()))
}

/// A file to write, if any, as a line of the answer.
fn written(path: Option<&PathBuf>) -> String {
    path.map(|path| format!("Written to {}.\n", path.display())).unwrap_or_default()
}
