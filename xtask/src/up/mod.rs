//! A real cluster with Stowage on it, for a person to use: that of `tests/cluster`, until Ctrl-C.
//!
//! The cluster is a program of its own, which puts itself into namespaces before its first thread starts. This one builds
//! it, starts it, and lets kubectl through to it.

mod cluster;
mod gate;

use std::env;
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::time::Instant;

use anyhow::{Context, Result, bail, ensure};
use tokio::process::Command;

use self::cluster::{Cluster, Door};
use self::gate::Gate;
use crate::interrupt::interrupted;
use crate::steps::{cargo, step};

/// How to bring it up.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The port of 127.0.0.1 where kubectl finds the API server; 0 takes any that is free.
    #[arg(long, default_value_t = 6443)]
    port: u16,
    /// What to run on it, with KUBECONFIG and PATH set; the cluster ends with it. Without one, Ctrl-C ends it.
    #[arg(value_name = "COMMAND", trailing_var_arg = true)]
    command: Vec<OsString>,
}

/// What is run on the cluster: in containers, and kubectl's plugin.
const PROGRAMS: [&str; 3] = ["stowage-device-plugin", "stowage-scheduler-extender", "kubectl-stowage"];

/// Brings the cluster up, and keeps it.
pub fn run(args: &Args) -> Result<()> {
    let started = Instant::now();
    // The cluster itself would say so too, but it is built first.
    ensure!(
        rustix::process::geteuid().is_root(),
        "a cluster needs root for its namespaces: sudo -E env \"PATH=$PATH\" cargo xtask up"
    );
    // As a workspace, so that what the tests have built serves here, and the other way round. Among the libraries is the
    // simulator's, which is every GPU node's driver.
    let mut build = cargo(["build", "--workspace", "--lib", "--example", "up"]);
    build.args(PROGRAMS.iter().flat_map(|program| ["--bin", program]));
    step("build", build)?;
    let own = env::current_exe().context("cannot tell where this program is")?;
    let programs = own.parent().context("this program lies in no folder")?;
    let target = programs.parent().context("this program lies in no target folder")?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(stay(args, programs, &target.join("up"), started))
}

async fn stay(args: &Args, programs: &Path, folder: &Path, started: Instant) -> Result<()> {
    let gate = Gate::open(args.port).await?;
    let mut cluster = Cluster::start(&programs.join("examples/up"), folder, gate.address()?)?;
    tokio::select! {
        ready = cluster.ready() => ready?,
        signal = interrupted() => bail!("interrupted by {}", signal?),
    }
    let door = Door::in_folder(folder)?;
    let life = door.enter().await?;
    println!("xtask: ready after {} s", started.elapsed().as_secs());
    let used = tokio::select! {
        used = use_it(args, programs, folder) => used,
        broken = gate.serve(&door) => broken,
        ended = cluster.end() => return ended.and_then(|()| bail!("the cluster ended by itself")),
    };
    // With it the cluster ends, and takes away what it has made.
    drop(life);
    cluster.end().await?;
    used
}

/// Runs what is to be run, or waits for Ctrl-C.
async fn use_it(args: &Args, programs: &Path, folder: &Path) -> Result<()> {
    let kubeconfig = folder.join("kubeconfig");
    let Some((program, arguments)) = args.command.split_first() else {
        invite(programs, folder);
        println!("\nxtask: {}, and the cluster ends", interrupted().await?);
        return Ok(());
    };
    let mut command = Command::new(program);
    command
        .args(arguments)
        .env("KUBECONFIG", kubeconfig)
        .env("PATH", path_with(programs)?)
        .kill_on_drop(true);
    let status = tokio::select! {
        status = command.status() => status.with_context(|| format!("cannot run {}", program.display()))?,
        signal = interrupted() => bail!("interrupted by {}", signal?),
    };
    ensure!(status.success(), "{} ended with {status}", program.display());
    Ok(())
}

fn invite(programs: &Path, folder: &Path) {
    let (programs, folder) = (programs.display(), folder.display());
    println!(
        "
A cluster with Stowage: three nodes with 20 simulated GPUs, one without. In another terminal:

  export KUBECONFIG={folder}/kubeconfig PATH={programs}:$PATH
  kubectl get gpunodes
  kubectl apply -f {folder}/examples/mig.yaml   # deploy/examples/mig.yaml with a stub for the model's server
  kubectl stowage map

Ctrl-C ends it."
    );
}

fn path_with(programs: &Path) -> Result<OsString> {
    let path = env::var_os("PATH").unwrap_or_default();
    let folders: Vec<PathBuf> = [programs.to_owned()].into_iter().chain(env::split_paths(&path)).collect();
    env::join_paths(folders).context("a folder of PATH has a colon in its name")
}
