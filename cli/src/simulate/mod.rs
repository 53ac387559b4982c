//! `kubectl stowage simulate`: clusters that are not there. It reads no kubeconfig and asks no cluster.

mod day;
mod files;
mod mig;
mod openb;

use std::io::{IsTerminal, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use clap::Subcommand;
use indicatif::{ProgressBar, ProgressStyle};

/// What to simulate: a trace, or one of these.
#[derive(Debug, clap::Args)]
#[command(args_conflicts_with_subcommands = true, subcommand_negates_reqs = true)]
pub struct Args {
    #[command(subcommand)]
    what: Option<What>,
    #[command(flatten)]
    trace: Option<openb::TraceArgs>,
}

#[derive(Debug, Subcommand)]
enum What {
    /// MIG slices under steady load: how much of the GPUs is in use.
    Mig(mig::Args),
    /// A week of services that breathe with the day: how many GPUs each way of dividing them needs.
    Day(day::Args),
}

/// Simulates, writes what files were asked for, and prints a table.
///
/// # Errors
/// Settings that make no sense, and files that cannot be read or written, or do not hold what they should.
pub fn run(args: &Args, out: &mut impl Write) -> Result<()> {
    match (&args.what, &args.trace) {
        (Some(What::Mig(args)), _) => mig::run(args.clone()),
        (Some(What::Day(args)), _) => day::run(args.clone()),
        (None, Some(trace)) => openb::run(trace, out),
        (None, None) => bail!("say what to simulate: --nodes and --pods, or mig, or day"),
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
