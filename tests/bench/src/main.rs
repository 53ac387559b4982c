//! Measures the hot paths of the programs as they are released, each beside a baseline of the same run.
//!
//! Figures are printed, never asserted: a busy machine must not fail a test. The baseline is the least that
//! could answer at all (a server that parses and echoes, a plugin that knows nothing), so that a figure says
//! how much of it is ours.
#![allow(clippy::print_stdout)]

mod extender;
mod http;
mod plugin;
mod program;
mod stats;

use anyhow::Result;
use tokio::runtime::Builder;

fn main() -> Result<()> {
    // Before there are threads, since it may put the process into a mount namespace.
    let nvidia = plugin::namespace::nvidia()?;
    let only: Vec<String> = std::env::args().skip(1).collect();
    let wanted = |name: &str| only.is_empty() || only.iter().any(|one| one == name);
    if wanted("extender") {
        // Its client, its API server and its floor run beside each other here.
        let runtime = Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
        runtime.block_on(extender::measure())?;
    }
    // One client, like the kubelet's: a call does not hop between threads of ours.
    let runtime = Builder::new_current_thread().enable_all().build()?;
    if wanted("plugin") {
        runtime.block_on(plugin::measure(nvidia.clone()))?;
    }
    if let Some(nvidia) = nvidia.filter(|_| wanted("answers")) {
        runtime.block_on(plugin::compare(&nvidia))?;
    }
    Ok(())
}
