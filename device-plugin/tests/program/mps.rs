//! GPUs shared by MPS: daemons, what clients are told, and what happens when a daemon ends.

use std::path::{Path, PathBuf};

use rustix::process::{Pid, Signal, kill_process};
use tokio::process::Command;

use stowage_stand_ins::kubelet::AdmittedContainer;

use crate::harness::*;

const SHARES: &str =
    "sharing: {mps: {renameByDefault: true, resources: [{name: nvidia.com/gpu, replicas: 4}]}}";

/// A node with the stand-in of `nvidia-cuda-mps-control` in its `PATH`; its daemons end with it.
struct MpsNode(Node);

impl MpsNode {
    async fn new() -> Self {
        let node = Node::new(vec![a100(), a100()]).await;
        let fixture =
            Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/program/fixtures/nvidia-cuda-mps-control");
        std::fs::create_dir(node.path("bin")).unwrap();
        std::fs::copy(fixture, node.path("bin/nvidia-cuda-mps-control")).unwrap();
        Self(node)
    }

    fn start(&self, file: &str) -> Plugin {
        let file = self.0.write("config.yaml", file);
        self.0.start(|command| {
            self.environment(command);
            command.args(["--config-file", &file, "--nvml-period=200ms"]);
        })
    }

    fn environment(&self, command: &mut Command) {
        let path = format!("{}:/usr/bin:/bin", self.0.path("bin").display());
        command.env("PATH", path).env("MPS_ROOT", "/run/nvidia/mps").env("MPS_CTR_PATH", self.0.path("mps"));
    }

    fn folder(&self) -> PathBuf {
        self.0.path("mps").join(SHARED)
    }

    fn daemon(&self) -> Option<Pid> {
        let text = std::fs::read_to_string(self.folder().join("pipe/daemon.pid")).ok()?;
        Pid::from_raw(text.trim().parse().ok()?)
    }

    fn told(&self) -> Vec<String> {
        let text = std::fs::read_to_string(self.folder().join("log/told")).unwrap_or_default();
        text.lines().map(str::to_owned).collect()
    }

    fn compute_modes(&self) -> Vec<u32> {
        self.0.driver(|driver| (0..2).map(|gpu| driver.compute_mode(gpu)).collect())
    }
}

