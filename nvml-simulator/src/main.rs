//! `nvml-simulator`: breaks and loads a simulated node while programs run on it.
//!
//! It changes the state file as the tests do, through [`Store::update`]; every program that has loaded the
//! library sees the change with its next call.

use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context, Result};
use clap::{Args, Parser, Subcommand, ValueEnum};
use nvml_simulator::state::{
    Created, CreationFault, Latency, Node, Process, RemappedRows, State, Utilization,
};
use nvml_simulator::store::Store;
use nvml_simulator::{CONFIG_ENV, STATE_ENV};

/// Breaks and loads the GPUs of a simulated node while programs run on it.
#[derive(Parser)]
#[command(version)]
struct Cli {
    /// The node's description.
    #[arg(long, env = CONFIG_ENV)]
    config: PathBuf,
    /// Its state file; beside the description if absent.
    #[arg(long, env = STATE_ENV)]
    state: Option<PathBuf>,
    #[command(subcommand)]
    change: Change,
}

#[derive(Subcommand)]
enum Change {
    /// Raises an XID, e.g. 79: the GPU has fallen off the bus.
    Xid {
        gpu: Gpu,
        xid: u64,
        /// The instance it concerns: `GI` or `GI/CI`.
        #[arg(long, value_parser = instance)]
        instance: Option<(u32, Option<u32>)>,
    },
    /// Takes a GPU off the bus: what is asked of it fails with `GPU_IS_LOST`.
    Lose { gpu: Gpu },
    /// Puts a lost GPU back.
    Return { gpu: Gpu },
    /// Makes every call that concerns a GPU hang.
    Hang { gpu: Gpu },
    /// Lets the calls that hang go on.
    Release { gpu: Gpu },
    /// Sets how busy a GPU and its memory are, in per cent.
    Utilization {
        gpu: Gpu,
        gpu_percent: u8,
        #[arg(default_value_t = 0)]
        memory_percent: u8,
    },
    /// Starts a process, or changes the memory of one.
    Process {
        gpu: Gpu,
        pid: u32,
        memory_mib: u64,
        /// The compute instance it runs on, where MIG mode is on: `GI/CI`.
        #[arg(long, value_parser = instance)]
        instance: Option<(u32, Option<u32>)>,
    },
    /// Ends a process.
    End { gpu: Gpu, pid: u32 },
    /// Counts ECC errors.
    Ecc {
        gpu: Gpu,
        #[arg(long, default_value_t = 0)]
        corrected: u64,
        #[arg(long, default_value_t = 0)]
        uncorrected: u64,
    },
    /// Sets which rows of memory were replaced.
    Rows(Rows),
    /// Lets the next creations of instances fail.
    Refuse {
        gpu: Gpu,
        what: Instances,
        /// How many; all if absent, none with 0.
        #[arg(long, default_value_t = u32::MAX)]
        times: u32,
        /// NVML's return code, e.g. 23 for `INSUFFICIENT_RESOURCES`.
        #[arg(long, default_value_t = 23)]
        code: u32,
    },
    /// Sets how long creating and destroying instances and switching MIG mode take.
    Latency { milliseconds: u32 },
    /// Resets a GPU: instances are gone, the pending MIG mode is current, a lost or hanging GPU is back.
    Reset { gpu: Gpu },
    /// Prints the state and changes nothing.
    Show,
}

#[derive(Args)]
struct Rows {
    gpu: Gpu,
    #[arg(long, default_value_t = 0)]
    correctable: u32,
    #[arg(long, default_value_t = 0)]
    uncorrectable: u32,
    /// One more will be replaced at the next reset.
    #[arg(long)]
    pending: bool,
    /// One could not be replaced.
    #[arg(long)]
    failed: bool,
}

#[derive(Clone, Copy, ValueEnum)]
enum Instances {
    GpuInstances,
    ComputeInstances,
}

/// A GPU, as a person names it: by index or `GPU-<uuid>`.
#[derive(Clone)]
struct Gpu(String);

impl From<&str> for Gpu {
    fn from(text: &str) -> Self {
        Self(text.to_owned())
    }
}

impl Gpu {
    fn index(&self, node: &Node<'_>) -> u32 {
        // A name that is neither is a GPU that there is not; the change says so.
        node.hardware.index_of(&self.0).or_else(|| self.0.parse().ok()).unwrap_or(u32::MAX)
    }
}

fn main() -> ExitCode {
    match run(&Cli::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("nvml-simulator: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(cli: &Cli) -> Result<()> {
    let mut store = match &cli.state {
        Some(state) => Store::open_at(&cli.config, state)?,
        None => Store::open(&cli.config)?,
    };
    if let Change::Show = cli.change {
        return show(&*store.state()?);
    }
    Ok(store.update(|node| match &cli.change {
        Change::Xid { gpu, xid, instance } => node.raise_xid(gpu.index(node), *xid, *instance),
        Change::Lose { gpu } => node.set_lost(gpu.index(node), true),
        Change::Return { gpu } => node.set_lost(gpu.index(node), false),
        Change::Hang { gpu } => node.set_hanging(gpu.index(node), true),
        Change::Release { gpu } => node.set_hanging(gpu.index(node), false),
        Change::Utilization { gpu, gpu_percent, memory_percent } => {
            let busy = Utilization { gpu_percent: *gpu_percent, memory_percent: *memory_percent };
            node.set_utilization(gpu.index(node), busy)
        }
        Change::Process { gpu, pid, memory_mib, instance } => {
            let instance = instance.map(|(gpu_instance, compute)| (gpu_instance, compute.unwrap_or(0)));
            node.start_process(gpu.index(node), Process { pid: *pid, memory_mib: *memory_mib, instance })
        }
        Change::End { gpu, pid } => node.end_process(gpu.index(node), *pid),
        Change::Ecc { gpu, corrected, uncorrected } => {
            node.add_ecc_errors(gpu.index(node), *corrected, *uncorrected)
        }
        Change::Rows(Rows { gpu, correctable, uncorrectable, pending, failed }) => {
            let rows = RemappedRows {
                correctable: *correctable,
                uncorrectable: *uncorrectable,
                pending: *pending,
                failed: *failed,
            };
            node.set_remapped_rows(gpu.index(node), rows)
        }
        Change::Refuse { gpu, what, times, code } => {
            let of = match what {
                Instances::GpuInstances => Created::GpuInstance,
                Instances::ComputeInstances => Created::ComputeInstance,
            };
            node.fail_creations(gpu.index(node), CreationFault { of, times: *times, code: *code })
        }
        Change::Latency { milliseconds } => node.set_latency(Latency::of_each_ms(*milliseconds)),
        Change::Reset { gpu } => node.reset_gpu(gpu.index(node)),
        Change::Show => Ok(()),
    })?)
}

fn show(state: &State) -> Result<()> {
    let text = serde_json::to_string_pretty(state)?;
    writeln!(std::io::stdout().lock(), "{text}").context("cannot print")
}

/// `GI` or `GI/CI`.
fn instance(text: &str) -> Result<(u32, Option<u32>), String> {
    let number = |text: &str| text.parse::<u32>().map_err(|_| "use GI or GI/CI, e.g. 1/0".to_owned());
    match text.split_once('/') {
        Some((gpu_instance, compute)) => Ok((number(gpu_instance)?, Some(number(compute)?))),
        None => Ok((number(text)?, None)),
    }
}
