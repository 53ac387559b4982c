//! The whole program, from a checked configuration to its end.
//!
//! Everything that a user can have got wrong is found before the first of the kubelet's sockets is made. Then the
//! order is that of urgency: from a kill to the next registration, every pod that the kubelet admits fails for
//! good, so the device lists come first and the API server after them.

use std::path::Path;
use std::sync::Arc;

use anyhow::{Context, anyhow};
use ops::Fault;
use prometheus_client::registry::Registry;
use stowage_shared::contract::SHUTDOWN_GRACE;
use stowage_shared::resource::ResourceName;
use tokio::sync::watch;
use tokio::task::{JoinError, JoinSet};
use tokio::time::timeout;

use crate::book::Book;
use crate::cluster::{PlanLookup, gpu_node, pods};
use crate::config::{Config, MigStrategy};
use crate::inventory::{AnswerRules, DeviceSpecRules, Inventory, MigMinors, OfferRules};
use crate::kubelet::folder::Folder;
use crate::kubelet::life::Surroundings;
use crate::kubelet::{offer, pod_resources, sockets};
use crate::nvml::{Gpus, NvmlFault, NvmlGpus, Reading};
use crate::plugin::Plugin;

/// Runs until asked to end.
///
/// # Errors
/// The [`Fault`] that ended it.
pub async fn run(config: Config) -> Result<(), Fault> {
    let (stop, stopped) = watch::channel(false);
    let mut serving = std::pin::pin!(serve(config, open_gpus, stopped));
    tokio::select! {
        result = &mut serving => result,
        () = ops::signal::terminated() => {
            stop.send_replace(true);
            // What takes longer is cut off: the process ends within the time that it promises.
            timeout(SHUTDOWN_GRACE * 8 / 10, serving).await.unwrap_or(Ok(()))
        }
    }
}

/// Opens the machine's own GPUs; blocks.
fn open_gpus(config: &Config) -> Result<Box<dyn Gpus>, NvmlFault> {
    Ok(Box::new(NvmlGpus::open(&config.container_driver_root, &config.sysfs)?))
}

/// Where GPUs come from.
pub type OpenGpus = fn(&Config) -> Result<Box<dyn Gpus>, NvmlFault>;

/// Starts everything, and ends with the first thing that ends, or when `stop` turns true.
///
/// # Errors
/// The [`Fault`] of the first task that failed, or of the start.
pub async fn serve(config: Config, open: OpenGpus, stop: watch::Receiver<bool>) -> Result<(), Fault> {
    let http = ops::http::bind(config.http_address).await?;
    // Both take some ten milliseconds, one in the driver and one in reading certificates.
    let (gpus, client) = tokio::join!(read_gpus(config.clone(), open), client(&config));
    let (client, (reading, fault)) = (client?, gpus?);
    let folder = config.kubelet_socket.parent().unwrap_or(Path::new("/")).to_owned();
    check_folder(&folder)?;

    let plugin = Arc::new(plugin(&config, &reading, fault)?);
    let mut registry = Registry::default();
    plugin.metrics.register(&mut registry);
    let mut tasks: JoinSet<Result<(), Fault>> = JoinSet::new();

    let swept = sockets::sweep(&folder).with_context(|| format!("cannot read {}", folder.display()));
    let swept = swept.map_err(Fault::unavailable)?;
    if swept > 0 {
        tracing::info!(swept, "Removed sockets that an earlier process left.");
    }
    let watched = Arc::new(Folder::watch(&folder));
    let lookup = client
        .clone()
        .map(|client| Arc::new(PlanLookup::new(client, &config.node_name, plugin.metrics.clone())));
    let resources: Vec<ResourceName> = plugin.book.borrow().inventory().devices().into_keys().collect();
    for resource in resources {
        let world = Surroundings {
            plugin: plugin.clone(),
            lookup: lookup.clone(),
            kubelet_socket: config.kubelet_socket.clone(),
            stop: stop.clone(),
        };
        let watched = watched.clone();
        tasks.spawn(async move { offer(resource, world, &watched).await });
    }
    spawn_background(&mut tasks, &plugin, client, &config, &stop);
    let address = http.local_addr().unwrap_or(config.http_address);
    tracing::info!(
        node = config.node_name,
        http_address = %address,
        driver_version = reading.driver_version,
        gpus = reading.gpus.len(),
        "Started."
    );
    let (health, registry) = (plugin.clone(), Arc::new(registry));
    until_stopped(&mut tasks, &stop, async move {
        ops::http::serve(http, health, registry).await;
        Err(Fault::software(anyhow!("the HTTP server ended by itself")))
    });
    wait(tasks, stop).await
}

/// The tasks that follow the kubelet's and the API server's news.
fn spawn_background(
    tasks: &mut JoinSet<Result<(), Fault>>,
    plugin: &Arc<Plugin>,
    client: Option<kube::Client>,
    config: &Config,
    stop: &watch::Receiver<bool>,
) {
    let (holders, socket) = (plugin.clone(), config.pod_resources_socket.clone());
    until_stopped(tasks, stop, async move { pod_resources::follow(holders, &socket).await });
    let Some(client) = client else { return };
    let (watching, api, node) = (plugin.clone(), client.clone(), config.node_name.clone());
    until_stopped(tasks, stop, async move {
        pods::follow(watching, api, &node).await;
        Err(Fault::software(anyhow!("the watch on pods ended by itself")))
    });
    let (publishing, node) = (plugin.clone(), config.node_name.clone());
    until_stopped(tasks, stop, async move {
        gpu_node::publish(publishing, client, &node).await;
        Err(Fault::software(anyhow!("the GpuNode's publisher ended by itself")))
    });
}

