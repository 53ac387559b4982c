//! The command line.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, value_parser};
use clap_complete::Shell;

use stowage_shared::units::MemoryMib;

use crate::advise::read_memory;
use crate::answer::Output;
use crate::connect::Connection;
use crate::schedulers::Schedulers;
use crate::simulate;

/// Shows the GPUs of a cluster, who is on them, and why a pod goes where it goes.
#[derive(Parser, Debug)]
#[command(name = "kubectl stowage", bin_name = "kubectl stowage", version, max_term_width = 100)]
pub struct Cli {
    /// Where and with whose rights.
    #[command(flatten)]
    pub connection: Connection,
    /// Whose pods Stowage places.
    #[command(flatten)]
    pub schedulers: Schedulers,
    /// How to print the answer.
    #[arg(short, long, global = true, value_enum, default_value = "text")]
    pub output: Output,
    /// What is asked.
    #[command(subcommand)]
    pub question: Question,
}

/// What can be asked.
#[derive(Subcommand, Debug)]
pub enum Question {
    /// Every node, every GPU, what it is offered as, and who holds what of it.
    Map,
    /// One line a node: GPUs, what of them is in use, free, stranded and unhealthy.
    Nodes,
    /// The same on a full screen, read again and again: sorted, filtered, with the GPUs of one node.
    Top(Top),
    /// Why a pod waits, node by node, or where it is and what was planned for it.
    Explain {
        /// The pod's name.
        #[arg(value_name = "POD")]
        pod: String,
    },
    /// Where pods that do not exist yet would go, and what would then no longer fit. Creates nothing.
    #[command(name = "what-if")]
    WhatIf {
        /// A file of pods, or of Deployments, StatefulSets, Jobs and the like; - reads from standard input.
        #[arg(short, long = "filename", value_name = "FILE", required = true)]
        filename: Vec<PathBuf>,
    },
    /// Recommends a whole GPU, a MIG slice, a share or no GPU for a model, from what it needs and what is free.
    Advise(Advise),
    /// Proposes the fewest pod moves that gain the most placements; evicts them only with --apply.
    Defrag(Defrag),
    /// Finds what is wrong, each with its cure; exits with 1 on a warning or an error.
    Doctor,
    /// Compares what was planned, what the kubelets handed out and what exists; exits with 1 on a warning or an error.
    Audit,
    /// Replays a workload on GPUs that are not there, with the packing core of Stowage and what it is compared with.
    Simulate(Box<simulate::Args>),
    /// Prints the completion script of a shell for the program kubectl-stowage.
    Completion {
        /// The shell.
        #[arg(value_enum)]
        shell: Shell,
    },
    /// Prints what the last word may become, for kubectl: `kubectl_complete-stowage` calls it.
    #[command(name = "__complete", hide = true)]
    Complete {
        /// The words behind `kubectl stowage`.
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        words: Vec<String>,
    },
}

/// How the screen is kept.
#[derive(Args, Debug)]
pub struct Top {
    /// How often the cluster is read; less often where that takes long.
    #[arg(long, value_name = "SECONDS", default_value_t = 5, value_parser = value_parser!(u32).range(1..=3600))]
    pub interval: u32,
}

/// What a model needs.
#[derive(Args, Debug)]
pub struct Advise {
    /// What it takes of a GPU's memory under load: weights, activations, and some hundred MiB of CUDA's own; such as 3Gi.
    #[arg(long, value_name = "MEMORY", value_parser = read_memory)]
    pub model_size: MemoryMib,
    /// Within how many milliseconds it must answer.
    #[arg(long, value_name = "MS", value_parser = value_parser!(u32).range(1..=3_600_000))]
    pub latency_ms: Option<u32>,
    /// How many requests come in a second.
    #[arg(long, value_name = "N", value_parser = value_parser!(u32).range(1..=1_000_000))]
    pub requests_per_second: Option<u32>,
    /// Its neighbours must not be able to read its memory, or take it down.
    #[arg(long)]
    pub isolation: bool,
    /// It works off what lies there, and nobody waits for an answer.
    #[arg(long, conflicts_with = "latency_ms")]
    pub batch: bool,
}

/// How pods are moved.
#[derive(Args, Debug)]
pub struct Defrag {
    /// Evicts the pods, one at a time, waits for each to run elsewhere, and stops when a step did not help.
    #[arg(long)]
    pub apply: bool,
    /// The most pods that are moved.
    #[arg(long, value_name = "N", default_value_t = 5, value_parser = value_parser!(u16).range(1..=100))]
    pub max_moves: u16,
    /// Only moves that let this waiting pod in, in the namespace of -n.
    #[arg(long, value_name = "POD")]
    pub r#for: Option<String>,
    /// Moves pods of StatefulSets as well.
    #[arg(long)]
    pub stateful_sets: bool,
    /// How long an evicted pod's replacement may take to run.
    #[arg(long, value_name = "SECONDS", default_value_t = 300, value_parser = value_parser!(u32).range(10..=3600))]
    pub timeout: u32,
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_flags_are_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn kubectls_flags_may_stand_anywhere() {
        for line in [
            "kubectl-stowage -n team --context c explain p -o json",
            "kubectl-stowage explain p -n team -o json --context c",
        ] {
            let cli = Cli::try_parse_from(line.split(' ')).unwrap();
            assert_eq!(cli.connection.namespace.as_deref(), Some("team"));
            assert_eq!((cli.connection.context.as_deref(), cli.output), (Some("c"), Output::Json));
        }
        assert!(Cli::try_parse_from(["kubectl-stowage", "nodes", "-A", "-n", "x"]).is_err());
    }
}
