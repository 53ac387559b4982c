//! `kubectl stowage simulate`: what the packing core would make of a trace. It needs no cluster.

mod files;
mod openb;

use std::io::Write;

use anyhow::Result;

/// What to simulate.
#[derive(clap::Args)]
#[command(args_conflicts_with_subcommands = true, subcommand_negates_reqs = true)]
pub struct Args {
    #[command(flatten)]
    openb: openb::TraceArgs,
}

/// Simulates, writes what files were asked for, and prints a table.
///
/// # Errors
/// For files that cannot be read or written, or do not hold what they should.
pub fn run(args: &Args, out: &mut impl Write) -> Result<()> {
    openb::run(&args.openb, out)
}
