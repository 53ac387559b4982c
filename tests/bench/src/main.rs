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

#[tokio::main(flavor = "multi_thread", worker_threads = 2)]
async fn main() -> Result<()> {
    let only: Vec<String> = std::env::args().skip(1).collect();
    let wanted = |name: &str| only.is_empty() || only.iter().any(|one| one == name);
    if wanted("extender") {
        for nodes in [100, 1_000] {
            extender::measure(nodes).await?;
        }
    }
    if wanted("plugin") {
        plugin::measure().await?;
    }
    Ok(())
}
