//! Each stand-in is held to the real thing: one script, run against both, with equal outcomes.
//!
//! A script does something, and writes down in plain lines what came of it: nothing that differs from
//! run to run (UIDs, times, what somebody chose at random), everything that a client can rely on. It says
//! nowhere what the outcome should be: the real one says that. So a stand-in cannot be wrong in the same
//! way as its author.
//!
//! It knows nothing of Stowage's programs, and leaves the cluster as it was, but for one resource of
//! 0 devices that a Node goes on telling of.

mod api_server;
mod kubelet;
mod scheduler;

use std::fs;

use anyhow::{Context, Result, bail};
use stowage_cluster_tests::versions::Versions;
use stowage_cluster_tests::{Cluster, Scenario, scenarios};

use super::Stage;

/// Whom the stand-ins stand in for; other minors word things differently, and mend things.
const MINOR: &str = "1.36.";

/// A script's steps, in order: a name, and what came of it, which may be several lines.
type Steps = Vec<(String, String)>;

pub(crate) fn all() -> Vec<Scenario<Stage>> {
    scenarios![
        the_api_server_stand_in_answers_as_kube_apiserver,
        the_kubelet_stand_in_treats_plugins_and_pods_as_the_kubelet,
        the_scheduler_stand_in_asks_and_places_as_kube_scheduler,
    ]
}

async fn the_api_server_stand_in_answers_as_kube_apiserver(stage: &mut Stage) -> Result<()> {
    if !is_stood_in_for() {
        return Ok(());
    }
    let stand_in = api_server::stand_in().await?;
    let real = api_server::real(&stage.cluster).await?;
    compare(&stage.cluster, "kube-apiserver", &real, &stand_in)
}

async fn the_kubelet_stand_in_treats_plugins_and_pods_as_the_kubelet(stage: &mut Stage) -> Result<()> {
    if !is_stood_in_for() {
        return Ok(());
    }
    let stand_in = kubelet::stand_in().await?;
    let real = kubelet::real(&stage.cluster).await?;
    compare(&stage.cluster, "kubelet", &real, &stand_in)
}

async fn the_scheduler_stand_in_asks_and_places_as_kube_scheduler(stage: &mut Stage) -> Result<()> {
    if !is_stood_in_for() {
        return Ok(());
    }
    let stand_in = scheduler::stand_in(&stage.cluster).await?;
    let real = scheduler::real(&stage.cluster).await?;
    compare(&stage.cluster, "kube-scheduler", &real, &stand_in)
}

/// Whether the cluster runs the Kubernetes that the stand-ins are like.
fn is_stood_in_for() -> bool {
    let running = Versions::from_env().kubernetes;
    let same = running.starts_with(MINOR);
    if !same {
        eprintln!("\n(nothing compared: the stand-ins are those of Kubernetes {MINOR}x, not {running})");
    }
    same
}

/// Fails with every step that differs. Beside the cluster's logs lie both accounts in full.
fn compare(cluster: &Cluster, name: &str, real: &Steps, stand_in: &Steps) -> Result<()> {
    for (who, steps) in [("real", real), ("stand-in", stand_in)] {
        let path = cluster.folder().join(format!("logs/conformance.{name}.{who}.txt"));
        let account: String = steps.iter().map(|(step, outcome)| format!("{step}: {outcome}\n")).collect();
        fs::write(&path, account).with_context(|| format!("cannot write {}", path.display()))?;
    }
    let nothing = ("(no more steps)".to_owned(), String::new());
    let mut differences = String::new();
    for number in 0..real.len().max(stand_in.len()) {
        let (real, stand_in) =
            (real.get(number).unwrap_or(&nothing), stand_in.get(number).unwrap_or(&nothing));
        if real != stand_in {
            let (step, _) = if *real == nothing { stand_in } else { real };
            let tell = |(name, outcome): &(String, String)| {
                if name == step { outcome.clone() } else { format!("{name}: {outcome}") }
            };
            differences += &format!("\n{step}\n  real:     {}\n  stand-in: {}", tell(real), tell(stand_in));
        }
    }
    if differences.is_empty() {
        return Ok(());
    }
    bail!("the {name} stand-in differs from the real one:{differences}")
}
