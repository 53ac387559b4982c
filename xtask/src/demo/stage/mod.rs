//! The real stage: an API server, kubelets and a kube-scheduler as stand-ins in this process, the real
//! plugin on each GPU node and, for Stowage's way, the real extender, as processes of their own.
//!
//! The demo plays the kubelets' sync loops and the pods' garbage collection itself, one thing after
//! another, so that a seed gives the same day again: pods are deleted, then created, then scheduled, then
//! admitted. Within that order everything goes over the real sockets.

mod extender;
mod gpu_node;
mod nvidia_order;
pub mod objects;
mod process;
pub mod programs;
mod wait;

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};
use stowage_shared::audit::{Finding, NodeView, PodView, audit};
use stowage_shared::pod::{PodSpec, PodStatus};
use stowage_stand_ins::api_server::resources::{NODES, PODS};
use stowage_stand_ins::api_server::{
    ApiServer, DeleteOptions, ListOptions, Options, Part, Store, StoreOptions,
};
use stowage_stand_ins::kubelet::DeviceChoice;
use stowage_stand_ins::scheduler::{QueueOptions, Scheduler, SchedulerOptions};
use tempfile::TempDir;
use tokio::time::timeout;

use self::extender::Extender;
use self::gpu_node::{GpuNode, GpuNodeOptions};
use self::nvidia_order::nvidia_order;
use self::objects::NAMESPACE;
use self::programs::Programs;
use self::wait::{WAIT_MAX, wait_for};
use super::play::{Cluster, Seen, Way};
use super::replicas::Replica;
use super::split::{CPU_NODE, CPU_NODE_CPU_AND_MEMORY, GPU_NODE_CPU_AND_MEMORY, NODES as GPU_NODES, Split};

/// The configuration of the second kube-scheduler, as users deploy it.
const SCHEDULER_CONFIGURATION: &str = include_str!("../../../../deploy/scheduler/kube-scheduler-config.yaml");
/// kube-scheduler tries a parked pod again after 5 minutes at the latest: so often in a step of 15.
const RETRIES_PER_STEP: usize = 3;

/// Everything that a day is played on.
pub struct Stage {
    way: Way,
    store: Store,
    nodes: Vec<GpuNode>,
    extender: Option<Extender>,
    scheduler: Scheduler,
    findings: Vec<Finding>,
    _api_server: ApiServer,
    _folder: TempDir,
}

impl Stage {
    /// Starts everything and waits until it is ready.
    pub async fn start(programs: &Programs, split: &Split, way: Way, seed: u64) -> Result<Self> {
        // Short, since paths of Unix sockets may have 107 bytes only.
        let folder = tempfile::Builder::new().prefix("stowage-").tempdir().context("no temporary folder")?;
        let store_options = StoreOptions { seed, ..StoreOptions::default() };
        let api_server = ApiServer::start(Options { store_options, ..Options::default() }).await?;
        let store = api_server.store().clone();
        let kubeconfig = folder.path().join("kubeconfig");
        std::fs::write(&kubeconfig, api_server.kubeconfig(None)).context("cannot write a kubeconfig")?;

        for (name, _) in GPU_NODES {
            store.create(&NODES, "", objects::node(name, GPU_NODE_CPU_AND_MEMORY))?;
        }
        store.create(&NODES, "", objects::node(CPU_NODE, CPU_NODE_CPU_AND_MEMORY))?;
        let mut nodes = Vec::new();
        for (number, (setup, (name, model))) in (0_u64..).zip(split.0.iter().zip(GPU_NODES)) {
            let node_folder = folder.path().join(number.to_string());
            std::fs::create_dir_all(&node_folder).context("cannot make a node's folder")?;
            let device_choice = match way {
                Way::Whole | Way::Stock => nvidia_order(seed.wrapping_add(number)),
                Way::Stowage => DeviceChoice::AskPlugin,
            };
            let options = GpuNodeOptions {
                name,
                model,
                setup,
                folder: node_folder,
                kubeconfig: &kubeconfig,
                device_choice,
                seed: seed.wrapping_add(number),
            };
            nodes.push(GpuNode::start(options, programs, &store).await?);
        }
        let extender = match way {
            Way::Whole | Way::Stock => None,
            Way::Stowage => Some(Extender::start(programs, &kubeconfig, folder.path()).await?),
        };
        let options = scheduler_options(extender.as_ref(), seed)?;
        let scheduler = Scheduler::start(store.clone(), options);
        // From here on it hears of each pod when it comes. A list, which it begins with, is in another order.
        scheduler.idle().await?;
        Ok(Self {
            way,
            store,
            nodes,
            extender,
            scheduler,
            findings: Vec::new(),
            _api_server: api_server,
            _folder: folder,
        })
    }

    /// What the audit found so far, each once.
    pub fn findings(&self) -> &[Finding] {
        &self.findings
    }

    /// Ends every process and waits for it.
    pub async fn end(self) {
        for node in self.nodes {
            node.end().await;
        }
        if let Some(extender) = self.extender {
            extender.end().await;
        }
    }

    fn pods(&self) -> Result<Vec<Value>> {
        let list = self.store.list(&PODS, &ListOptions::default())?;
        Ok(list.items.into_iter().map(|pod| Value::clone(&pod)).collect())
    }

