//! A stream of pods, as the large measurement has it.

use anyhow::{Result, ensure};
use stowage_cluster_tests::{Scenario, scenarios};
use stowage_scale::programs::Setup;
use stowage_scale::throughput::{self, Throughput};

use super::{NODES, PLACED, Stage};

const PODS: usize = 200;

pub(crate) fn all() -> Vec<Scenario<Stage>> {
    scenarios![
        two_hundred_pods_get_what_they_were_promised_at_one_write_each,
        two_hundred_pods_are_nominated_while_they_come_and_get_what_they_were_promised,
        the_setups_that_stowage_is_compared_with_bind_every_pod,
    ]
}

fn options() -> Throughput {
    Throughput {
        nodes: NODES,
        placed: PLACED,
        pods: PODS,
        rounds: 1,
        setups: Vec::new(),
        limit_seconds: super::LIMIT.as_secs(),
    }
}

async fn measured(stage: &Stage, setup: Setup) -> Result<throughput::Figures> {
    stage.fresh().await?;
    let figures =
        throughput::measure(&stage.cluster, &stage.hollow, &stage.built, setup, 0, &options()).await?;
    figures.print();
    ensure!(figures.bound == PODS, "{} of {PODS} pods were bound", figures.bound);
    Ok(figures)
}

async fn two_hundred_pods_get_what_they_were_promised_at_one_write_each(stage: &mut Stage) -> Result<()> {
    let figures = measured(stage, Setup::Stowage).await?;
    ensure!(figures.admitted == (PODS, 0, 0), "as planned, otherwise, not admitted: {:?}", figures.admitted);
    let bindings = figures.writes.get("POST pods/binding").copied().unwrap_or_default();
    ensure!(bindings == PODS as u64, "{bindings} Bindings for {PODS} pods");
    stage.audit_is_clean().await
}

async fn two_hundred_pods_are_nominated_while_they_come_and_get_what_they_were_promised(
    stage: &mut Stage,
) -> Result<()> {
    let figures = measured(stage, Setup::Nominate).await?;
    ensure!(figures.admitted == (PODS, 0, 0), "as planned, otherwise, not admitted: {:?}", figures.admitted);
    stage.audit_is_clean().await
}

async fn the_setups_that_stowage_is_compared_with_bind_every_pod(stage: &mut Stage) -> Result<()> {
    measured(stage, Setup::Stock).await?;
    measured(stage, Setup::DoNothing).await.map(drop)
}
