//! Other GPUs on a node for the time of a scenario: cut on demand, with device nodes that CDI can hand on.
//!
//! The node's own plugin ends, another one takes its place, and afterwards the first one comes back. So MIG on demand
//! costs the cluster no node of its own. Device nodes are real ones of NVIDIA's numbers, without a driver behind them:
//! enough to see which of them a container has got, and so, by the capability nodes' numbers, which instance.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use k8s_openapi::api::core::v1::{Node, Pod};
use kube::Api;
use nvml_simulator::store::Store;
use rustix::fs::{CWD, FileType, Mode, makedev, mknodat};
use serde_json::{Value, json};
use stowage_cluster_tests::{Cluster, Process, Program};

use super::pods::{self, By};
use super::{LIMIT, NodeFiles, Stowage, Written, look, plugin_http, plugin_with};

/// The node whose GPUs are exchanged: the last of [`NodeFiles::all`].
pub(crate) const NODE: &str = "gpu-node-3";
const NUMBER: usize = 2;
/// NVIDIA's major number, and one as the kernel might give to MIG's capability nodes.
const GPU_MAJOR: u32 = 195;
const CAPS_MAJOR: u32 = 237;
/// The minor number of `/dev/nvidiactl`.
const CONTROL_MINOR: u32 = 255;
/// Ids of GPU instances that NVML may give on one GPU, and the numbers kept for its capability nodes, two each.
const INSTANCES: u32 = 15;
const CAPS_PER_GPU: u32 = 32;
/// Below these numbers are `config` and `monitor`.
const FIRST_CAP: u32 = 3;

/// The node with its other GPUs.
pub(crate) struct OnDemand<'a> {
    pub(crate) cluster: &'a Cluster,
    pub(crate) plugin: Process,
    program: Program,
    simulator: PathBuf,
}

/// What a container has of GPUs, by its device nodes.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Seen {
    /// The minor number of its one GPU.
    pub(crate) gpu: u32,
    /// The GPU instance, if it has one.
    pub(crate) instance: Option<u32>,
}