    /// Waits until the scheduler has tried everything, and admits what it has bound.
    async fn schedule_and_admit(&mut self) -> Result<()> {
        let scheduled = timeout(WAIT_MAX, self.scheduler.idle()).await;
        let status = self.scheduler.status().borrow().clone();
        scheduled.with_context(|| format!("the scheduler does not come to rest: {status:?}"))??;
        self.check()?;
        let mut bound: Vec<Value> = self.pods()?;
        bound.retain(|pod| pod["status"]["phase"] == "Pending" && !text(&pod["spec"]["nodeName"]).is_empty());
        // A kubelet hears of pods in the order in which they were bound to its node.
        bound.sort_by_key(|pod| text(&pod["metadata"]["resourceVersion"]).parse().unwrap_or(u64::MAX));
        for pod in bound {
            if let Some(node) = self.nodes.iter().find(|node| pod["spec"]["nodeName"] == node.name.as_str()) {
                node.admit(&pod).await?;
            }
            self.store.modify(&PODS, NAMESPACE, text(&pod["metadata"]["name"]), Part::Status, |pod| {
                pod["status"]["phase"] = "Running".into();
                pod["status"]["conditions"] = json!([{ "type": "Ready", "status": "True" }]);
            })?;
        }
        self.wait_for_gpu_nodes().await
    }

    /// Stowage's way only: the others look at no GpuNode.
    async fn wait_for_gpu_nodes(&mut self) -> Result<()> {
        if self.way != Way::Stowage {
            return Ok(());
        }
        let Self { nodes, store, .. } = self;
        wait_for(
            || {
                nodes.iter_mut().try_for_each(GpuNode::check)?;
                Ok(nodes.iter().all(|node| node.is_published(store)))
            },
            || "a GpuNode does not say what its kubelet says".to_owned(),
        )
        .await?;
        match &mut self.extender {
            Some(extender) => extender.wait_for_no_leak().await,
            None => Ok(()),
        }
    }

    fn check(&mut self) -> Result<()> {
        self.nodes.iter_mut().try_for_each(GpuNode::check)?;
        self.extender.as_mut().map_or(Ok(()), Extender::check)
    }

    /// Asks the independent audit about every node.
    fn audit(&mut self) -> Result<()> {
        let pods = self.pods()?;
        for node in &self.nodes {
            let view = NodeView {
                node: node.name.clone(),
                gpus: node.gpus_now(&self.store)?,
                allocations: node.allocations(&self.store),
                pods: pods.iter().filter_map(|pod| view(pod, &node.name)).collect(),
            };
            for finding in audit(&view) {
                if !self.findings.contains(&finding) {
                    self.findings.push(finding);
                }
            }
        }
        Ok(())
    }
}

impl Cluster for Stage {
    async fn delete(&mut self, pods: &[Replica]) -> Result<()> {
        if pods.is_empty() {
            return Ok(());
        }
        let now = DeleteOptions { grace_period_seconds: Some(0), ..DeleteOptions::default() };
        for pod in pods {
            self.nodes.iter().for_each(|node| node.remove(&pod.name));
            self.store.delete(&PODS, NAMESPACE, &pod.name, &now)?;
        }
        self.wait_for_gpu_nodes().await
    }

    async fn create(&mut self, pods: &[Replica]) -> Result<()> {
        for pod in pods {
            self.store.create(&PODS, NAMESPACE, objects::pod(pod, self.way))?;
        }
        Ok(())
    }

    async fn settle(&mut self) -> Result<Seen> {
        self.schedule_and_admit().await?;
        if self.way == Way::Stowage {
            for _ in 0..RETRIES_PER_STEP {
                let waiting = self.scheduler.status().borrow().parked;
                if waiting == 0 {
                    break;
                }
                self.scheduler.retry().await?;
                self.schedule_and_admit().await?;
                if self.scheduler.status().borrow().parked == waiting {
                    break;
                }
            }
            self.audit()?;
        }
        let mut nodes = BTreeMap::new();
        for pod in self.pods()? {
            let (name, node) = (text(&pod["metadata"]["name"]), text(&pod["spec"]["nodeName"]));
            if !node.is_empty() {
                ensure!(
                    pod["status"]["phase"] == "Running",
                    "pod {name} is bound to {node} and does not run"
                );
                nodes.insert(name.to_owned(), node.to_owned());
            }
        }
        let gpus_in_use: BTreeSet<String> = self.nodes.iter().flat_map(GpuNode::gpus_in_use).collect();
        Ok(Seen { nodes, gpus_in_use })
    }
}

/// A stock scheduler; or the second one beside the extender, with the configuration that users deploy.
fn scheduler_options(extender: Option<&Extender>, seed: u64) -> Result<SchedulerOptions> {
    let mut options = SchedulerOptions::stock(seed);
    if let Some(extender) = extender {
        options = SchedulerOptions::from_configuration(SCHEDULER_CONFIGURATION, seed)?;
        for entry in &mut options.extenders {
            entry.url_prefix = extender.url();
        }
    }
    // A step is 15 minutes: nobody waits for a back-off of seconds. And one binding after another, so that
    // a seed gives one day.
    let queue =
        QueueOptions { backoff_initial: Duration::ZERO, backoff_max: Duration::ZERO, ..options.queue };
    Ok(SchedulerOptions { queue, bindings_max: 0, ..options })
}

fn view(pod: &Value, node: &str) -> Option<PodView> {
    let metadata = &pod["metadata"];
    let spec: PodSpec = serde_json::from_value(pod["spec"].clone()).ok()?;
    let status: PodStatus = serde_json::from_value(pod["status"].clone()).ok()?;
    let annotation = |key: &str| metadata["annotations"][key].as_str();
    let names = (text(&metadata["namespace"]), text(&metadata["name"]), text(&metadata["uid"]));
    PodView::of(names, annotation, &spec, &status, node)
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}
