//! Checks the device plugin on a machine with real NVIDIA GPUs. Reads only.
#![allow(clippy::print_stdout)]

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use rustix::process::{Pid, Signal, kill_process};
use stowage_stand_ins::kubelet::{Container, ContainerKind, Kubelet, KubeletOptions, PodToAdmit};
use tokio::process::{Child, Command};

const RESOURCE: &str = "nvidia.com/gpu";
const LIMIT: Duration = Duration::from_secs(30);

#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    let Some(plugin) = std::env::args_os().nth(1) else {
        eprintln!("usage: stowage-gpu-check PATH-OF-stowage-device-plugin");
        return ExitCode::FAILURE;
    };
    match check(plugin.into()).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("stowage-gpu-check: {error:#}");
            ExitCode::FAILURE
        }
    }
}

async fn check(plugin: PathBuf) -> Result<()> {
    let gpus = whole_gpus().await?;
    println!("nvidia-smi: {} GPUs, of which {} are not in MIG mode", gpus.all, gpus.whole.len());
    let folder = tempfile::tempdir()?;
    let kubelet = Kubelet::start(KubeletOptions::new("gpu-check", folder.path())).await?;
    let started = Instant::now();
    let mut program = start(&plugin, &kubelet)?;

    let mut counts = kubelet.watch_allocatable();
    let listed = counts.wait_for(|counts| counts.get(RESOURCE).is_some_and(|c| c.allocatable > 0));
    tokio::select! {
        listed = tokio::time::timeout(LIMIT, listed) => drop(listed.context("no device list in time")??),
        ended = program.wait() => bail!("the plugin ended: {}", ended?),
    }
    println!("start to the first device list: {:.1} ms", started.elapsed().as_secs_f64() * 1e3);
    let count = kubelet.allocatable()[RESOURCE].allocatable;
    ensure!(count == gpus.whole.len() as u64, "{count} of {} GPUs are advertised", gpus.whole.len());

    // With strategy `none`, whole GPUs are what the plugin hands out; each in turn, until none is left.
    let mut handed = BTreeSet::new();
    for number in 0..count {
        let name = format!("pod-{number}");
        let container = Container {
            name: "main".into(),
            kind: ContainerKind::App,
            devices: [(RESOURCE.to_owned(), 1)].into(),
        };
        let pod =
            PodToAdmit { namespace: "default".into(), uid: name.clone(), name, containers: vec![container] };
        let admitted = kubelet.admit(pod).await?;
        let visible = admitted.containers[0].response.envs.get("NVIDIA_VISIBLE_DEVICES");
        handed.insert(visible.context("NVIDIA_VISIBLE_DEVICES is not set")?.clone());
    }
    ensure!(handed == gpus.whole, "handed out were {handed:?}, nvidia-smi lists {:?}", gpus.whole);
    println!("handed out: {handed:?}");
    print_memory(&program)?;

    let ended = Instant::now();
    kill_process(pid_of(&program)?, Signal::TERM)?;
    let status = tokio::time::timeout(LIMIT, program.wait()).await.context("it did not end")??;
    println!("SIGTERM to the end: {:.1} ms, {status}", ended.elapsed().as_secs_f64() * 1e3);
    ensure!(
        status.success() && ended.elapsed() < Duration::from_secs(1),
        "it did not end cleanly within a second"
    );
    println!("everything is as it should be");
    Ok(())
}

/// What `nvidia-smi` lists.
struct Gpus {
    all: usize,
    whole: BTreeSet<String>,
}

async fn whole_gpus() -> Result<Gpus> {
    let query = ["--query-gpu=uuid,mig.mode.current", "--format=csv,noheader"];
    let output =
        Command::new("nvidia-smi").args(query).output().await.context("no nvidia-smi: is there a GPU?")?;
    ensure!(output.status.success(), "nvidia-smi: {}", String::from_utf8_lossy(&output.stdout));
    let text = String::from_utf8(output.stdout)?;
    let rows: Vec<(&str, &str)> = text.lines().filter_map(|line| line.split_once(", ")).collect();
    let whole =
        rows.iter().filter(|(_, mig)| *mig != "Enabled").map(|(uuid, _)| (*uuid).to_owned()).collect();
    Ok(Gpus { all: rows.len(), whole })
}

fn start(plugin: &PathBuf, kubelet: &Kubelet) -> Result<Child> {
    Command::new(plugin)
        .args(["--node-name", "gpu-check", "--kubernetes=false", "--http-address", "127.0.0.1:0"])
        .args(["--mig-strategy", "mixed", "--driver-root-ctr-path", "/", "--log-format", "text"])
        .arg("--kubelet-socket")
        .arg(kubelet.registration_socket())
        .arg("--pod-resources-socket")
        .arg(kubelet.pod_resources_socket())
        .kill_on_drop(true)
        .spawn()
        .with_context(|| format!("cannot start {}", plugin.display()))
}

fn pid_of(program: &Child) -> Result<Pid> {
    let id = program.id().context("the plugin has ended")?;
    Pid::from_raw(i32::try_from(id)?).context("a process without an id")
}

fn print_memory(program: &Child) -> Result<()> {
    let id = program.id().context("the plugin has ended")?;
    let status = std::fs::read_to_string(format!("/proc/{id}/status"))?;
    for line in status.lines().filter(|line| line.starts_with("VmRSS") || line.starts_with("VmHWM")) {
        println!("{line}");
    }
    Ok(())
}
