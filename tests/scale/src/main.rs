//! `cargo xtask bench scale`: what scheduling costs end to end, on thousands of hollow nodes.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::Result;
use clap::{Parser, Subcommand};
use stowage_cluster_tests::Scope;
use stowage_cluster_tests::runner::isolated;
use stowage_scale::programs::Built;
use stowage_scale::{do_nothing, openb, throughput};

/// Measures scheduling end to end on hollow nodes, with the real API server and kube-scheduler. Needs root.
#[derive(Debug, Parser)]
#[command(name = "stowage-scale")]
struct Arguments {
    /// The extender to run; by default the one that was built beside this program.
    #[arg(long, global = true)]
    extender: Option<PathBuf>,
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, Subcommand)]
enum What {
    /// Pods a second, for a stock kube-scheduler, a do-nothing extender, and Stowage.
    Throughput(throughput::Throughput),
    /// The openb trace: how much of the GPUs is in use when pods come until no more fit.
    Openb(openb::Openb),
    /// Serves an extender that does nothing.
    #[command(hide = true)]
    DoNothing {
        #[arg(long)]
        address: SocketAddr,
    },
}

fn main() -> ExitCode {
    match run(Arguments::parse()) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("stowage-scale: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(arguments: Arguments) -> Result<ExitCode> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../target/tmp/scale");
    match arguments.what {
        What::Throughput(options) => {
            let built = Built::find(arguments.extender)?;
            isolated(&folder, Scope::Hollow, |inside| throughput::run(inside, built, options))
        }
        What::Openb(options) => {
            let built = Built::find(arguments.extender)?;
            isolated(&folder, Scope::Hollow, |inside| openb::run(inside, built, options))
        }
        What::DoNothing { address } => {
            let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
            runtime.block_on(do_nothing::serve(address))?;
            Ok(ExitCode::SUCCESS)
        }
    }
}
