//! The plugin as released, beside a kubelet stand-in: what it advertises and hands out.

use std::collections::BTreeSet;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use rustix::process::{Pid, Signal, kill_process};
use stowage_stand_ins::kubelet::{Container, ContainerKind, Kubelet, KubeletOptions, PodToAdmit};
use tokio::process::{Child, Command};

use crate::smi::Said;

const RESOURCE: &str = "nvidia.com/gpu";
const LIMIT: Duration = Duration::from_secs(30);

/// Starts it, lets it hand out every whole GPU, and ends it.
pub async fn check(plugin: &Path, driver_root: &Path, said: &Said) -> Result<()> {
    let whole = said.gpus.iter().filter(|gpu| gpu.mig_mode.as_deref() != Some("Enabled"));
    let whole: BTreeSet<String> = whole.map(|gpu| gpu.uuid.clone()).collect();
    if whole.is_empty() {
        println!("the program was not checked: every GPU is in MIG mode");
        return Ok(());
    }
    let folder = tempfile::tempdir()?;
    let kubelet = Kubelet::start(KubeletOptions::new("gpu-check", folder.path())).await?;
    let started = Instant::now();
    let mut program = start(plugin, driver_root, &kubelet)?;

    let mut counts = kubelet.watch_allocatable();
    let listed = counts.wait_for(|counts| counts.get(RESOURCE).is_some_and(|c| c.allocatable > 0));
    tokio::select! {
        listed = tokio::time::timeout(LIMIT, listed) => drop(listed.context("no device list in time")??),
        ended = program.wait() => bail!("the plugin ended: {}", ended?),
    }
    println!("start to the first device list: {:.1} ms", started.elapsed().as_secs_f64() * 1e3);
    let count = kubelet.allocatable()[RESOURCE].allocatable;
    ensure!(count == whole.len() as u64, "{count} of {} GPUs are advertised", whole.len());

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
    ensure!(handed == whole, "handed out were {handed:?}, nvidia-smi lists {whole:?}");
    println!("handed out: {handed:?}");
    print_memory(&program)?;

    let ended = Instant::now();
    kill_process(pid_of(&program)?, Signal::TERM)?;
    let status = tokio::time::timeout(LIMIT, program.wait()).await.context("it did not end")??;
    println!("SIGTERM to the end: {:.1} ms, {status}", ended.elapsed().as_secs_f64() * 1e3);
    let in_time = status.success() && ended.elapsed() < Duration::from_secs(1);
    ensure!(in_time, "it did not end cleanly within a second");
    Ok(())
}

fn start(plugin: &Path, driver_root: &Path, kubelet: &Kubelet) -> Result<Child> {
    Command::new(plugin)
        .args(["--node-name", "gpu-check", "--kubernetes=false", "--http-address", "127.0.0.1:0"])
        .args(["--mig-strategy", "mixed", "--log-format", "text", "--driver-root-ctr-path"])
        .arg(driver_root)
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
