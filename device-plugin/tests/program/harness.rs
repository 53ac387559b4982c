//! A node: stand-ins for the API server and the kubelet, a described NVML, and the program as a process.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::Stdio;
use std::time::Duration;

use nvml_simulator::description::{Description, GpuDescription};
use nvml_simulator::state::{Node as Driver, Refusal};
use nvml_simulator::store::Store;
use rustix::process::{Pid, Signal, kill_process};
use serde_json::json;
use stowage_shared::contract::PLAN_ANNOTATION;
use stowage_shared::gpu_node::GpuNodeStatus;
use stowage_shared::plan::{Plan, PlannedDevice};
use stowage_shared::units::MemoryMib;
use stowage_stand_ins::api_server::resources::{GPU_NODES, NEW_EVENTS, NODES, PODS};
use stowage_stand_ins::api_server::{ApiServer, DeleteOptions, ListOptions, Options};
use stowage_stand_ins::kubelet::{
    AdmissionError, AdmittedContainer, Container, ContainerKind, Kubelet, KubeletOptions, PodToAdmit,
};
use tempfile::TempDir;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpStream;
use tokio::process::{Child, Command};
use tokio::sync::watch;
use tokio::task::JoinHandle;

/// How long anything may take before a test gives up on it.
pub const DEADLINE: Duration = Duration::from_secs(30);
/// The node's name.
pub const NODE: &str = "n1";
pub const GPU: &str = "nvidia.com/gpu";
pub const SHARED: &str = "nvidia.com/gpu.shared";
pub const SLICE: &str = "nvidia.com/mig-1g.5gb";

/// A node with GPUs, and a cluster of that node alone.
pub struct Node {
    pub api: ApiServer,
    pub kubelet: Kubelet,
    folder: TempDir,
}

/// An A100 of 40 GB.
pub fn a100() -> GpuDescription {
    GpuDescription::new("a100-40gb")
}

impl Node {
    /// A node whose driver finds these GPUs. The plugin is not started yet.
    pub async fn new(gpus: Vec<GpuDescription>) -> Self {
        Self::described(Description::new(gpus)).await
    }

