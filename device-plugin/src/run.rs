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
use tokio::sync::watch;
use tokio::task::{JoinError, JoinSet};
use tokio::time::timeout;

use crate::answer::AnswerRules;
use crate::book::{Book, Event};
use crate::cdi::{CdiError, Specs};
use crate::cluster::{NodeEvents, PlanLookup, gpu_node, pods};
use crate::config::{Config, LabelTarget};
use crate::inventory::Inventory;
use crate::kubelet::folder::Folder;
use crate::kubelet::life::Surroundings;
use crate::kubelet::{offer_all, pod_resources, sockets};
use crate::labels;
use crate::live::Live;
use crate::node_config::ConfigMetrics;
use crate::nvml::{Reading, Session};
use crate::plugin::Plugin;
use crate::slices::Slices;
use crate::telemetry::Telemetry;
use crate::turn::{Turn, address, stand_by};

/// Runs until asked to end.
///
/// # Errors
/// The [`Fault`] that ended it.
pub async fn run(config: Config) -> Result<(), Fault> {
    let (stop, stopped) = watch::channel(false);
    let metrics = ConfigMetrics::default();
    let mut serving = std::pin::pin!(serve(config, stopped, &metrics));
    tokio::select! {
        result = &mut serving => result,
        () = ops::signal::terminated() => {
            stop.send_replace(true);
            // What takes longer is cut off: the process ends within the time that it promises.
            timeout(SHUTDOWN_GRACE * 8 / 10, serving).await.unwrap_or(Ok(()))
        }
    }
}

/// Starts everything, and ends with the first thing that ends, or when `stop` turns true. `metrics` are told
/// beside the plugin's own.
///
/// # Errors
/// The [`Fault`] of the first task that failed, or of the start.
pub async fn serve(
    config: Config,
    stop: watch::Receiver<bool>,
    metrics: &ConfigMetrics,
) -> Result<(), Fault> {
    // Whoever stands by has this behind it when its turn comes.
    let made = if config.standby { Some(client(&config).await?) } else { None };
    let Some(http) = address(&config, stop.clone()).await? else { return Ok(()) };
    // Both take some ten milliseconds, one in the driver and one in reading certificates.
    let (events, told) = NodeEvents::new();
    let mut live = Live::new(&config, events.clone());
    let client = async {
        match made {
            Some(client) => Ok(client),
            None => client(&config).await,
        }
    };
    let (looked, client) = tokio::join!(first_look(&mut live, config.fail_on_init_error), client);
    let client = client?;
    looked?;
    let folder = config.kubelet_socket.parent().unwrap_or(Path::new("/")).to_owned();
    check_folder(&folder)?;
    let mut turn = Turn::take(&folder)?;
    if turn.is_none() {
        // It works, which is all that is wanted until then. Whoever stands by keeps no GPU open: it could not be reset.
        drop(live);
        turn = stand_by(&http, &folder, stop.clone()).await?;
        if turn.is_none() {
            return Ok(());
        }
        live = Live::new(&config, events.clone());
        first_look(&mut live, config.fail_on_init_error).await?;
    }

    let plugin = Arc::new(plugin(&config, &mut live).await?);
    let mut registry = Registry::default();
    plugin.metrics.register(&mut registry);
    metrics.register(&mut registry);
    let telemetry = Arc::new(Telemetry::default());
    if config.dcgm_metrics {
        telemetry.register(&mut registry, &plugin, &config.node_name);
    }
    telemetry.register_shares(&mut registry);
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
    let world = Surroundings {
        plugin: plugin.clone(),
        slices: live.slices(),
        lookup,
        kubelet_socket: config.kubelet_socket.clone(),
        stop: stop.clone(),
    };
    tasks.spawn(offer_all(world, watched));
    let reading = live.reading();
    let (sampling, samples, session) = (telemetry.clone(), plugin.clone(), live.session());
    let (asked, procfs, exceeded) = (session.clone(), config.procfs.clone(), events.clone());
    until_stopped(&mut tasks, &stop, async move {
        sampling.follow(&samples, &asked, &procfs, &exceeded).await;
        Err(Fault::software(anyhow!("nobody measures the GPUs any more")))
    });
    if let Some(mps) = live.mps() {
        let metrics = plugin.metrics.mps.clone();
        until_stopped(&mut tasks, &stop, async move {
            mps.keep(metrics, events).await;
            Err(Fault::software(anyhow!("nobody keeps the MPS daemons any more")))
        });
    }
    if let Some(slices) = live.slices() {
        let booking = plugin.clone();
        until_stopped(&mut tasks, &stop, async move {
            slices.follow_bookings(&booking).await;
            Err(Fault::software(anyhow!("nobody writes down what tokens stand for any more")))
        });
    }
    let following = plugin.clone();
    until_stopped(&mut tasks, &stop, async move {
        live.follow(following).await;
        Err(Fault::software(anyhow!("nobody looks at the GPUs any more")))
    });
    if let Some(client) = client.clone() {
        let node = config.node_name.clone();
        until_stopped(&mut tasks, &stop, async move {
            told.write(client, &node).await;
            // It ends with whoever looks at the GPUs, and that is a fault already, or was asked for.
            Ok(())
        });
    }
    spawn_background(&mut tasks, &plugin, client, &config, &stop, &telemetry, session);
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
        ops::http::serve(&http, health, registry).await;
        Err(Fault::software(anyhow!("the HTTP server ended by itself")))
    });
    let ended = wait(tasks, stop).await;
    drop(turn);
    ended
}

