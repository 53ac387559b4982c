//! Dashboards and alerts with real data: a real Prometheus scrapes the plugins and the extender as the chart's PodMonitors
//! say, while everything that they tell of happens once.
//!
//! `tests/monitoring` compares queries with the documented metrics; this sees that they show something.

mod course;
mod prometheus;
mod scrape;
mod shown;

use std::time::SystemTime;

use anyhow::{Context, Result, ensure};
use stowage_cluster_tests::{Cluster, Scenario, scenarios};
use stowage_monitoring_tests::programs;

use super::Stage;
use super::nominate::grant;
use super::stowage::{EXTENDER_HTTP, LIMIT, extender, look, pods};
use prometheus::Prometheus;

pub(crate) fn all() -> Vec<Scenario<Stage>> {
    scenarios![every_panel_and_every_alert_finds_data_in_a_real_prometheus]
}

async fn every_panel_and_every_alert_finds_data_in_a_real_prometheus(stage: &mut Stage) -> Result<()> {
    let program = match programs::Program::Prometheus.find()? {
        Ok(program) => program,
        Err(why) => {
            eprintln!("SKIPPED: {why}");
            return Ok(());
        }
    };
    let (cluster, stowage) = stage.fresh().await?;
    grant(cluster).await?;
    stowage.extender.terminate(LIMIT).await?;
    let all_flags = ["--nominate", "--preemption", "--drain-scale-downs"];
    let all_on = cluster.start_program(extender(cluster).await?.args(all_flags))?;
    let ready = async || look::http_ok(EXTENDER_HTTP, "/readyz").await;
    cluster.wait_until(LIMIT, "the extender to be ready", &[&all_on], ready).await?;

    let begun = SystemTime::now();
    let prometheus = Prometheus::start(cluster, program, &scrape::configuration()?).await?;
    let result = async {
        course::run(cluster, stowage, &prometheus).await?;
        everything_is_shown(cluster, &prometheus, begun).await
    };
    let result = result.await;
    prometheus.process.terminate(LIMIT).await?;
    pods::delete_all(cluster, LIMIT).await?;
    all_on.terminate(LIMIT).await?;
    stowage.extender.restart()?;
    stowage.wait_ready(cluster).await?;
    result
}

/// Each query of a panel, each variable and each selector of an alert has had data since, and no rule fails.
async fn everything_is_shown(cluster: &Cluster, prometheus: &Prometheus, begun: SystemTime) -> Result<()> {
    let look = async || {
        let lacking = shown::lacking(prometheus, begun).await?;
        ensure!(lacking.is_empty(), "{} queries show nothing:\n{}", lacking.len(), lacking.join("\n"));
        Ok(())
    };
    cluster.wait_until(LIMIT, "every query to show something", &[&prometheus.process], look).await?;
    prometheus.rules_are_well().await.context("a rule fails")
}
