//! The real plugin against the simulated NVML, and NVIDIA's beside it where the environment names its program.
//!
//! The kubelet's side is the kubelet stand-in for registrations, and a bare gRPC client for the calls. Each run
//! begins with a new process, and the two plugins take turns, so that a machine that is busy for a while is busy for
//! both. A figure is the median of the runs, with the least and the greatest of them. Baselines of the same run:
//! the least call there is, and the least program that loads the library.

mod calls;
mod compare;
mod door;
mod figures;
mod machine;
pub(crate) mod namespace;
mod node;

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use nvml_simulator::description::{Description, GpuDescription};
use stowage_stand_ins::kubelet::Allocatable;
use tokio::time::sleep;

use crate::program::{Running, built};
use figures::{Figure, Figures};
use machine::{Machine, Plugin};
use node::Node;

const RUNS: usize = 10;
const GPUS: usize = 8;
const RESOURCE: &str = "nvidia.com/gpu";
/// How long a device list may take to come.
const LIMIT: Duration = Duration::from_secs(20);
/// How long a plugin that was hung up on may take to come back; NVIDIA's does not.
const DROPPED_LIMIT: Duration = Duration::from_secs(3);
/// How long a kubelet that restarts is away: not at all, or for a moment.
const AWAY: [Duration; 2] = [Duration::ZERO, Duration::from_millis(300)];
/// How long a plugin and a kubelet are left alone before something is done to them.
const QUIET: Duration = Duration::from_millis(200);
/// How long after its start a plugin counts as idle, and for how long it is then watched: a few periods of
/// whatever it does now and then.
const SETTLED: Duration = Duration::from_secs(3);
const IDLE: Duration = Duration::from_secs(30);

/// Measures the plugin, and NVIDIA's if it is there.
pub(crate) async fn measure(nvidia: Option<PathBuf>) -> Result<()> {
    println!(
        "device plugin, {GPUS} simulated A100s, without an API server; medians of {RUNS} runs (least … greatest)"
    );
    let scratch = tempfile::tempdir()?;
    let gpus = vec![GpuDescription::new("a100-40gb").times(GPUS as u32)];
    let machine = Machine::make(scratch.path(), &Description::new(gpus))?;
    let folder = namespace::kubelet_folder(scratch.path(), nvidia.is_some());
    let mut bench = Bench { machine, node: Node::start(&folder).await? };

    let mut plugins = vec![Plugin::Ours];
    plugins.extend(nvidia.clone().map(Plugin::Nvidias));
    let mut figures: Vec<Figures> = plugins.iter().map(|_| Figures::default()).collect();
    for _ in 0..RUNS {
        let bare = bench.bare_library()?;
        for (plugin, figures) in plugins.iter().zip(&mut figures) {
            bench.run(plugin, bare, figures).await?;
        }
    }
    for (plugin, figures) in plugins.iter().zip(&mut figures) {
        bench.idle(plugin, figures).await?;
        figures.push(Figure::Binary, plugin.program()?.metadata()?.len() as f64 / 1e6);
    }
    figures::print(&figures);
    Ok(())
}

/// Compares what the two plugins answer.
pub(crate) async fn compare(nvidia: &Path) -> Result<()> {
    let scratch = tempfile::tempdir()?;
    compare::measure(nvidia, &mut Node::start(&namespace::kubelet_folder(scratch.path(), true)).await?).await
}

struct Bench {
    machine: Machine,
    node: Node,
}

impl Bench {
    /// One run of one plugin, from a new process to its end.
    async fn run(&mut self, plugin: &Plugin, bare_mib: f64, figures: &mut Figures) -> Result<()> {
        let (started, program) = self.start(plugin).await?;
        figures.push(Figure::Start, started.as_secs_f64() * 1e3);
        sleep(QUIET).await;
        let dropped = Instant::now();
        ensure!(self.node.kubelet.drop_stream(RESOURCE), "no plugin is registered");
        if self.listed(DROPPED_LIMIT).await.is_ok() {
            figures.push(Figure::Dropped, dropped.elapsed().as_secs_f64() * 1e3);
        } else {
            self.node.restart(Duration::ZERO).await?;
            self.listed(LIMIT).await?;
        }
        for away in AWAY {
            sleep(QUIET).await;
            let resumed = self.node.restart(away).await?;
            self.listed(LIMIT).await.context("the plugin did not register with the new kubelet")?;
            figures.push(Figure::Restart, resumed.elapsed().as_secs_f64() * 1e3);
        }
        let mut client = calls::connect(&self.node.sockets, plugin, RESOURCE).await?;
        calls::measure(&mut client, figures).await?;
        let (now, peak) = program.memory_mib()?;
        figures.push(Figure::Resident, now);
        figures.push(Figure::Peak, peak);
        figures.push(Figure::OverLibrary, peak - bare_mib);

        let mut store = self.machine.store()?;
        store.update(|node| node.set_lost(GPUS as u32 - 1, true))?;
        figures.push(Figure::LostErrors, calls::errors(&mut client).await?);
        store.update(|node| node.set_lost(GPUS as u32 - 1, false))?;
        Ok(())
    }

    /// Starts a plugin; tells how long it takes until the kubelet has all its devices.
    async fn start(&mut self, plugin: &Plugin) -> Result<(Duration, Running)> {
        self.node.restart(Duration::ZERO).await?;
        let started = Instant::now();
        let program = Running::start(&mut self.machine.command(plugin, &self.node, &[])?)?;
        self.listed(LIMIT).await.with_context(|| format!("{plugin:?} did not list its devices"))?;
        Ok((started.elapsed(), program))
    }

    /// Waits until the kubelet has all devices.
    async fn listed(&self, limit: Duration) -> Result<()> {
        let all = |counts: &Allocatable| counts.get(RESOURCE).is_some_and(|c| c.allocatable == GPUS as u64);
        self.node.counts(limit, all).await
    }

    /// What a plugin does while nothing happens.
    async fn idle(&mut self, plugin: &Plugin, figures: &mut Figures) -> Result<()> {
        let (_, program) = self.start(plugin).await?;
        sleep(SETTLED).await;
        let (begun, before) = (Instant::now(), program.cpu_time()?);
        sleep(IDLE).await;
        let used = program.cpu_time()?.saturating_sub(before);
        figures.push(Figure::Idle, 100.0 * used.as_secs_f64() / begun.elapsed().as_secs_f64());
        Ok(())
    }

    /// The peak memory of the least program that uses NVML, in MiB.
    fn bare_library(&self) -> Result<f64> {
        let output = self.machine.sees(&built("bare-library")?).arg(&self.machine.library).output()?;
        let text = String::from_utf8_lossy(&output.stdout);
        let kib: f64 = text.trim().parse().with_context(|| format!("bare-library ended with {output:?}"))?;
        Ok(kib / 1024.0)
    }
}
