//! The scenarios, by file, and the stage that they share.

mod bring_up;
mod cdi;
mod chart;
mod conformance;
mod defrag;
mod examples;
mod faults;
mod main_job;
mod map;
mod monitoring;
mod nominate;
mod on_demand;
mod operators;
mod packing;
mod race;
mod rights;
mod service;
mod stowage;
mod stream;
mod trust;

use anyhow::Result;
use stowage_cluster_tests::{Cluster, Isolated, Options, Scenario};

use stowage::{LIMIT, Stowage, pods};

/// What all scenarios share.
pub(crate) struct Stage {
    pub(crate) cluster: Cluster,
    stowage: Option<Stowage>,
}

impl Stage {
    /// Starts the cluster.
    pub(crate) async fn open(isolated: Isolated) -> Result<Self> {
        Ok(Self { cluster: Cluster::start(isolated, Options::default()).await?, stowage: None })
    }

    /// The cluster with Stowage on it, and no pods: what a failed scenario left behind is taken away.
    pub(crate) async fn fresh(&mut self) -> Result<(&Cluster, &Stowage)> {
        let (cluster, stowage) = self.with_stowage().await?;
        stowage.wait_ready(cluster).await?;
        pods::delete_all(cluster, LIMIT).await?;
        Ok((cluster, stowage))
    }

    /// The cluster with Stowage on it, installed by the first scenario that needs it.
    async fn with_stowage(&mut self) -> Result<(&Cluster, &Stowage)> {
        let stowage = match self.stowage.take() {
            Some(stowage) => stowage,
            None => Stowage::start(&self.cluster).await?,
        };
        Ok((&self.cluster, self.stowage.insert(stowage)))
    }
}

/// Whether the long forms were asked for (`cargo xtask test --long`).
pub(crate) fn is_long() -> bool {
    std::env::var("STOWAGE_LONG").is_ok_and(|value| value == "1")
}

/// All scenarios, in the order in which they run: what is compared with the real cluster comes before Stowage is on it, and
/// the chart before its programs are started one by one.
pub(crate) fn all() -> Vec<Scenario<Stage>> {
    let files = [
        bring_up::all(),
        conformance::all(),
        operators::all(),
        chart::all(),
        main_job::all(),
        examples::all(),
        trust::all(),
        race::all(),
        packing::all(),
        nominate::all(),
        service::all(),
        map::all(),
        faults::all(),
        cdi::all(),
        on_demand::all(),
        defrag::all(),
        stream::all(),
        monitoring::all(),
        rights::all(),
    ];
    files.into_iter().flatten().collect()
}
