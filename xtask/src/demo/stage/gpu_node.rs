//! One GPU node: a kubelet stand-in, and the real plugin against the simulated NVML.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, anyhow};
use serde_json::Value;
use stowage_shared::device_id::DeviceId;
use stowage_shared::gpu::{Gpu, locate};
use stowage_shared::gpu_node::{AllocationStatus, GpuNodeStatus};
use stowage_shared::models::Model;
use stowage_stand_ins::api_server::resources::{GPU_NODES, NODES};
use stowage_stand_ins::api_server::{Part, Store};
use stowage_stand_ins::kubelet::{
    Container, ContainerKind, DeviceChoice, Kubelet, KubeletOptions, PodToAdmit,
};

use super::super::split::{GPUS_PER_NODE, NodeSetup};
use super::objects::{CONTAINER, NAMESPACE};
use super::process::Process;
use super::programs::Programs;
use super::wait::wait_for;

/// Where the plugin looks for the library, below what it takes for the driver's root.
const LIBRARY_FOLDER: &str = "usr/lib64";
const LIBRARY: &str = "libnvidia-ml.so.1";

/// A node with GPUs.
pub struct GpuNode {
    /// Its name.
    pub name: String,
    kubelet: Kubelet,
    plugin: Process,
    gpus: Vec<Gpu>,
}

/// What a node is started with.
pub struct GpuNodeOptions<'a> {
    /// Its name.
    pub name: &'a str,
    /// Its GPUs' model.
    pub model: &'a str,
    /// How an admin set it up.
    pub setup: &'a NodeSetup,
    /// A folder of its own, short enough for socket paths.
    pub folder: PathBuf,
    /// How to reach the API server.
    pub kubeconfig: &'a Path,
    /// Who chooses among a node's free devices.
    pub device_choice: DeviceChoice,
    /// Where the kubelet has no order of its own.
    pub seed: u64,
}

impl GpuNode {
    /// Starts a node whose Node object is there already, and waits until that says what the node has.
    pub async fn start(options: GpuNodeOptions<'_>, programs: &Programs, store: &Store) -> Result<Self> {
        let GpuNodeOptions { name, model, setup, folder, kubeconfig, device_choice, seed } = options;
        let kubelet_folder = folder.join("kubelet");
        let kubelet_options =
            KubeletOptions { device_choice, seed, ..KubeletOptions::new(name, &kubelet_folder) };
        let kubelet = Kubelet::start(kubelet_options).await.context("cannot start a kubelet stand-in")?;

        let description = folder.join("node.yaml");
        setup.describe(name, model).write(&description)?;
        let config = folder.join("plugin.yaml");
        std::fs::write(&config, setup.plugin_config()).context("cannot write the plugin's configuration")?;
        let driver = folder.join("driver");
        std::fs::create_dir_all(driver.join(LIBRARY_FOLDER)).context("cannot make the driver's folder")?;
        std::os::unix::fs::symlink(&programs.nvml, driver.join(LIBRARY_FOLDER).join(LIBRARY))
            .context("cannot link the simulated NVML")?;

        let mut plugin = Process::start(
            &format!("the device plugin of {name}"),
            &programs.plugin,
            folder.join("plugin.log"),
            |command| {
                command.env_clear();
                command.env("KUBECONFIG", kubeconfig).env(nvml_simulator::CONFIG_ENV, &description);
                command.arg(format!("--node-name={name}"));
                command.arg(format!("--config-file={}", config.display()));
                command.arg(format!("--driver-root-ctr-path={}", driver.display()));
                command.arg(format!("--kubelet-socket={}", kubelet.registration_socket().display()));
                command.arg(format!("--pod-resources-socket={}", kubelet.pod_resources_socket().display()));
                command.args(["--http-address=127.0.0.1:0", "--log-format=text"]);
            },
        )?;

        let can_be_cut = Model::by_key(model).and_then(Model::geometry).is_some();
        let wanted =
            if setup.elastic { NodeSetup::elastic_allocatable(can_be_cut) } else { setup.allocatable() };
        let wanted: BTreeMap<String, u64> =
            wanted.into_iter().map(|(resource, count)| (resource.to_owned(), count.into())).collect();
        let told = || {
            let told = kubelet.allocatable();
            told.into_iter()
                .filter(|(_, c)| c.allocatable > 0)
                .map(|(r, c)| (r, c.allocatable))
                .collect::<BTreeMap<_, _>>()
        };
        let status = || published(store, name);
        wait_for(
            || {
                plugin.check()?;
                let told = told();
                let counts_all = wanted.iter().all(|(resource, count)| told.get(resource) == Some(count))
                    && (setup.elastic || told.len() == wanted.len());
                Ok(counts_all && status().is_some_and(|status| status.gpus.len() == GPUS_PER_NODE))
            },
            || {
                format!(
                    "{name}: the kubelet counts {:?} instead of {wanted:?}, or there is no GpuNode",
                    told()
                )
            },
        )
        .await?;
        let gpus =
            status().context("there is no GpuNode")?.inventory().context("the GpuNode cannot be true")?;

        let amounts = wanted.iter().map(|(resource, count)| (resource.clone(), count.to_string().into()));
        let amounts: serde_json::Map<String, Value> = amounts.collect();
        store.modify(&NODES, "", name, Part::Status, |node| {
            for key in ["allocatable", "capacity"] {
                let list = node["status"][key].as_object_mut();
                list.into_iter().for_each(|list| list.extend(amounts.clone()));
            }
        })?;
        Ok(Self { name: name.to_owned(), kubelet, plugin, gpus })
    }