impl Drop for MpsNode {
    fn drop(&mut self) {
        if let Some(pid) = self.daemon() {
            let _ = kill_process(pid, Signal::KILL);
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_daemon_is_started_and_its_clients_are_told_where_it_is() {
    let node = MpsNode::new().await;
    let mut plugin = node.start(SHARES);
    plugin.until_ready().await;
    node.0.until_allocatable(SHARED, 8).await;
    let limit = |gpu: u32| format!("set_default_device_pinned_mem_limit {gpu} 10240M");
    assert_eq!(node.told(), [limit(0), limit(1), "set_default_active_thread_percentage 25".to_owned()]);
    assert_eq!(node.compute_modes(), [3, 3], "EXCLUSIVE_PROCESS");
    assert!(node.folder().join(".started").exists());
    eventually("others are told too", || async { node.0.path("mps/.ready").exists() }).await;

    // As NVIDIA's plugin answers, field by field: its internal/plugin/mps.go.
    let container = node.0.run_pod("p", SHARED, 1, |_| None).await.unwrap();
    assert_eq!(container.response.envs["CUDA_MPS_PIPE_DIRECTORY"], "/mps/nvidia.com/gpu.shared/pipe");
    let mounts: Vec<(&str, &str, bool)> = container
        .response
        .mounts
        .iter()
        .map(|mount| (&*mount.host_path, &*mount.container_path, mount.read_only))
        .collect();
    let pipe = "/run/nvidia/mps/nvidia.com/gpu.shared/pipe";
    assert_eq!(
        mounts,
        [(pipe, "/mps/nvidia.com/gpu.shared/pipe", false), ("/run/nvidia/mps/shm", "/dev/shm", false)]
    );
    plugin
        .until_counted(r#"stowage_device_plugin_mps_daemon_up{resource_name="nvidia.com/gpu.shared"} 1"#)
        .await;
    let two = node.0.run_pod("two", SHARED, 2, |_| None).await.unwrap_err().to_string();
    assert!(two.contains("maximum request size for shared resources is 1"), "{two}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn shares_of_different_sizes_have_limits_of_their_own() {
    let node = MpsNode::new().await;
    let mut plugin = node.start(&SHARES.replace("mps: {", "mps: {sizedShares: true, "));
    plugin.until_ready().await;
    node.0.until_allocatable(SHARED, 8).await;
    assert_eq!(node.told(), ["set_default_active_thread_percentage 100"], "the daemon holds nobody");
    node.0.gpu_node().await;
    let gpu = node.0.gpus().await.remove(1);
    let plan = |uid: &str| sized_plan(uid, NODE, SHARED, &[&gpu], Some(3072));
    let container = node.0.run_pod("small", SHARED, 1, plan).await.unwrap();
    let limits = |container: &AdmittedContainer| {
        ["CUDA_MPS_PINNED_DEVICE_MEM_LIMIT", "CUDA_MPS_ACTIVE_THREAD_PERCENTAGE"]
            .map(|name| container.response.envs.get(name).cloned().unwrap_or_default())
    };
    assert_eq!(limits(&container), ["0=3072M", "8"]);
    let container = node.0.run_pod("silent", SHARED, 1, |_| None).await.unwrap();
    assert_eq!(limits(&container), ["0=10240M", "25"], "an equal part");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_daemon_that_ends_makes_its_shares_unhealthy_and_is_started_again() {
    let node = MpsNode::new().await;
    let mut plugin = node.start(SHARES);
    plugin.until_ready().await;
    node.0.until_allocatable(SHARED, 8).await;
    node.0.write("bin/broken", "");
    kill_process(node.daemon().unwrap(), Signal::KILL).unwrap();
    node.0.until_allocatable(SHARED, 0).await;
    plugin.until_not_ready("the MPS control daemon of nvidia.com/gpu.shared is down").await;
    node.0.until_event("MpsDaemonDown", "Cannot find MPS control daemon process").await;
    eventually("it is told that not all run", || async { !node.0.path("mps/.ready").exists() }).await;
    std::fs::remove_file(node.0.path("bin/broken")).unwrap();
    node.0.until_allocatable(SHARED, 8).await;
    node.0.until_event("MpsDaemonUp", "runs again").await;
    assert_eq!(node.told().len(), 6, "the new one was told its limits");
    plugin
        .until_counted(
            r#"stowage_device_plugin_mps_daemon_starts_total{resource_name="nvidia.com/gpu.shared"} 2"#,
        )
        .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_restart_leaves_the_daemon_and_its_clients_alone() {
    let node = MpsNode::new().await;
    let mut plugin = node.start(SHARES);
    plugin.until_ready().await;
    let daemon = node.daemon().unwrap();
    assert_eq!(plugin.terminate().await.0, Some(0));
    let mut plugin = node.start(SHARES);
    plugin.until_ready().await;
    assert_eq!(node.daemon(), Some(daemon));
    node.0.until_allocatable(SHARED, 8).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_no_longer_shared_by_mps_is_given_back() {
    let node = MpsNode::new().await;
    let mut plugin = node.start(SHARES);
    plugin.until_ready().await;
    assert_eq!(plugin.terminate().await.0, Some(0));
    let mut plugin = node.start("sharing: {}");
    plugin.until_said("MPS control daemon stopped.").await;
    plugin.until_ready().await;
    assert_eq!(node.daemon(), None);
    assert_eq!(node.compute_modes(), [0, 0], "DEFAULT");
    node.0.until_allocatable(GPU, 2).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_the_drivers_program_the_log_says_what_is_missing() {
    let node = MpsNode::new().await;
    std::fs::remove_file(node.0.path("bin/nvidia-cuda-mps-control")).unwrap();
    let mut plugin = node.start(SHARES);
    let log = plugin.until_said("The MPS control daemon is down.").await;
    assert!(log.contains("cannot run nvidia-cuda-mps-control, which comes with the driver"), "{log}");
    plugin.until_not_ready("NVIDIA_DRIVER_CAPABILITIES").await;
    eventually("the kubelet knows that there is none to be had", || async {
        node.0.allocatable().get(SHARED) == Some(&0)
    })
    .await;
}