    /// The same, with all that can be said of the node's hardware.
    pub async fn described(description: Description) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let api = ApiServer::start(Options::default()).await.unwrap();
        let node = json!({ "apiVersion": "v1", "kind": "Node", "metadata": { "name": NODE } });
        api.store().create(&NODES, "", node).unwrap();
        let kubelet = Kubelet::start(KubeletOptions::new(NODE, folder.path().join("kubelet"))).await.unwrap();
        let node = Self { api, kubelet, folder };
        description.named(NODE).write(&node.path("node.yaml")).unwrap();
        node.write("kubeconfig", &node.api.kubeconfig(None));
        let library = nvml_simulator::library_near(&std::env::current_exe().unwrap());
        std::fs::create_dir_all(node.path("driver/usr/lib64")).unwrap();
        std::os::unix::fs::symlink(
            library.expect("cargo builds it first"),
            node.path("driver/usr/lib64/libnvidia-ml.so.1"),
        )
        .unwrap();
        node
    }

    /// A path in the node's folder.
    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Writes a file in the node's folder, and the folders above it; its path.
    pub fn write(&self, name: &str, text: &str) -> String {
        let path = self.path(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(&path, text).unwrap();
        path.display().to_string()
    }

    /// Starts the plugin. All that it must know of the node is in its environment, so that a flag can say otherwise.
    pub fn start(&self, change: impl FnOnce(&mut Command)) -> Plugin {
        let mut command = Command::new(env!("CARGO_BIN_EXE_stowage-device-plugin"));
        command
            .env_clear()
            .env("NODE_NAME", NODE)
            .env("KUBECONFIG", self.path("kubeconfig"))
            .env(nvml_simulator::CONFIG_ENV, self.path("node.yaml"))
            .env("DRIVER_ROOT_CTR_PATH", self.path("driver"))
            .env("NVIDIA_DEV_ROOT", self.path("driver"))
            .env("SYSFS_ROOT", self.path("sys"))
            .env("PROCFS_ROOT", self.path("proc"))
            .env("KUBELET_SOCKET", self.kubelet.registration_socket())
            .env("POD_RESOURCES_SOCKET", self.kubelet.pod_resources_socket())
            .env("HTTP_ADDRESS", "127.0.0.1:0")
            .env("LOG_FORMAT", "text");
        change(&mut command);
        Plugin::spawn(command)
    }

    /// Starts the plugin with these flags and waits until it is ready and its GpuNode is written.
    pub async fn ready(&self, flags: &[&str]) -> Plugin {
        let mut plugin = self.start(|command| _ = command.args(flags));
        plugin.until_ready().await;
        self.gpu_node().await;
        plugin
    }

    /// The same, with NVIDIA's configuration file.
    pub async fn ready_with_file(&self, file: &str) -> Plugin {
        let file = self.write("config.yaml", file);
        self.ready(&["--config-file", &file]).await
    }

    /// How many devices of each resource the kubelet may hand out.
    pub fn allocatable(&self) -> BTreeMap<String, u64> {
        self.kubelet.allocatable().into_iter().map(|(name, counts)| (name, counts.allocatable)).collect()
    }

    /// Waits until the kubelet may hand out so many.
    pub async fn until_allocatable(&self, resource: &str, count: u64) {
        let mut told = self.kubelet.watch_allocatable();
        let right = told.wait_for(|told| told.get(resource).map_or(0, |counts| counts.allocatable) == count);
        let came = tokio::time::timeout(DEADLINE, right).await.is_ok_and(|told| told.is_ok());
        assert!(came, "{resource} is not {count}: {:?}", self.allocatable());
    }

    /// What the plugin published, once it has.
    pub async fn gpu_node(&self) -> GpuNodeStatus {
        eventually("the GpuNode is written", || async { self.published().is_some() }).await;
        self.published().unwrap()
    }

    /// What the plugin published, if it has.
    pub fn published(&self) -> Option<GpuNodeStatus> {
        let object = self.api.store().get(&GPU_NODES, "", NODE).ok()?;
        object.get("status").map(|status| serde_json::from_value(status.clone()).unwrap())
    }

    /// The UUIDs of the GPUs, by index.
    pub async fn gpus(&self) -> Vec<String> {
        self.gpu_node().await.gpus.into_iter().map(|gpu| gpu.uuid).collect()
    }

    /// Changes what the driver sees, behind the plugin's back.
    pub fn driver<T>(&self, change: impl FnOnce(&mut Driver<'_>) -> Result<T, Refusal>) -> T {
        Store::open(&self.path("node.yaml")).unwrap().update(change).unwrap()
    }

    /// Waits for an Event about the Node with this reason and text.
    pub async fn until_event(&self, reason: &str, text: &str) {
        eventually(&format!("an Event {reason}: {text}"), || async {
            let events = self.api.store().list(&NEW_EVENTS, &ListOptions::default()).unwrap();
            events.items.iter().any(|event| {
                let told = event["note"].as_str().is_some_and(|note| note.contains(text));
                told && event["reason"] == reason && event["regarding"]["name"] == NODE
            })
        })
        .await;
    }

    /// The sockets in the kubelet's folder that are the plugin's.
    pub fn sockets(&self) -> Vec<PathBuf> {
        let folder = self.kubelet.registration_socket().parent().unwrap().to_owned();
        let entries = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
        let sockets = entries.filter(|path| path.extension().is_some_and(|extension| extension == "sock"));
        sockets.filter(|path| !path.ends_with("kubelet.sock")).collect()
    }

    /// Makes a pod, binds it to the node with the plan that `plan` makes of its UID, and has the kubelet admit it.
    pub async fn run_pod(
        &self,
        name: &str,
        resource: &str,
        count: u32,
        plan: impl FnOnce(&str) -> Option<Plan>,
    ) -> Result<AdmittedContainer, AdmissionError> {
        let pod = json!({
            "apiVersion": "v1", "kind": "Pod", "metadata": { "name": name, "namespace": "default" },
            "spec": { "schedulerName": "stowage-scheduler", "containers": [{
                "name": "main", "image": "x", "resources": {
                    "limits": { resource: count.to_string() }, "requests": { resource: count.to_string() } } }] },
        });
        let uid = self.api.store().create(&PODS, "default", pod).unwrap().uid().to_owned();
        let annotations = plan(&uid)
            .map_or_else(|| json!({}), |plan| json!({ PLAN_ANNOTATION: plan.to_annotation().unwrap() }));
        let binding = json!({
            "metadata": { "name": name, "annotations": annotations }, "target": { "kind": "Node", "name": NODE },
        });
        self.api.store().bind("default", name, &binding).unwrap();
        let devices = [(resource.to_owned(), u64::from(count))].into();
        let container = Container { name: "main".into(), kind: ContainerKind::App, devices };
        let pod =
            PodToAdmit { namespace: "default".into(), name: name.into(), uid, containers: vec![container] };
        let admitted = tokio::time::timeout(DEADLINE, self.kubelet.admit(pod)).await.expect("an answer");
        Ok(admitted?.containers.remove(0))
    }

    /// Deletes a pod, whose containers have ended.
    pub fn remove_pod(&self, name: &str) {
        let now = DeleteOptions { grace_period_seconds: Some(0), ..DeleteOptions::default() };
        self.api.store().delete(&PODS, "default", name, &now).unwrap();
        assert!(self.kubelet.remove_pod("default", name));
    }

    /// What `NVIDIA_VISIBLE_DEVICES` says in a new pod that nobody planned.
    pub async fn visible_in(&self, name: &str, resource: &str, count: u32) -> Vec<String> {
        visible(&self.run_pod(name, resource, count, |_| None).await.unwrap())
    }
}

/// What `NVIDIA_VISIBLE_DEVICES` says.
pub fn visible(container: &AdmittedContainer) -> Vec<String> {
    container.response.envs["NVIDIA_VISIBLE_DEVICES"].split(',').map(str::to_owned).collect()
}

/// A plan of whole GPUs, or of their shares, for the pod of that UID.
pub fn plan(uid: &str, node: &str, resource: &str, gpus: &[&str]) -> Option<Plan> {
    sized_plan(uid, node, resource, gpus, None)
}

/// The same for shares of a size, in MiB.
pub fn sized_plan(uid: &str, node: &str, resource: &str, gpus: &[&str], mib: Option<u64>) -> Option<Plan> {
    let memory = mib.map(MemoryMib);
    let devices = gpus.iter().map(|gpu| PlannedDevice { gpu: gpu.parse().unwrap(), slice: None, memory });
    let container = [(resource.parse().unwrap(), devices.collect())].into();
    Some(Plan { uid: uid.into(), node: node.into(), containers: [("main".into(), container)].into() })
}

/// A plugin's process; killed when it is dropped.
#[must_use]
pub struct Plugin {
    child: Child,
    log: watch::Receiver<String>,
    reading: JoinHandle<()>,
}

impl Plugin {
    fn spawn(mut command: Command) -> Self {
        let mut child = command.stderr(Stdio::piped()).kill_on_drop(true).spawn().unwrap();
        let (tell, log) = watch::channel(String::new());
        let mut lines = BufReader::new(child.stderr.take().unwrap()).lines();
        let reading = tokio::spawn(async move {
            while let Ok(Some(line)) = lines.next_line().await {
                tell.send_modify(|log| *log += &format!("{line}\n"));
            }
        });
        Self { child, log, reading }
    }

    /// What it has said so far.
    pub fn log(&self) -> String {
        self.log.borrow().clone()
    }

    /// Waits until a text is in its log; the log.
    pub async fn until_said(&mut self, text: &str) -> String {
        let waiting = tokio::time::timeout(DEADLINE, self.log.wait_for(|log| log.contains(text)));
        let found = waiting.await.is_ok_and(|log| log.is_ok());
        let log = self.log();
        assert!(found, "{text:?} did not come:\n{log}");
        log
    }

    /// The status and body of an answer of its HTTP port.
    pub async fn get(&mut self, path: &str) -> (u16, String) {
        let log = self.until_said("http_address=").await;
        let (_, address) = log.split_once("http_address=").unwrap();
        get(address.split_whitespace().next().unwrap().parse().unwrap(), path).await
    }

    /// Waits until it is ready.
    pub async fn until_ready(&mut self) {
        let mut last = String::new();
        let asking = async {
            loop {
                match self.get("/readyz").await {
                    (200, _) => return,
                    (_, why) => last = why,
                }
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        let came = tokio::time::timeout(DEADLINE, asking).await.is_ok();
        assert!(came, "it is not ready: {last}\n{}", self.log());
    }

    /// Waits until it is not ready, for a reason that has this text.
    pub async fn until_not_ready(&mut self, text: &str) {
        let mut last = String::new();
        let asking = async {
            while !last.contains(text) {
                if let (503, why) = self.get("/readyz").await {
                    last = why;
                }
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        let came = tokio::time::timeout(DEADLINE, asking).await.is_ok();
        assert!(came, "wanted: {text}\n   got: {last}");
    }

    /// Waits until this line is among its metrics.
    pub async fn until_counted(&mut self, line: &str) {
        let mut last = String::new();
        let asking = async {
            while !last.lines().any(|counted| counted == line) {
                last = self.get("/metrics").await.1;
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        let came = tokio::time::timeout(DEADLINE, asking).await.is_ok();
        assert!(came, "{line} is not in\n{last}");
    }

    /// Waits for its end; its exit code and all that it said.
    pub async fn ended(mut self) -> (Option<i32>, String) {
        let waiting = tokio::time::timeout(DEADLINE, self.child.wait()).await;
        let Ok(status) = waiting else { panic!("it does not end:\n{}", self.log()) };
        self.reading.await.unwrap();
        (status.unwrap().code(), self.log.borrow().clone())
    }

    /// Asks it to end; its exit code and all that it said.
    pub async fn terminate(self) -> (Option<i32>, String) {
        let pid = Pid::from_raw(self.child.id().unwrap().try_into().unwrap()).unwrap();
        kill_process(pid, Signal::TERM).unwrap();
        self.ended().await
    }

    /// Kills it without warning.
    pub async fn kill(mut self) {
        self.child.kill().await.unwrap();
    }
}

/// Makes one HTTP request.
async fn get(address: SocketAddr, path: &str) -> (u16, String) {
    let talk = async {
        let mut stream = TcpStream::connect(address).await.unwrap();
        let head = format!("GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
        stream.write_all(head.as_bytes()).await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        answer
    };
    let answer = tokio::time::timeout(DEADLINE, talk).await.expect("an answer");
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    (head.split(' ').nth(1).unwrap().parse().unwrap(), body.to_owned())
}

/// Asks again until it is so.
pub async fn eventually<F: Future<Output = bool>>(what: &str, mut ask: impl FnMut() -> F) {
    let asking = async {
        while !ask().await {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    assert!(tokio::time::timeout(DEADLINE, asking).await.is_ok(), "{what}: that did not happen");
}

/// A GpuNode without what changes by itself: the time of its writing, and how busy the GPUs are.
pub fn but_for_the_time(status: &GpuNodeStatus) -> GpuNodeStatus {
    let mut status = GpuNodeStatus { observed_at: String::new(), ..status.clone() };
    status.gpus.iter_mut().for_each(|gpu| gpu.utilization = None);
    status
}
