//! The scenarios, and the stage that they share.

mod nominations;
mod pairs;
mod policies;
mod stream;

use std::time::Duration;

use anyhow::{Result, ensure};
use stowage_cluster_tests::{Cluster, Isolated, Scenario};
use stowage_scale::hollow::Hollow;
use stowage_scale::programs::Built;
use stowage_scale::{cluster, throughput, verdict};
use stowage_shared::audit::{Finding, Severity};

/// Long enough for anything; a failure shows what was seen last.
const LIMIT: Duration = Duration::from_secs(90);
const NODES: usize = 50;
const PLACED: usize = 200;

/// What all scenarios share.
pub(crate) struct Stage {
    cluster: Cluster,
    hollow: Hollow,
    built: Built,
}

impl Stage {
    /// Starts the cluster and makes its nodes.
    pub(crate) async fn open(isolated: Isolated) -> Result<Self> {
        let built = Built::find(None)?;
        let cluster = cluster::start(isolated).await?;
        let hollow = throughput::populate(&cluster, NODES, PLACED).await?;
        Ok(Self { cluster, hollow, built })
    }

    /// No pods but those that were there from the start, and nothing counted.
    async fn fresh(&self) -> Result<()> {
        throughput::clean(&self.cluster, &self.hollow).await?;
        let mut state = self.hollow.state();
        state.record.clear();
        state.counts = Default::default();
        state.surprises.clear();
        Ok(())
    }

    /// Waits until so many pods have a node.
    async fn all_bound(&self, count: usize) -> Result<()> {
        self.hollow
            .wait(LIMIT, &format!("{count} pods to be bound"), |state| {
                ensure!(state.record.bound == count, "{} are", state.record.bound);
                Ok(())
            })
            .await
    }

    /// Waits until the audit finds nothing that `is_fine` does not let pass: GpuNodes lag a moment behind.
    async fn audit_finds_only(&self, is_fine: impl Fn(&Finding) -> bool) -> Result<Vec<Finding>> {
        self.cluster
            .wait_until(LIMIT, "the audit to be clean", &[], async || {
                let findings = verdict::findings(&self.cluster.client()).await?;
                let broken: Vec<_> =
                    findings.iter().filter(|f| !is_fine(f)).take(5).map(ToString::to_string).collect();
                ensure!(broken.is_empty(), "{}", broken.join("\n"));
                Ok(findings)
            })
            .await
    }

    /// Waits until the audit finds nothing worth more than a notice.
    async fn audit_is_clean(&self) -> Result<()> {
        self.audit_finds_only(|finding| finding.severity == Severity::Notice).await.map(drop)
    }
}

/// All scenarios, in the order in which they run.
pub(crate) fn all() -> Vec<Scenario<Stage>> {
    [policies::all(), stream::all(), nominations::all(), pairs::all()].into_iter().flatten().collect()
}
