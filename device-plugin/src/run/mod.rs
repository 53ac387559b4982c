//! The whole program, from a checked configuration to its end.
//!
//! Everything that a user can have got wrong is found before the first of the kubelet's sockets is made. Then the
//! order is that of urgency: from a kill to the next registration, every pod that the kubelet admits fails for
//! good, so the device lists come first and the API server after them.

mod offer;
mod ready;
mod tasks;

use std::sync::Arc;

use anyhow::Context;
use ops::Fault;
use prometheus_client::registry::Registry;
use stowage_shared::contract::SHUTDOWN_GRACE;
use tokio::sync::watch;
use tokio::time::timeout;

use self::offer::plugin;
use self::ready::{Ready, ready};
use self::tasks::Tasks;
use crate::cluster::{PlanLookup, gpu_node, pods};
use crate::config::{Config, LabelTarget};
use crate::kubelet::folder::Folder;
use crate::kubelet::life::Surroundings;
use crate::kubelet::{offer_all, pod_resources, sockets};
use crate::labels;
use crate::node_config::ConfigMetrics;
use crate::nvml::Session;
use crate::plugin::Plugin;
use crate::telemetry::Telemetry;

pub(crate) use self::offer::answer_rules;

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
    let Some(ready) = ready(&config, &stop).await? else { return Ok(()) };
    let Ready { http, client, mut live, events, told, folder, turn } = ready;
    let plugin = Arc::new(plugin(&config, &mut live).await?);
    let mut registry = Registry::default();
    plugin.register(&mut registry);
    metrics.register(&mut registry);
    let telemetry = Arc::new(Telemetry::default());
    telemetry.register(&mut registry, &plugin, &config);
    telemetry.register_shares(&mut registry);

    let swept = sockets::sweep(&folder).with_context(|| format!("cannot read {}", folder.display()));
    let swept = swept.map_err(Fault::unavailable)?;
    if swept > 0 {
        tracing::info!(swept, "Removed sockets that an earlier process left.");
    }
    let watched = Arc::new(Folder::watch(&folder));
    let lookup = |client| Arc::new(PlanLookup::new(client, &config.node_name, plugin.metrics.clone()));
    let world = Surroundings {
        plugin: plugin.clone(),
        slices: live.slices(),
        lookup: client.clone().map(lookup),
        kubelet_socket: config.kubelet_socket.clone(),
        stop: stop.clone(),
    };
    let mut tasks = Tasks::until(stop);
    tasks.in_order(offer_all(world, watched));
    let (reading, session) = (live.reading(), live.session());
    let (sampling, samples, asked) = (telemetry.clone(), plugin.clone(), session.clone());
    let (procfs, exceeded) = (config.procfs.clone(), events.clone());
    tasks.forever("nobody measures the GPUs any more", async move {
        sampling.follow(&samples, &asked, &procfs, &exceeded).await;
    });
    if let Some(mps) = live.mps() {
        let metrics = plugin.metrics.mps.clone();
        tasks
            .forever("nobody keeps the MPS daemons any more", async move { mps.keep(metrics, events).await });
    }
    if let Some(slices) = live.slices() {
        let booking = plugin.clone();
        tasks.forever("nobody writes down what tokens stand for any more", async move {
            slices.follow_bookings(&booking).await;
        });
    }
    tasks.forever("nobody looks at the GPUs any more", live.follow(plugin.clone()));
    let (holders, socket) = (plugin.clone(), config.pod_resources_socket.clone());
    tasks.spawn(async move { pod_resources::follow(holders, &socket).await });
    if let Some(client) = client {
        let (writing, node) = (client.clone(), config.node_name.clone());
        tasks.spawn(async move {
            told.write(writing, &node).await;
            // It ends with whoever looks at the GPUs, and that is a fault already, or was asked for.
            Ok(())
        });
        follow_cluster(&mut tasks, &plugin, client, &config, &telemetry, session);
    }
    let address = http.local_addr().unwrap_or(config.http_address);
    tracing::info!(
        node = config.node_name,
        http_address = %address,
        driver_version = reading.driver_version,
        gpus = reading.gpus.len(),
        "Started."
    );
    let (health, registry) = (plugin.clone(), Arc::new(registry));
    tasks.forever("the HTTP server ended by itself", async move {
        ops::http::serve(&http, health, registry).await;
    });
    let ended = tasks.wait().await;
    drop(turn);
    ended
}

/// The tasks that follow the API server's news, and tell it ours.
fn follow_cluster(
    tasks: &mut Tasks,
    plugin: &Arc<Plugin>,
    client: kube::Client,
    config: &Config,
    telemetry: &Telemetry,
    session: Arc<Session>,
) {
    let (watching, api, node) = (plugin.clone(), client.clone(), config.node_name.clone());
    tasks.forever("the watch on pods ended by itself", async move {
        pods::follow(watching, api, &node).await;
    });
    if config.labels.as_ref().is_none_or(|labels| labels.target != LabelTarget::Node) {
        let (api, node) = (client.clone(), config.node_name.clone());
        tasks.spawn(async move {
            labels::clear(api, &node).await;
            Ok(())
        });
    }
    if let Some(settings) = config.labels.clone() {
        let (labelling, api, config) = (plugin.clone(), client.clone(), config.clone());
        tasks.spawn(async move {
            labels::keep(labelling, session, api, config, settings).await;
            Ok(())
        });
    }
    let (publishing, node, usage) = (plugin.clone(), config.node_name.clone(), telemetry.published());
    tasks.forever("the GpuNode's publisher ended by itself", async move {
        gpu_node::publish(publishing, client, &node, usage).await;
    });
}