/// Runs `body` with other GPUs on [`NODE`], and gives the node its own back, however that ends.
pub(crate) async fn with_gpus(
    cluster: &Cluster,
    stowage: &Stowage,
    files: &NodeFiles,
    body: impl AsyncFnOnce(&OnDemand<'_>) -> Result<()>,
) -> Result<()> {
    let own = stowage.plugin(NODE)?;
    own.terminate(Duration::from_secs(5)).await?;
    let result = async {
        let node = OnDemand::start(cluster, files).await?;
        body(&node).await?;
        node.plugin.terminate(Duration::from_secs(5)).await.map(drop)
    };
    let result = result.await;
    pods::delete_all(cluster, LIMIT).await?;
    own.restart()?;
    result
}

impl<'a> OnDemand<'a> {
    async fn start(cluster: &'a Cluster, files: &NodeFiles) -> Result<Self> {
        let folder = cluster.node(NODE)?.folder().join("on-demand");
        if folder.exists() {
            fs::remove_dir_all(&folder)?;
        }
        let written = files.write(&folder)?;
        let gpus = Store::open(&written.simulator)?.state()?.gpus.len();
        let procfs = folder.join("proc");
        write_minors(&procfs, u32::try_from(gpus)?)?;
        make_nodes(&written, u32::try_from(gpus)?)?;
        let program = plugin_with(cluster, NODE, NUMBER, &written).await?;
        let program =
            program.arg("--driver-root").arg(&written.driver_root).arg("--procfs-root").arg(&procfs);
        // As in the chart's pod: a second one may stand by.
        let program = program.arg("--standby");
        let plugin = cluster.start_program_on(NODE, program.clone())?;
        let node = Self { cluster, plugin, program, simulator: written.simulator };
        node.wait_healthy().await?;
        node.until_allocatable(files.offers).await?;
        Ok(node)
    }

    /// Starts a second plugin, which stands by until the first one ends.
    pub(crate) fn start_standby(&self) -> Result<Process> {
        self.cluster.start_program_on(NODE, self.program.clone().named("plugin-standby"))
    }

    /// Waits until the plugin that serves says that it is ready.
    pub(crate) async fn wait_healthy(&self) -> Result<()> {
        let address = plugin_http(NUMBER);
        let look = async || look::http_ok(&address, "/readyz").await;
        self.cluster.wait_until(LIMIT, "the plugin to be ready", &[&self.plugin], look).await
    }

    /// Waits until the API server's Node has these counts of devices.
    pub(crate) async fn until_allocatable(&self, counts: &[(&str, u32)]) -> Result<()> {
        let nodes: Api<Node> = Api::all(self.cluster.client());
        let look = async || {
            let allocatable = nodes.get(NODE).await?.status.and_then(|status| status.allocatable);
            for (resource, want) in counts {
                let got = allocatable.as_ref().and_then(|all| all.get(*resource));
                let got = got.map_or("none", |quantity| quantity.0.as_str());
                ensure!(got == want.to_string(), "{got} of {want} {resource}");
            }
            Ok(())
        };
        self.cluster.wait_until(LIMIT, "the Node to have these counts", &[&self.plugin], look).await
    }

    /// Creates a pod on this node.
    pub(crate) async fn create(&self, name: &str, by: By, resource: &str) -> Result<()> {
        pods::create(self.cluster, name, spec(by, resource)).await
    }

    /// The GPU instances that exist, by GPU and id: NVML's ids of their profiles.
    pub(crate) fn instances(&self) -> Result<BTreeMap<(u32, u32), u32>> {
        let state = Store::open(&self.simulator)?.state()?;
        let of_gpu = (0..).zip(&state.gpus);
        let instances = of_gpu.flat_map(|(gpu, state)| {
            state.gpu_instances.iter().map(move |instance| ((gpu, instance.id), instance.profile_id))
        });
        Ok(instances.collect())
    }

    /// The part of a GPU that a pod's container sees, read from its own `/dev`.
    pub(crate) async fn seen_by(&self, pod: &Pod) -> Result<Seen> {
        let pid = self.cluster.container_pid("default", pods::name(pod), "main").await?;
        seen_in(Path::new(&format!("/proc/{pid}/root/dev")))
            .with_context(|| format!("in the container of {}", pods::name(pod)))
    }
}

/// A pod for this node.
pub(crate) fn spec(by: By, resource: &str) -> Value {
    let mut spec = pods::spec(by, resource, 1);
    spec["nodeSelector"] = json!({"kubernetes.io/hostname": NODE});
    spec
}

fn cap(gpu: u32, instance: u32) -> u32 {
    FIRST_CAP + gpu * CAPS_PER_GPU + 2 * instance
}

/// As the driver's `mig-minors`.
fn write_minors(procfs: &Path, gpus: u32) -> Result<()> {
    let mut minors = String::from("config 1\nmonitor 2\n");
    for (gpu, id) in (0..gpus).flat_map(|gpu| (0..INSTANCES).map(move |id| (gpu, id))) {
        let cap = cap(gpu, id);
        minors += &format!("gpu{gpu}/gi{id}/access {cap}\ngpu{gpu}/gi{id}/ci0/access {}\n", cap + 1);
    }
    for (path, text) in
        [("driver/nvidia-caps/mig-minors", minors.as_str()), ("sys/kernel/random/boot_id", "this boot\n")]
    {
        let path = procfs.join(path);
        fs::create_dir_all(path.parent().context("a file without a folder")?)?;
        fs::write(path, text)?;
    }
    Ok(())
}

fn make_nodes(written: &Written, gpus: u32) -> Result<()> {
    let dev = written.driver_root.join("dev");
    fs::create_dir_all(dev.join("nvidia-caps"))?;
    let make = |name: String, major: u32, minor: u32| {
        let mode = Mode::from_raw_mode(0o666);
        mknodat(CWD, dev.join(&name), FileType::CharacterDevice, mode, makedev(major, minor))
            .with_context(|| format!("cannot make the device node {name}"))
    };
    make("nvidiactl".to_owned(), GPU_MAJOR, CONTROL_MINOR)?;
    for gpu in 0..gpus {
        make(format!("nvidia{gpu}"), GPU_MAJOR, gpu)?;
        for minor in (0..INSTANCES).flat_map(|id| [cap(gpu, id), cap(gpu, id) + 1]) {
            make(format!("nvidia-caps/nvidia-cap{minor}"), CAPS_MAJOR, minor)?;
        }
    }
    Ok(())
}

/// The NVIDIA device nodes of a `/dev`: what they are called, and their numbers.
fn nodes_in(folder: &Path, prefix: &str) -> Result<Vec<(u32, u32, u32)>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).with_context(|| format!("cannot read {}", folder.display()))? {
        let entry = entry?;
        let name = entry.file_name().to_string_lossy().into_owned();
        let Some(number) = name.strip_prefix(prefix).and_then(|rest| rest.parse().ok()) else { continue };
        let file = entry.metadata()?;
        ensure!(file.file_type().is_char_device(), "{name} is no device node");
        found.push((number, rustix::fs::major(file.rdev()), rustix::fs::minor(file.rdev())));
    }
    Ok(found)
}

fn seen_in(dev: &Path) -> Result<Seen> {
    ensure!(dev.join("nvidiactl").exists(), "there is no nvidiactl");
    let [(gpu, major, minor)] = nodes_in(dev, "nvidia")?[..] else {
        bail!("it has not one GPU but {:?}", nodes_in(dev, "nvidia")?);
    };
    ensure!((major, minor) == (GPU_MAJOR, gpu), "nvidia{gpu} is {major}:{minor}");
    let caps = dev.join("nvidia-caps");
    if !caps.exists() {
        return Ok(Seen { gpu, instance: None });
    }
    let mut numbers = BTreeSet::new();
    for (number, major, minor) in nodes_in(&caps, "nvidia-cap")? {
        ensure!((major, minor) == (CAPS_MAJOR, number), "nvidia-cap{number} is {major}:{minor}");
        numbers.insert(number);
    }
    let first = numbers.first().copied().unwrap_or_default();
    let instance = first.saturating_sub(cap(gpu, 0)) / 2;
    let expected = BTreeSet::from([cap(gpu, instance), cap(gpu, instance) + 1]);
    ensure!(numbers == expected, "GPU {gpu}, and capabilities {numbers:?} of no instance of it");
    Ok(Seen { gpu, instance: Some(instance) })
}
