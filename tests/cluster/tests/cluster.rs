//! Scenarios on one real cluster: three nodes for GPUs, one without, all real.

mod scenarios;

use std::path::Path;
use std::process::ExitCode;

use stowage_cluster_tests::Run;

fn main() -> ExitCode {
    Run {
        folder: Path::new(env!("CARGO_TARGET_TMPDIR")).join("cluster"),
        scenarios: scenarios::all(),
        open: |isolated| Box::pin(scenarios::Stage::open(isolated)),
    }
    .main()
}
