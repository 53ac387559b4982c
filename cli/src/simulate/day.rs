//! `simulate day`: a week of elastic services.

use std::io::{self, Write};
use std::path::PathBuf;

use anyhow::{Context, Result};
use stowage_simulator::day::{self, MigMix, Row, Table};

use super::{progress, write, written};

/// Services that breathe with the day on GPUs that are whole, shared or cut: the least GPUs of each strategy.
#[derive(Debug, Clone, clap::Args)]
pub struct Args {
    /// The first week's seed.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// How many weeks, with this and the following seeds.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u64).range(1..=1_000))]
    seeds: u64,
    /// Per cent of the MIG pods that ask for 1g, 2g and 3g; may be repeated. Left away: 50/25/25, 70/20/10, 20/40/40.
    #[arg(long)]
    mix: Vec<MigMix>,
    /// Writes the picture to this file, as SVG.
    #[arg(long)]
    plot: Option<PathBuf>,
    /// Writes the figures to this file, as JSON.
    #[arg(long)]
    summary: Option<PathBuf>,
}

/// Runs it and prints the table.
///
/// # Errors
/// Files that cannot be written.
pub fn run(args: Args) -> Result<()> {
    let mixes = if args.mix.is_empty() { MigMix::ALL.to_vec() } else { args.mix };
    let bar = progress(mixes.len() as u64 * args.seeds * day::STEPS);
    let (mut rows, mut weeks) = (Vec::new(), Vec::new());
    for mix in mixes {
        let seeds = (0..args.seeds).map(|nth| args.seed.wrapping_add(nth));
        let needs: Result<Vec<_>, _> = seeds.map(|seed| day::needs(seed, mix, &mut || bar.inc(1))).collect();
        let needs = needs?;
        rows.extend(Row::of(&needs));
        weeks.extend(needs);
    }
    bar.finish_and_clear();
    if let Some(file) = &args.plot {
        write(file, &day::svg(&rows))?;
    }
    if let Some(file) = &args.summary {
        let json = serde_json::json!({"means": rows, "weeks": weeks});
        write(file, &(serde_json::to_string_pretty(&json).context("the summary is no JSON")? + "\n"))?;
    }
    let files = written(args.plot.as_ref()) + &written(args.summary.as_ref());
    write!(io::stdout().lock(), "{}{files}", Table(&rows))?;
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
    fn a_mix_that_is_none_is_refused_with_an_example() {
        let error = Line::try_parse_from(["day", "--mix", "50/50"]).err().unwrap().to_string();
        assert!(error.contains("such as 50/25/25"), "{error}");
        assert!(Line::try_parse_from(["day", "--seeds", "0"]).is_err());
        assert_eq!(Line::parse_from(["day", "--mix", "70/20/10"]).args.mix, [MigMix::ALL[1]]);
    }
}
