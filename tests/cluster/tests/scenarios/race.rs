//! Many pods at once: nothing is given twice, nothing outside the plans, nobody fails at admission.

use std::time::Duration;

use anyhow::{Result, ensure};
use stowage_cluster_tests::{Scenario, scenarios};
use stowage_shared::audit::audit;

use super::stowage::pods::{self, By};
use super::stowage::{LIMIT, look};
use super::{Stage, is_long};

pub(crate) fn all() -> Vec<Scenario<Stage>> {
    scenarios![thirty_pods_at_once_get_what_was_planned_ten_times]
}

/// Thirty pods of equal and mixed shapes; they fill the whole GPUs and the 1g slices.
const SHAPES: [(&str, u32, u32); 6] = [
    ("gpu", 1, 4),
    ("gpu", 2, 2),
    ("mig-1g.5gb", 1, 8),
    ("mig-3g.20gb", 1, 2),
    ("mig-2g.10gb", 2, 2),
    ("gpu.shared", 1, 12),
];
const ROUND: Duration = Duration::from_secs(120);

async fn thirty_pods_at_once_get_what_was_planned_ten_times(stage: &mut Stage) -> Result<()> {
    let cluster = stage.fresh().await?.0;
    let rounds = if is_long() { 50 } else { 10 };
    for round in 0..rounds {
        let mut creations = Vec::new();
        for (resource, count, copies) in SHAPES {
            for copy in 0..copies {
                let name = format!("race-{round}-{}-{count}-{copy}", resource.replace('.', "-"));
                creations.push(async move {
                    pods::create(cluster, &name, pods::spec(By::Stowage, resource, count)).await
                });
            }
        }
        ensure!(creations.len() == 30, "{} pods", creations.len());
        futures::future::try_join_all(creations).await?;
        let running = pods::all_running(cluster, 30, ROUND).await?;
        // While GpuNodes are still catching up, no error of severity may show either.
        for finding in look::views(cluster).await?.iter().flat_map(audit) {
            ensure!(finding.severity < stowage_shared::audit::Severity::Error, "round {round}: {finding}");
        }
        look::audit_is_clean(cluster).await?;
        look::containers_see_their_plans(cluster, &running).await?;
        pods::delete_all(cluster, LIMIT).await?;
    }
    look::audit_is_clean(cluster).await
}
