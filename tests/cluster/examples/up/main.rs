//! The cluster of the tests with Stowage on it, for a person to use: what `cargo xtask up` starts.
//!
//! Everything is as the tests have it: real control plane, real kubelets, the chart with its images, GPUs that are
//! simulated. When all is ready it says so in one line on standard output, and lets people in by [`door`].

mod door;
#[path = "../../tests/scenarios/stowage/mod.rs"]
#[allow(dead_code, reason = "the scenarios need more of it")]
mod stowage;
#[path = "../../tests/scenarios/examples/stub.rs"]
mod stub;

use std::fs;
use std::io::{self, Write};
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context, Result, bail};
use stowage_chart_tests::helm;
use stowage_cluster_tests::runner::{isolated, prepare};
use stowage_cluster_tests::{Cluster, Isolated, Options, Scope, isolation};

use stowage::nodes_offer_their_gpus;
use stowage::release::Release;

fn main() -> ExitCode {
    match run() {
        Ok(code) => code,
        Err(error) => {
            eprintln!("up: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run() -> Result<ExitCode> {
    let mut arguments = std::env::args_os().skip(1).map(PathBuf::from);
    let folder =
        arguments.next().context("say the folder for the cluster's files, and the address to serve")?;
    let address = arguments.next().context("say at which address kubectl will find the API server")?;
    if !isolation::is_inner_process() {
        // What is missing is told before anything is built that takes minutes.
        if let Err(lacking) = prepare(Scope::Nodes)? {
            bail!(lacking);
        }
        // There is no network inside to build it from.
        helm::helm()?;
    }
    isolated(&folder, Scope::Nodes, |inside| stay_up(inside, address.display().to_string()))
}

async fn stay_up(isolated: Isolated, address: String) -> Result<()> {
    let outside = isolated.folder_outside().to_owned();
    eprintln!("Starting etcd, the control plane and four nodes …");
    let cluster = Cluster::start(isolated, Options::default()).await?;
    eprintln!("Building images, and installing the chart …");
    let release = Release::prepare(&cluster).await?;
    release.install().await?;
    nodes_offer_their_gpus(&cluster, &[]).await?;
    write_examples(&cluster)?;
    door::write_kubeconfig(&cluster, &outside, &address)?;
    let door = door::Door::open(cluster.folder())?;
    let mut out = io::stdout();
    writeln!(out, "ready").and_then(|()| out.flush()).context("nobody waits for this cluster")?;
    door.serve().await
}

/// Writes the examples for whoever has no registry: with stubs in the place of model servers.
fn write_examples(cluster: &Cluster) -> Result<()> {
    let folder = cluster.folder().join("examples");
    fs::create_dir_all(&folder).with_context(|| format!("cannot make {}", folder.display()))?;
    for (name, objects) in stub::examples()? {
        let documents: Vec<String> = objects.iter().map(serde_saphyr::to_string).collect::<Result<_, _>>()?;
        let file = folder.join(name).with_extension("yaml");
        fs::write(&file, documents.join("---\n"))
            .with_context(|| format!("cannot write {}", file.display()))?;
    }
    Ok(())
}
