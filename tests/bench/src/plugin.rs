//! The real plugin against the simulated NVML: start to the first device list, Allocate,
//! GetPreferredAllocation, memory. The kubelet's side is the kubelet stand-in for registration, and a bare gRPC
//! client for the calls. The baseline is a plugin that answers with nothing.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use kubelet_api::device_plugin::device_plugin_client::DevicePluginClient;
use kubelet_api::device_plugin::{
    AllocateRequest, ContainerAllocateRequest, ContainerPreferredAllocationRequest,
    PreferredAllocationRequest,
};
use nvml_simulator::description::{Description, GpuDescription};
use stowage_stand_ins::kubelet::{Kubelet, KubeletOptions};
use tonic::transport::Channel;

use crate::program::{Running, built};
use crate::stats::Times;

const STARTS: usize = 10;
const CALLS: usize = 2_000;
const GPUS: usize = 8;
const RESOURCE: &str = "nvidia.com/gpu";
const LIMIT: Duration = Duration::from_secs(20);

/// Measures the plugin.
pub(crate) async fn measure() -> Result<()> {
    println!("device plugin, {GPUS} simulated A100s, without an API server");
    let folder = tempfile::tempdir()?;
    let machine = Machine::make(folder.path())?;
    let kubelet = Kubelet::start(KubeletOptions::new("bench", folder.path().join("kubelet"))).await?;
    let mut starts = Times::default();
    let mut last = None;
    for _ in 0..STARTS {
        drop(last.take());
        kubelet.restart().await?;
        let started = Instant::now();
        let program = Running::start(&mut machine.command(&kubelet))?;
        let mut allocatable = kubelet.watch_allocatable();
        let all =
            allocatable.wait_for(|counts| counts.get(RESOURCE).is_some_and(|c| c.allocatable == GPUS as u64));
        tokio::time::timeout(LIMIT, all).await.context("the plugin did not list its devices")??;
        starts.push(started.elapsed());
        last = Some(program);
    }
    starts.print("process start to the first device list");
    let program = last.context("no start")?;

    let socket = socket_of(&folder.path().join("kubelet/device-plugins"))?;
    let channel = kubelet_api::endpoint(&socket)?.connect().await?;
    let mut client = DevicePluginClient::new(channel);
    let ids = device_ids(&mut client).await?;
    calls(&mut client, &ids, "").await?;
    program.print_memory("memory after that")?;
    Ok(())
}

async fn calls(client: &mut DevicePluginClient<Channel>, ids: &[String], whose: &str) -> Result<()> {
    let mut preferred = Times::default();
    let mut allocate = Times::default();
    let mut options = Times::default();
    for call in 0..CALLS {
        let start = Instant::now();
        // The least call there is: no argument and no work. What it takes is gRPC's.
        client.get_device_plugin_options(kubelet_api::device_plugin::Empty {}).await?;
        options.push(start.elapsed());
        let start = Instant::now();
        let request = ContainerPreferredAllocationRequest {
            available_device_ids: ids.to_vec(),
            must_include_device_ids: Vec::new(),
            allocation_size: 1 + (call % 4) as i32,
        };
        let request = PreferredAllocationRequest { container_requests: vec![request] };
        client.get_preferred_allocation(request).await?;
        preferred.push(start.elapsed());
        let start = Instant::now();
        let request = ContainerAllocateRequest { devices_ids: vec![ids[call % ids.len()].clone()] };
        client.allocate(AllocateRequest { container_requests: vec![request] }).await?;
        allocate.push(start.elapsed());
    }
    preferred.print(&format!("GetPreferredAllocation, 1 to 4 of {} GPUs{whose}", ids.len()));
    allocate.print(&format!("Allocate, one GPU{whose}"));
    options.print("GetDevicePluginOptions: gRPC alone (baseline)");
    Ok(())
}

async fn device_ids(client: &mut DevicePluginClient<Channel>) -> Result<Vec<String>> {
    let mut stream = client.list_and_watch(kubelet_api::device_plugin::Empty {}).await?.into_inner();
    let first = stream.message().await?.context("the stream ended")?;
    Ok(first.devices.into_iter().map(|device| device.id).collect())
}

/// The plugin's socket: the one in the folder that is not the kubelet's.
fn socket_of(folder: &Path) -> Result<PathBuf> {
    let entries = std::fs::read_dir(folder)?.collect::<Result<Vec<_>, _>>()?;
    let sockets = entries.into_iter().map(|entry| entry.path());
    let mut own = sockets
        .filter(|path| path.extension().is_some_and(|e| e == "sock") && !path.ends_with("kubelet.sock"));
    own.next().with_context(|| format!("no plugin's socket in {}", folder.display()))
}

/// The files of a simulated machine.
struct Machine {
    simulator: PathBuf,
    driver_root: PathBuf,
}

impl Machine {
    fn make(folder: &Path) -> Result<Self> {
        let simulator = folder.join("gpus.yaml");
        Description::new(vec![GpuDescription::new("a100-40gb").times(GPUS as u32)]).write(&simulator)?;
        let driver_root = folder.join("driver-root");
        let libraries = driver_root.join("usr/lib64");
        std::fs::create_dir_all(&libraries)?;
        let library =
            nvml_simulator::library_near(&std::env::current_exe()?).context("the simulator is not built")?;
        ensure!(library.exists(), "{} is missing", library.display());
        std::os::unix::fs::symlink(library, libraries.join("libnvidia-ml.so.1"))?;
        Ok(Self { simulator, driver_root })
    }

    fn command(&self, kubelet: &Kubelet) -> Command {
        let program = built("stowage-device-plugin").unwrap_or_else(|_| "stowage-device-plugin".into());
        let mut command = Command::new(program);
        command
            .args(["--node-name", "bench", "--kubernetes=false", "--http-address", "127.0.0.1:0"])
            .arg("--kubelet-socket")
            .arg(kubelet.registration_socket())
            .arg("--pod-resources-socket")
            .arg(kubelet.pod_resources_socket())
            .arg("--driver-root-ctr-path")
            .arg(&self.driver_root)
            .env("NVML_SIMULATOR_CONFIG", &self.simulator);
        command
    }
}
