//! Checks the device plugin on a machine with real NVIDIA GPUs. Reads only.
//!
//! ```text
//!   nvidia-smi ──► smi (parses) ────┐
//!                                   ├──► compare (pure) ──► what differs
//!   NVML ──the plugin's library──► ours
//!
//!   the plugin as a program ◄──► the kubelet stand-in ──► program: what it advertises and hands out
//! ```
//!
//! `nvidia-smi` is the judge since it is NVIDIA's own reading of the same driver. Temperature and power are not
//! compared: the plugin does not read them.
#![allow(clippy::print_stdout)]

mod compare;
mod ours;
mod program;
mod smi;

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Result, ensure};
use clap::Parser;

use crate::smi::Tool;

/// Compares what the device plugin sees of this machine's GPUs with what nvidia-smi says. Reads only.
#[derive(Debug, Parser)]
#[command(name = "stowage-gpu-check", version)]
struct Args {
    /// The program `stowage-device-plugin`, to check what it advertises and hands out as well.
    plugin: Option<PathBuf>,
    /// Fails on a machine without GPUs, where the check is skipped otherwise.
    #[arg(long)]
    require_gpu: bool,
    /// NVIDIA's program.
    #[arg(long, default_value = "nvidia-smi")]
    nvidia_smi: PathBuf,
    /// Where the driver is; libnvidia-ml.so.1 is looked for below it first.
    #[arg(long, default_value = "/")]
    driver_root: PathBuf,
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    match check(Args::parse()).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("stowage-gpu-check: {error:#}");
            ExitCode::FAILURE
        }
    }
}

async fn check(args: Args) -> Result<()> {
    let tool = Tool(args.nvidia_smi);
    let before = match tool.ask().await {
        Ok(said) => said,
        Err(smi::NoGpu(why)) => {
            ensure!(!args.require_gpu, "{why}");
            println!("skipped: {why}");
            return Ok(());
        }
    };
    let before = before?;
    let ours = ours::read(&args.driver_root).await?;
    // Once more, since what is used may have changed while we looked.
    let after = match tool.ask().await {
        Ok(said) => said?,
        Err(smi::NoGpu(why)) => anyhow::bail!("the GPUs are gone: {why}"),
    };
    let rows = compare::compare(&before, &after, &ours);
    for row in &rows {
        println!("{row}");
    }
    let count = |kind: fn(&compare::Verdict) -> bool| rows.iter().filter(|row| kind(&row.verdict)).count();
    let differ = count(|verdict| matches!(verdict, compare::Verdict::Differs));
    let silent = count(|verdict| matches!(verdict, compare::Verdict::NotTold));
    println!(
        "{} GPUs, {} values compared, {differ} differ, {silent} are not told by this nvidia-smi",
        before.gpus.len(),
        rows.len() - silent
    );
    ensure!(differ == 0, "{differ} values differ from what nvidia-smi says");
    if let Some(plugin) = args.plugin {
        program::check(&plugin, &args.driver_root, &before).await?;
    }
    println!("everything is as it should be");
    Ok(())
}
