//! A kubelet in a folder of its own, and short ways to say what a test wants of it.

use std::path::Path;
use std::time::Duration;

use kubelet_api::device_plugin::{Device, DevicePluginOptions, HEALTHY, NumaNode, TopologyInfo, UNHEALTHY};
use kubelet_api::pod_resources::pod_resources_lister_client::PodResourcesListerClient;
use stowage_stand_ins::kubelet::{
    Admitted, Container, ContainerKind, Kubelet, KubeletOptions, PodToAdmit, ResourceCounts,
};
use tempfile::TempDir;
use tokio::sync::watch;
use tokio::time::timeout;
use tonic::transport::Channel;

use crate::fake_plugin::{Answers, FakePlugin};

pub(crate) const GPU: &str = "nvidia.com/gpu";

/// Nothing here takes this long, unless it never comes.
const DEADLINE: Duration = Duration::from_secs(20);

pub(crate) struct Node {
    pub(crate) kubelet: Kubelet,
    root: TempDir,
}

impl Node {
    pub(crate) async fn new() -> Self {
        Self::with(|_| ()).await
    }

    pub(crate) async fn with(change: impl FnOnce(&mut KubeletOptions)) -> Self {
        let root = tempfile::tempdir().unwrap();
        let mut options = KubeletOptions::new("gpu-node-1", root.path());
        change(&mut options);
        Self { kubelet: Kubelet::start(options).await.unwrap(), root }
    }

    pub(crate) fn plugins(&self) -> std::path::PathBuf {
        self.root.path().join("device-plugins")
    }

    /// A registered plugin whose healthy devices are `gpu-0`, `gpu-1` and so on, and have been seen.
    pub(crate) async fn plugin(&self, devices: usize, answers: Answers) -> FakePlugin {
        let list = gpus(0..devices);
        let plugin = FakePlugin::start(&self.plugins(), "gpu.sock", GPU, list, answers).await;
        self.told(GPU, devices as u64, devices as u64).await;
        plugin
    }

    /// Waits until the kubelet tells these counts.
    #[track_caller]
    pub(crate) fn told(&self, resource: &str, capacity: u64, allocatable: u64) -> impl Future<Output = ()> {
        let mut told = self.kubelet.watch_allocatable();
        let expected = ResourceCounts { capacity, allocatable };
        async move {
            let wait = told.wait_for(|told| told.get(resource) == Some(&expected));
            let seen = timeout(DEADLINE, wait).await.is_ok();
            assert!(seen, "wanted {resource} {expected:?}, told {:?}", told.borrow());
        }
    }

    pub(crate) async fn pod_resources(&self) -> PodResourcesListerClient<Channel> {
        let endpoint = kubelet_api::endpoint(self.kubelet.pod_resources_socket()).unwrap();
        kubelet_api::pod_resources::client(endpoint.connect().await.unwrap())
    }

    pub(crate) async fn admit(&self, pod: &PodToAdmit) -> Result<Admitted, String> {
        self.kubelet.admit(pod.clone()).await.map_err(|error| error.to_string())
    }
}

/// Waits until `watched` has this value.
pub(crate) async fn becomes<T: PartialEq + std::fmt::Debug>(watched: &watch::Receiver<T>, value: T) {
    let mut watched = watched.clone();
    let seen = timeout(DEADLINE, watched.wait_for(|now| *now == value)).await.is_ok();
    assert!(seen, "wanted {value:?}, is {:?}", watched.borrow());
}

pub(crate) fn gpus(numbers: impl IntoIterator<Item = usize>) -> Vec<Device> {
    numbers.into_iter().map(|number| gpu(number, HEALTHY)).collect()
}

pub(crate) fn sick_gpu(number: usize) -> Device {
    gpu(number, UNHEALTHY)
}

pub(crate) fn gpu_near(number: usize, nodes: &[i64]) -> Device {
    let nodes = nodes.iter().map(|id| NumaNode { id: *id }).collect();
    Device { topology: Some(TopologyInfo { nodes }), ..gpu(number, HEALTHY) }
}

fn gpu(number: usize, health: &str) -> Device {
    Device { id: format!("gpu-{number}"), health: health.to_owned(), topology: None }
}

pub(crate) fn prefers(ids: &[&str]) -> Answers {
    Answers {
        options: DevicePluginOptions { get_preferred_allocation_available: true, ..Default::default() },
        preferred: ids.iter().map(|id| (*id).to_owned()).collect(),
        ..Answers::default()
    }
}

/// A pod of one app container, `main`.
pub(crate) fn pod(name: &str, gpus: u64) -> PodToAdmit {
    pod_of(name, &[("main", ContainerKind::App, gpus)])
}

pub(crate) fn pod_of(name: &str, containers: &[(&str, ContainerKind, u64)]) -> PodToAdmit {
    PodToAdmit {
        namespace: "default".to_owned(),
        name: name.to_owned(),
        uid: format!("uid-of-{name}"),
        containers: containers
            .iter()
            .map(|(name, kind, gpus)| Container {
                name: (*name).to_owned(),
                kind: *kind,
                devices: [(GPU.to_owned(), *gpus)].into(),
            })
            .collect(),
    }
}

/// The ids each container got, in the order of admission.
pub(crate) fn devices(admitted: &Admitted) -> Vec<Vec<&str>> {
    admitted
        .containers
        .iter()
        .map(|container| container.devices.values().flatten().map(String::as_str).collect())
        .collect()
}

pub(crate) fn is_socket(path: &Path) -> bool {
    use std::os::unix::fs::FileTypeExt;
    std::fs::metadata(path).is_ok_and(|metadata| metadata.file_type().is_socket())
}
