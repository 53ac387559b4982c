//! `kubectl stowage`: what a person asks about the GPUs of a cluster.
//!
//! It reads the API server with the rights of whoever runs it, decides with the same model as the programs,
//! and changes nothing. What is simulated needs no API server.

mod cluster;
mod map;
mod simulate;

use std::io::{self, Write};
use std::process::ExitCode;

use anyhow::Result;
use clap::{Parser, Subcommand, ValueEnum};
use stowage_shared::audit::{Severity, audit};

use crate::cluster::Cluster;

/// Shows the GPUs of a cluster and who is on them.
#[derive(Parser)]
#[command(name = "kubectl stowage", bin_name = "kubectl stowage", version)]
struct Cli {
    /// The context of the kubeconfig to use.
    #[arg(long, global = true)]
    context: Option<String>,
    #[command(subcommand)]
    question: Question,
}

#[derive(Subcommand)]
enum Question {
    /// Every node, every GPU, what it is offered as, and who holds what of it.
    Map {
        /// How to print it.
        #[arg(short, long, value_enum, default_value = "text")]
        output: Output,
    },
    /// Compares what was planned, what the kubelets handed out and what exists; exits with 1 on any finding.
    Audit,
    /// Replays a trace of a cluster's pods: where the packing core, or another policy, would place them. Needs no cluster.
    Simulate(Box<simulate::Args>),
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Output {
    Text,
    Json,
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    match ask(&cli) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("kubectl stowage: {}", printable(&format!("{error:#}")));
            ExitCode::FAILURE
        }
    }
}

fn ask(cli: &Cli) -> Result<ExitCode> {
    if let Question::Simulate(args) = &cli.question {
        simulate::run(args, &mut io::stdout().lock())?;
        return Ok(ExitCode::SUCCESS);
    }
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let cluster = runtime.block_on(Cluster::read(cli.context.as_deref()))?;
    let mut out = io::stdout().lock();
    match &cli.question {
        Question::Simulate(_) => {}
        Question::Map { output: Output::Text } => {
            out.write_all(printable(&map::text(&cluster)).as_bytes())?
        }
        Question::Map { output: Output::Json } => writeln!(out, "{:#}", map::json(&cluster))?,
        Question::Audit => {
            let findings: Vec<_> = cluster.views().iter().flat_map(audit).collect();
            for finding in &findings {
                writeln!(out, "{}", printable(&finding.to_string()))?;
            }
            if findings.iter().any(|finding| finding.severity > Severity::Notice) {
                return Ok(ExitCode::FAILURE);
            }
            writeln!(out, "{} GPU nodes, nothing wrong.", cluster.gpu_nodes.len())?;
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// Names come from tenants and from nodes: control characters in them could drive the terminal.
fn printable(text: &str) -> String {
    text.chars().map(|c| if c.is_control() && c != '\n' { '\u{fffd}' } else { c }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_flags_are_consistent() {
        use clap::CommandFactory;
        Cli::command().debug_assert();
    }

    #[test]
    fn what_is_simulated_needs_no_subcommand() {
        let line = "stowage simulate --nodes n.csv --pods p.csv --order o.txt --ties name --ranks r.txt --mix learned \
            --policy best-fit --seed 42 --out r.csv --summary s.json";
        assert!(Cli::try_parse_from(line.split_whitespace()).is_ok());
        assert!(Cli::try_parse_from(["stowage", "simulate"]).is_err());
    }

    #[test]
    fn terminal_escapes_are_not_passed_on() {
        assert_eq!(printable("a\u{1b}[31mb\nc"), "a\u{fffd}[31mb\nc");
    }
}
