//! `stowage-device-plugin`: reads its configuration, runs, and says why it ended.

use std::process::ExitCode;

use clap::FromArgMatches;
use ops::Fault;
use ops::logs::LogArgs;
use stowage_device_plugin::node_config::{self, Given};
use stowage_device_plugin::{config, run};

fn main() -> ExitCode {
    let flags = config::arguments().get_matches();
    match LogArgs::from_arg_matches(&flags) {
        Ok(args) => ops::logs::init(&args),
        Err(error) => error.exit(),
    }
    ops::exit(start(&flags))
}

fn start(flags: &clap::ArgMatches) -> Result<(), Fault> {
    let env = |name: &str| std::env::var(name).ok();
    let config = config::load(flags, env).map_err(Fault::config)?;
    // One thread: the kubelet asks one thing at a time, and memory on every node counts.
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(Fault::unavailable)?;
    let result = match &config.per_node {
        None => runtime.block_on(run::run(config)),
        Some(per_node) => runtime.block_on(node_config::run(Given { flags, env }, &config, per_node)),
    };
    // A call that hangs in the driver must not keep the process.
    runtime.shutdown_background();
    result
}