/// The tasks that follow the kubelet's and the API server's news.
fn spawn_background(
    tasks: &mut JoinSet<Result<(), Fault>>,
    plugin: &Arc<Plugin>,
    client: Option<kube::Client>,
    config: &Config,
    stop: &watch::Receiver<bool>,
    telemetry: &Telemetry,
    session: Arc<Session>,
) {
    let (holders, socket) = (plugin.clone(), config.pod_resources_socket.clone());
    until_stopped(tasks, stop, async move { pod_resources::follow(holders, &socket).await });
    let Some(client) = client else { return };
    let (watching, api, node) = (plugin.clone(), client.clone(), config.node_name.clone());
    until_stopped(tasks, stop, async move {
        pods::follow(watching, api, &node).await;
        Err(Fault::software(anyhow!("the watch on pods ended by itself")))
    });
    if config.labels.as_ref().is_none_or(|labels| labels.target != LabelTarget::Node) {
        let (api, node) = (client.clone(), config.node_name.clone());
        until_stopped(tasks, stop, async move {
            labels::clear(api, &node).await;
            Ok(())
        });
    }
    if let Some(settings) = config.labels.clone() {
        let (labelling, api, config) = (plugin.clone(), client.clone(), config.clone());
        until_stopped(tasks, stop, async move {
            labels::keep(labelling, session, api, config, settings).await;
            Ok(())
        });
    }
    let (publishing, node, usage) = (plugin.clone(), config.node_name.clone(), telemetry.published());
    until_stopped(tasks, stop, async move {
        gpu_node::publish(publishing, client, &node, usage).await;
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

/// Looks at the GPUs for the first time. A fault is none where the configuration says that it is no reason to end.
async fn first_look(live: &mut Live, fail: bool) -> Result<(), Fault> {
    match live.first_look().await {
        Ok(()) => Ok(()),
        Err(fault) if !fail => {
            tracing::error!(
                error = format!("{:#}", anyhow::Error::new(fault)),
                "NVML does not work: nothing is offered until it does, as failOnInitError is false."
            );
            Ok(())
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

async fn plugin(config: &Config, live: &mut Live) -> Result<Plugin, Fault> {
    let inventory = live.first_inventory().await.map_err(Fault::config)?;
    let reading = live.reading();
    if live.works() && reading.gpus.is_empty() && reading.unreadable.is_empty() {
        tracing::warn!(
            "NVML finds no GPU on this node, so nothing is offered: does nvidia-smi on the node list one? If the node \
             has none, keep this program off it."
        );
    }
    for remark in inventory.remarks() {
        tracing::warn!("{remark}.");
    }
    let answers = answer_rules(config, &reading, &inventory, live.slices().as_deref())?;
    let one_share = config.sharing.as_ref().is_some_and(|sharing| sharing.fail_requests_greater_than_one);
    let mut book = Book::new(config.node_name.clone(), Arc::new(inventory));
    if let Some(slices) = live.slices() {
        book.apply(Event::Restored(slices.restored()));
    }
    for resource in book.inventory().resources() {
        tracing::info!(resource_name = %resource, devices = book.listed(&resource).len(), "Offered.");
    }
    Ok(Plugin::new(book, answers, one_share))
}

/// How containers are told their devices, with the CDI specs that this rests on written. Made anew with each inventory.
pub(crate) fn answer_rules(
    config: &Config,
    reading: &Reading,
    inventory: &Inventory,
    slices: Option<&Slices>,
) -> Result<AnswerRules, Fault> {
    let mut rules = AnswerRules::look_up(config, inventory, Path::new("/")).map_err(Fault::config)?;
    if let Some(specs) = Specs::of(config, &reading.driver_version) {
        let written = match slices {
            Some(slices) => slices.write_specs(specs, inventory, &rules.imex_channels),
            None => specs.write(inventory, &[], &rules.imex_channels),
        };
        rules.cdi_extras = written.map_err(|error| match error {
            CdiError::Full { .. } | CdiError::Write { .. } => Fault::unavailable(error),
            CdiError::NotWritable { .. } | CdiError::MigMinors(_) => Fault::config(error),
        })?;
    }
    Ok(rules)
}