/// Runs a task that has nothing to put in order at the end.
fn until_stopped(
    tasks: &mut JoinSet<Result<(), Fault>>,
    stop: &watch::Receiver<bool>,
    task: impl Future<Output = Result<(), Fault>> + Send + 'static,
) {
    let mut stop = stop.clone();
    tasks.spawn(async move {
        tokio::select! {
            result = task => result,
            _ = stop.wait_for(|stop| *stop) => Ok(()),
        }
    });
}

/// Waits for the first task that fails, or until all have ended as asked.
async fn wait(mut tasks: JoinSet<Result<(), Fault>>, stop: watch::Receiver<bool>) -> Result<(), Fault> {
    let died = |error: JoinError| Fault::software(anyhow::Error::new(error).context("a task panicked"));
    while let Some(ended) = tasks.join_next().await {
        ended.map_err(died)??;
    }
    if *stop.borrow() { Ok(()) } else { Err(Fault::software(anyhow!("every task ended by itself"))) }
}

/// Reads the GPUs, on a thread where that may block. A fault is handed on where the configuration says that it
/// is no reason to end.
async fn read_gpus(config: Config, open: OpenGpus) -> Result<(Reading, Option<String>), Fault> {
    let fail = config.fail_on_init_error;
    let read = tokio::task::spawn_blocking(move || {
        let gpus = open(&config)?;
        let reading = gpus.read()?;
        // NVML stays open: shutting it down and starting it again costs more than keeping it.
        std::mem::forget(gpus);
        Ok::<_, NvmlFault>(reading)
    });
    let read = read.await.map_err(|error| Fault::software(anyhow::Error::new(error)))?;
    match read {
        Ok(reading) => Ok((reading, None)),
        Err(fault) if !fail => {
            let fault = format!("{:#}", anyhow::Error::new(fault));
            tracing::error!(
                error = fault,
                "NVML does not work: nothing is offered, as failOnInitError is false. Restart this program once it does."
            );
            Ok((Reading::default(), Some(fault)))
        }
        Err(fault) if fault.is_permission() => Err(Fault::no_permission(fault)),
        Err(fault) => Err(Fault::unavailable(fault)),
    }
}

async fn client(config: &Config) -> Result<Option<kube::Client>, Fault> {
    if config.kubernetes { ops::kubernetes::client().await.map(Some) } else { Ok(None) }
}

fn check_folder(folder: &Path) -> Result<(), Fault> {
    if folder.is_dir() {
        return Ok(());
    }
    Err(Fault::unavailable(anyhow!(
        "there is no folder {}, where the kubelet has its sockets: is this a Kubernetes node, and the folder mounted \
         here? Else correct --kubelet-socket (KUBELET_SOCKET)",
        folder.display()
    )))
}

fn plugin(config: &Config, reading: &Reading, fault: Option<String>) -> Result<Plugin, Fault> {
    let rules = OfferRules { mig_strategy: config.mig_strategy, time_slicing: config.time_slicing.clone() };
    let inventory = Inventory::build(reading, &rules).map_err(Fault::config)?;
    if fault.is_none() && reading.gpus.is_empty() && reading.unreadable.is_empty() {
        tracing::warn!(
            "NVML finds no GPU on this node, so nothing is offered: does nvidia-smi on the node list one? If the node \
             has none, keep this program off it."
        );
    }
    for remark in inventory.remarks() {
        tracing::warn!("{remark}.");
    }
    for (resource, devices) in inventory.devices() {
        tracing::info!(resource_name = %resource, devices = devices.len(), "Offered.");
    }
    let device_specs = config.pass_device_specs.then(|| device_specs(config, reading)).transpose()?;
    let answers = AnswerRules { device_id_strategy: config.device_id_strategy, device_specs };
    let one_share =
        config.time_slicing.as_ref().is_some_and(|sharing| sharing.fail_requests_greater_than_one);
    let book = Book::new(config.node_name.clone(), Arc::new(inventory));
    Ok(Plugin::new(book, answers, one_share, fault))
}

fn device_specs(config: &Config, reading: &Reading) -> Result<DeviceSpecRules, Fault> {
    let has_mig_devices = config.mig_strategy != MigStrategy::None
        && reading.gpus.iter().any(|gpu| gpu.mig.as_ref().is_some_and(|mig| !mig.devices.is_empty()));
    let mig_minors = if has_mig_devices {
        MigMinors::read(&config.procfs).map_err(Fault::config)?
    } else {
        MigMinors::default()
    };
    Ok(DeviceSpecRules {
        dev_root: config.dev_root.clone(),
        seen_at: vec![config.dev_root.clone(), config.container_driver_root.clone()],
        mig_minors,
    })
}
