//! `simulate mig`: slices in use under steady load.

use std::io::{self, Write};
use std::path::PathBuf;

use anyhow::{Context, Result};
use stowage_shared::models::{MODELS, Model};
use stowage_simulator::mig::{self, MixName, Policy, Settings};

use super::{progress, write, written};

/// Steady load on GPUs that are cut into MIG slices, one request in each unit of time.
#[derive(Debug, Clone, clap::Args)]
pub struct Args {
    /// How many GPUs.
    #[arg(long, default_value_t = 100)]
    gpus: usize,
    /// GPUs of one node.
    #[arg(long, default_value_t = 1)]
    gpus_per_node: usize,
    /// Which GPU, e.g. a100-40gb, h100-80gb, a30.
    #[arg(long, default_value = "a100-40gb", value_parser = model)]
    model: &'static Model,
    /// Which profiles are asked for how often: uniform, skew-small, skew-big or bimodal.
    #[arg(long, default_value = "uniform")]
    mix: MixName,
    /// Memory slices that are asked for at a time, as a share of those there are.
    #[arg(long, default_value_t = 1.0)]
    load: f64,
    /// The most moves of running pods for 100 arrivals, where a request would be refused otherwise.
    #[arg(long, default_value_t = 0)]
    moves: u32,
    /// Who decides: stowage, first-fit, best-fit-low, best-fit-high (best-fit), mfi, or repack, which is the bound.
    #[arg(long, default_value = "stowage")]
    policy: Policy,
    /// Which arrivals.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Writes the figures to this file, as JSON.
    #[arg(long)]
    summary: Option<PathBuf>,
}

fn model(key: &str) -> Result<&'static Model, String> {
    Model::by_key(key).ok_or_else(|| {
        let with_mig = MODELS.iter().filter(|model| model.geometry().is_some());
        let known: Vec<&str> = with_mig.map(|model| model.key).collect();
        format!("no model with MIG has that name: use one of {}", known.join(", "))
    })
}

/// Runs it and prints the figures.
///
/// # Errors
/// Settings that make no sense, and a summary that cannot be written.
pub fn run(args: Args) -> Result<()> {
    let Args { gpus, gpus_per_node, model, mix, load, moves, policy, seed, summary: file } = args;
    let settings = Settings { gpus, gpus_per_node, model, mix, load, policy, moves, seed };
    let bar = progress(1_000);
    let summary = mig::run(&settings, &mut |done| bar.set_position((done * 1_000.0) as u64))?;
    bar.finish_and_clear();
    if let Some(file) = &file {
        let text = serde_json::to_string_pretty(&summary).context("the summary is no JSON")?;
        write(file, &(text + "\n"))?;
    }
    write!(
        io::stdout().lock(),
        "{} on {gpus} {} ({mix}, load {load}, seed {seed}): {:.2} % of the memory slices in use, {:.2} % of the requests \
         placed, {:.2} moves for 100 arrivals.\n{}",
        summary.policy,
        model.product,
        summary.slices_in_use * 100.0,
        summary.acceptance * 100.0,
        summary.moves_per_100_arrivals,
        written(file.as_ref()),
    )?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        args: Args,
    }

    #[test]
    fn a_run_writes_the_summary_that_comparisons_read() {
        let folder = std::env::temp_dir().join(format!("stowage-simulate-mig-{}", std::process::id()));
        let flags = ["--gpus", "4", "--mix", "bimodal", "--moves", "5", "--seed", "3", "--summary"];
        let line = ["mig"].into_iter().chain(flags).chain([folder.to_str().unwrap()]);
        run(Line::parse_from(line).args).unwrap();
        let text = std::fs::read_to_string(&folder).unwrap();
        std::fs::remove_file(&folder).unwrap();
        let summary: serde_json::Value = serde_json::from_str(&text).unwrap();
        let in_use = summary["slices_in_use"].as_f64().unwrap();
        assert!(in_use > 0.5 && in_use < 1.0, "{text}");
        assert_eq!((summary["mix"].as_str(), summary["seed"].as_u64()), (Some("bimodal"), Some(3)));
    }

    #[test]
    fn unknown_names_are_refused_with_those_that_are_known() {
        for (flag, value, known) in [
            ("--model", "a100", "a100-40gb"),
            ("--mix", "even", "skew-small"),
            ("--policy", "worst", "repack"),
        ] {
            let error = Line::try_parse_from(["mig", flag, value]).err().unwrap().to_string();
            assert!(error.contains(known), "{error}");
        }
    }
}
