//! `stowage-scheduler-extender`: flags in, an exit code out. Everything else is in the library.

use std::process::ExitCode;

use clap::Parser;
use ops::Fault;
use stowage_scheduler_extender::memory;
use stowage_scheduler_extender::program::{Args, run};

fn main() -> ExitCode {
    memory::share_one_heap();
    let args = Args::parse();
    ops::logs::init(&args.logs);
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
    ops::exit(match runtime {
        Ok(runtime) => {
            let result = runtime.block_on(run(args));
            // Whatever still waits for the API server is not waited for.
            runtime.shutdown_background();
            result
        }
        Err(error) => Err(Fault::unavailable(error)),
    })
}