    /// The kubelet's part for a new pod: admits it and starts its container.
    pub async fn admit(&self, pod: &Value) -> Result<()> {
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let limits = pod["spec"]["containers"][0]["resources"]["limits"].as_object();
        let devices = limits.into_iter().flatten().filter_map(|(name, count)| {
            Some((name.clone(), count.as_str()?.parse().ok()?)).filter(|_| name.contains('/'))
        });
        let container =
            Container { name: CONTAINER.to_owned(), kind: ContainerKind::App, devices: devices.collect() };
        let (namespace, name) = (text(&pod["metadata"]["namespace"]), text(&pod["metadata"]["name"]));
        let admit = PodToAdmit {
            namespace: namespace.clone(),
            name: name.clone(),
            uid: text(&pod["metadata"]["uid"]),
            containers: vec![container],
        };
        let refused = |why: String| format!("{} refused pod {name}: {why}", self.name);
        self.kubelet.admit(admit).await.map_err(|error| anyhow!(refused(error.to_string())))?;
        self.kubelet
            .start_container(&namespace, &name, CONTAINER)
            .await
            .map_err(|error| anyhow!(refused(error.to_string())))?;
        Ok(())
    }

    /// The kubelet's part for a pod that is gone.
    pub fn remove(&self, pod: &str) {
        self.kubelet.remove_pod(NAMESPACE, pod);
    }

    /// The node's GPUs, as the plugin published them last.
    pub fn gpus_now(&self, store: &Store) -> Result<Vec<Gpu>> {
        let status = published(store, &self.name).context("there is no GpuNode")?;
        status.inventory().context("the GpuNode cannot be true")
    }

    /// The UUIDs of the GPUs of which somebody holds a device.
    pub fn gpus_in_use(&self) -> BTreeSet<String> {
        let held = self.held();
        let gpus = held.iter().filter_map(|(_, _, resource, id)| {
            let id: DeviceId = id.parse().ok()?;
            if let Some((gpu, _)) = id.token_of() {
                return Some(gpu.to_owned());
            }
            let (gpu, _) = locate(&self.gpus, &resource.parse().ok()?, &id)?;
            Some(self.gpus[gpu].uuid.to_string())
        });
        gpus.collect()
    }

    /// Who holds what, as the kubelet tells: pod, container, resource, device id.
    fn held(&self) -> BTreeSet<(String, String, String, String)> {
        let mut held = BTreeSet::new();
        for pod in self.kubelet.pod_resources().pod_resources {
            for container in pod.containers {
                for devices in container.devices {
                    for id in devices.device_ids {
                        held.insert((
                            pod.name.clone(),
                            container.name.clone(),
                            devices.resource_name.clone(),
                            id,
                        ));
                    }
                }
            }
        }
        held
    }

    /// What the GpuNode says of who holds what.
    pub fn allocations(&self, store: &Store) -> Vec<AllocationStatus> {
        published(store, &self.name).map(|status| status.allocations).unwrap_or_default()
    }

    /// Whether the GpuNode says what the kubelet says, with every pod's UID.
    pub fn is_published(&self, store: &Store) -> bool {
        let allocations = self.allocations(store);
        let told: BTreeSet<_> = allocations
            .iter()
            .flat_map(|a| {
                let entry =
                    |id: &String| (a.pod.clone(), a.container.clone(), a.resource.to_string(), id.clone());
                a.device_ids.iter().map(entry)
            })
            .collect();
        allocations.iter().all(|allocation| !allocation.uid.is_empty()) && told == self.held()
    }

    /// An error if the plugin has ended.
    pub fn check(&mut self) -> Result<()> {
        self.plugin.check()
    }

    /// Ends the plugin and the kubelet.
    pub async fn end(self) {
        self.plugin.end().await;
    }
}

fn published(store: &Store, node: &str) -> Option<GpuNodeStatus> {
    let object = store.get(&GPU_NODES, "", node).ok()?;
    serde_json::from_value(object["status"].clone()).ok()
}
