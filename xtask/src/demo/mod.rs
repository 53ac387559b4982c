//! `cargo xtask demo`: Stowage's main job on one screen, with no cluster, no root and no GPU.
//!
//! A day of inference services is played three times on four nodes of eight simulated GPUs: with one whole
//! GPU per pod, with nodes that an admin split by hand under the stock scheduler, and with Stowage. The
//! plugin, the extender and the wire between them are the real ones; kubelets, API server and
//! kube-scheduler are the stand-ins of `tests/stand-ins`.
//!
//! ```text
//!   services (the day) ──► replicas (Deployments, ReplicaSets) ──► play ──► Cluster ──► figures ──► report
//!                                                                            │  stage: real processes
//!   search (best split by hand) ◄─────────────────────── play ◄──────────────┴─ stock: numbers in memory
//! ```

mod figures;
mod play;
mod progress;
mod replicas;
mod report;
mod search;
mod services;
mod split;
mod stage;
mod stock;

use std::io::{self, Write};
use std::path::PathBuf;
use std::time::Instant;

use anyhow::{Context, Result, bail};

use self::play::{Way, play};
use self::progress::Progress;
use self::report::Played;
use self::search::best_split;
use self::services::Day;
use self::split::Split;
use self::stage::Stage;
use self::stage::programs::Programs;
use crate::interrupt::interrupted;

/// A day at the finest: 15 minutes a step, as the services' noise is defined.
const STEPS_MAX: usize = 96;

/// What to play.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Plays the day of this seed; a seed always gives the same day.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Writes the figures to this file.
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Cuts the day into so many steps; 96 are 15 minutes each.
    #[arg(long, default_value_t = STEPS_MAX, value_parser = parse_steps)]
    steps: usize,
}

fn parse_steps(text: &str) -> Result<usize, String> {
    match text.parse() {
        Ok(steps) if (1..=STEPS_MAX).contains(&steps) => Ok(steps),
        _ => Err(format!("1 to {STEPS_MAX} steps make a day")),
    }
}

/// Plays the day and shows what it came to. Findings of the audit are an error.
pub fn run(args: Args) -> Result<()> {
    let programs = Programs::build()?;
    // One thread, so that what happens in this process happens in one order: a seed gives one day.
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        tokio::select! {
            // Dropping the day ends every process of it.
            signal = interrupted() => bail!("interrupted by {}", signal?),
            played = play_all(&args, &programs) => played,
        }
    })
}

async fn play_all(args: &Args, programs: &Programs) -> Result<()> {
    let started = Instant::now();
    let day = Day::generate(args.seed, args.steps);
    let found = best_split(&day, args.seed).await?;
    let mut out = io::stdout();
    report::rules(&mut out, &day, args.seed, &found)?;
    out.flush()?;

    let mut played = Vec::new();
    let mut findings = Vec::new();
    for way in Way::ALL {
        let progress = Progress::start(way, &day);
        let split = match way {
            Way::Whole => &Split::WHOLE,
            Way::Stock => &found.split,
            Way::Stowage => &Split::ELASTIC,
        };
        let mut stage = Stage::start(programs, split, way, args.seed).await?;
        let samples =
            play(&day, way, args.seed, &mut stage, |step, sample| progress.tell(step, sample)).await?;
        progress.finish();
        findings.extend_from_slice(stage.findings());
        stage.end().await;
        played.push(Played { way, samples });
    }

    writeln!(out)?;
    report::table(&mut out, &played)?;
    writeln!(out)?;
    report::audit(&mut out, day.steps, &findings)?;
    writeln!(out, "Played in {:.0} s.", started.elapsed().as_secs_f64())?;
    if let Some(path) = &args.json {
        std::fs::write(path, report::json(&played)?)
            .with_context(|| format!("cannot write {}", path.display()))?;
    }
    if !findings.is_empty() {
        bail!("the audit found {} broken invariants", findings.len());
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_day_has_one_to_96_steps() {
        assert_eq!(parse_steps("96"), Ok(96));
        for bad in ["0", "97", "-1", "many"] {
            assert_eq!(parse_steps(bad), Err("1 to 96 steps make a day".to_owned()));
        }
    }
}
