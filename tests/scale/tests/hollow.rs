//! Scenarios on fifty hollow nodes under a real API server and real kube-schedulers.

mod scenarios;

use std::path::Path;
use std::process::ExitCode;

use stowage_cluster_tests::{Run, Scope};

fn main() -> ExitCode {
    Run {
        folder: Path::new(env!("CARGO_TARGET_TMPDIR")).join("hollow"),
        scope: Scope::Hollow,
        scenarios: scenarios::all(),
        prepare: || Ok(()),
        open: |isolated| Box::pin(scenarios::Stage::open(isolated)),
    }
    .main()
}
