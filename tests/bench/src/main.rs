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

use std::path::PathBuf;

use anyhow::Result;

fn main() -> Result<()> {
    // Before there are threads, since it may put the process into a mount namespace.
    let nvidia = plugin::namespace::nvidia()?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(measure(nvidia))
}

async fn measure(nvidia: Option<PathBuf>) -> Result<()> {
    let only: Vec<String> = std::env::args().skip(1).collect();
    let wanted = |name: &str| only.is_empty() || only.iter().any(|one| one == name);
    if wanted("extender") {
        extender::measure().await?;
    }
    if wanted("plugin") {
        plugin::measure(nvidia.clone()).await?;
    }
    if let Some(nvidia) = nvidia.filter(|_| wanted("answers")) {
        plugin::compare(&nvidia).await?;
    }
    Ok(())
}
