//! Scenarios on one real cluster: three nodes for GPUs, one without, all real.

mod scenarios;

use std::path::Path;
use std::process::ExitCode;

use anyhow::Result;
use stowage_cluster_tests::{Run, Scope, operators};
use stowage_monitoring_tests::programs;

fn main() -> ExitCode {
    Run {
        folder: Path::new(env!("CARGO_TARGET_TMPDIR")).join("cluster"),
        scope: Scope::Nodes,
        scenarios: scenarios::all(),
        prepare,
        open: |isolated| Box::pin(scenarios::Stage::open(isolated)),
    }
    .main()
}

/// What some scenarios want, and say aloud where they go without.
fn prepare() -> Result<()> {
    operators::prepare();
    programs::Program::Prometheus.find().map(drop)
}
