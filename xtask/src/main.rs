//! The menu: `cargo xtask demo`, `up`, `test` and the rest.
#![allow(clippy::print_stdout)]

mod minors;
mod steps;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// Everything that is done to this repository, by name.
#[derive(Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask")]
struct Menu {
    #[command(subcommand)]
    task: Task,
}

#[derive(Subcommand)]
enum Task {
    /// Plays a day of inference services on 32 simulated GPUs, three ways: no cluster, root or GPU needed.
    Demo(demo::Args),
    /// Starts a real cluster of four nodes with Stowage on simulated GPUs, for kubectl: needs root, and Go once.
    Up(up::Args),
    /// Runs every test: format, lints, unit, property, socket and real-cluster tests.
    Test(steps::TestArgs),
    /// Runs the tests on hollow nodes with each Kubernetes minor that is supported: needs root, and Go once.
    Minors(minors::MinorsArgs),
    /// Measures the hot paths, each beside a baseline of the same run.
    Bench(steps::BenchArgs),
    /// Writes the generated files again: the gRPC code, the CRD, the chart's templates, the plain manifests and the tables in docs.
    Generate,
}

mod demo;
mod interrupt;
mod up;

fn main() -> ExitCode {
    let result = match Menu::parse().task {
        Task::Demo(args) => demo::run(args),
        Task::Up(args) => up::run(&args),
        Task::Test(args) => steps::test(&args),
        Task::Minors(args) => minors::test(&args),
        Task::Bench(args) => steps::bench(&args),
        Task::Generate => steps::generate(),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("cargo xtask: {error:#}");
            ExitCode::FAILURE
        }
    }
}
