//! Runs the plugin with the configuration that the Node's label names, and anew when that is another one.
//!
//! A configuration decides which resources there are, so a new one means to end all that serves and to start it
//! again, in the same process: some ten milliseconds in which the kubelet has no devices, as with every restart of
//! a plugin. What cannot be used is not: the last configuration that worked stays, and the log, the metrics and
//! nobody's pod tells of it.

mod refused;

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::pin::{Pin, pin};
use std::time::{Duration, Instant};

use anyhow::{Context, anyhow};
use clap::ArgMatches;
use futures::TryStreamExt;
use k8s_openapi::api::core::v1::Node;
use kube::api::Api;
use kube::core::PartialObjectMeta;
use kube::runtime::WatchStreamExt;
use kube::runtime::watcher::{self, Event as WatchEvent, watcher};
use ops::Fault;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;
use stowage_shared::contract::{ExitCode, SHUTDOWN_GRACE};
use tokio::sync::watch;
use tokio::time::{sleep, timeout};

use self::refused::Refused;
use crate::config::{self, Config, PerNode};
use crate::run;
use crate::told::AtMostEvery;

/// How often the files are looked at. The kubelet brings a changed ConfigMap within a minute or so.
const LOOK_EVERY: Duration = Duration::from_secs(5);
/// How long the start waits for the Node's label.
const FIRST_LABEL: Duration = Duration::from_secs(60);
/// How often trouble with the watch is logged.
const LOG_EVERY: Duration = Duration::from_secs(60);
/// The most files of the folder that are looked at.
const FILES_MAX: usize = 1024;

/// What is told of the configuration.
#[derive(Debug, Clone, Default)]
pub struct ConfigMetrics {
    refused: Gauge,
}

impl ConfigMetrics {
    /// Makes them readable under `stowage_device_plugin_…`.
    pub fn register(&self, registry: &mut Registry) {
        registry.sub_registry_with_prefix("stowage_device_plugin").register(
            "config_refused",
            "1 while the configuration that the Node's label names cannot be used, and the one before stays",
            self.refused.clone(),
        );
    }

    fn set_refused(&self, refused: bool) {
        self.refused.set(i64::from(refused));
    }
}

/// Where a configuration comes from beside the file: the command line and the environment.
#[derive(Clone, Copy)]
pub struct Given<'a> {
    /// The command line.
    pub flags: &'a ArgMatches,
    /// The environment.
    pub env: fn(&str) -> Option<String>,
}

/// Runs until asked to end; `base` is the configuration without a file.
///
/// # Errors
/// The [`Fault`] that ended it.
pub async fn run(given: Given<'_>, base: &Config, per_node: &PerNode) -> Result<(), Fault> {
    let client = ops::kubernetes::client().await?;
    let (tell, mut label) = watch::channel(None);
    let mut following =
        tokio::spawn(follow_label(client, base.node_name.clone(), per_node.label.clone(), tell));
    let running = async {
        let known =
            timeout(FIRST_LABEL, label.wait_for(Option::is_some)).await.is_ok_and(|known| known.is_ok());
        match known {
            true => supervise(given, per_node, label).await,
            false => Err(Fault::unavailable(anyhow!(
                "the API server has not told the labels of Node {} in {FIRST_LABEL:?}: is --node-name (NODE_NAME) \
                 right, and may this program list and watch nodes?",
                base.node_name
            ))),
        }
    };
    let result = tokio::select! {
        result = running => result,
        _ = &mut following => Err(Fault::software(anyhow!("the watch on the Node ended by itself"))),
    };
    following.abort();
    result
}

/// The value of the label; `None` while it is not known, and an empty text where there is none.
type Label = Option<String>;

/// Follows the label until the process ends.
async fn follow_label(client: kube::Client, node: String, key: String, tell: watch::Sender<Label>) {
    let config = watcher::Config::default().fields(&format!("metadata.name={node}"));
    let mut events = pin!(watcher(Api::<PartialObjectMeta<Node>>::all(client), config).default_backoff());
    let mut log = AtMostEvery::new(LOG_EVERY);
    let set = |node: &PartialObjectMeta<Node>| {
        let value = node.metadata.labels.as_ref().and_then(|labels| labels.get(&key)).cloned();
        let value = Some(value.unwrap_or_default());
        tell.send_if_modified(|known| {
            let changed = *known != value;
            *known = value;
            changed
        });
    };
    loop {
        match events.try_next().await {
            Ok(None) => return,
            Ok(Some(WatchEvent::Apply(node) | WatchEvent::InitApply(node))) => {
                log.reset();
                set(&node);
            }
            // A Node that is gone says nothing of the one that comes back.
            Ok(Some(_)) => {}
            Err(error) if log.may() => {
                tracing::warn!(node, %error, "The Node's label cannot be watched: its configuration stays as it is.");
            }
            Err(_) => {}
        }
    }
}

/// Serves with one configuration after the other.
async fn supervise(
    given: Given<'_>,
    per_node: &PerNode,
    mut label: watch::Receiver<Label>,
) -> Result<(), Fault> {
    let mut terminated = pin!(ops::signal::terminated());
    let metrics = ConfigMetrics::default();
    let mut current = choose(given, per_node, &label.borrow_and_update().clone()).map_err(Fault::config)?;
    let mut good: Option<Choice> = None;
    let mut refused = Refused::default();
    loop {
        tracing::info!(config = current.name(), "This is the node's configuration.");
        let (stop, stopped) = watch::channel(false);
        let mut serving = pin!(run::serve(current.config.clone(), stopped, &metrics));
        let next = tokio::select! {
            result = &mut serving => match (result, good.take()) {
                // It is the new configuration that does not go with this node: the one before did.
                (Err(fault), Some(before)) if fault.code == ExitCode::Config => {
                    refused.is(&metrics, &format!("{}: {:#}", current.name(), fault.error));
                    refused.wait_with(current.config, Instant::now());
                    current = before;
                    continue;
                }
                (result, _) => return result,
            },
            () = &mut terminated => {
                end(stop, serving).await;
                return Ok(());
            }
            next = next(given, per_node, &mut label, &current, &mut refused, &metrics) => next,
        };
        end(stop, serving).await;
        good = Some(std::mem::replace(&mut current, next));
    }
}

/// Ends what serves, within the time that the process promises.
async fn end(stop: watch::Sender<bool>, serving: Pin<&mut impl Future<Output = Result<(), Fault>>>) {
    stop.send_replace(true);
    if timeout(SHUTDOWN_GRACE * 8 / 10, serving).await.is_err() {
        tracing::warn!("What served did not end in time, and was cut off.");
    }
}

/// A configuration, and the file that it is from.
struct Choice {
    file: Option<PathBuf>,
    config: Config,
}

impl Choice {
    fn name(&self) -> String {
        self.file.as_ref().map_or_else(|| "none".to_owned(), |file| file.display().to_string())
    }
}

/// Waits for another configuration that can be used.
async fn next(
    given: Given<'_>,
    per_node: &PerNode,
    label: &mut watch::Receiver<Label>,
    current: &Choice,
    refused: &mut Refused,
    metrics: &ConfigMetrics,
) -> Choice {
    loop {
        tokio::select! {
            // The sender lives as long as this.
            _ = label.changed() => {}
            () = sleep(LOOK_EVERY) => {}
        }
        let label = label.borrow_and_update().clone();
        match choose(given, per_node, &label) {
            Err(error) => refused.is(metrics, &format!("{error:#}")),
            Ok(choice) if choice.config == current.config => refused.ends(metrics, &choice.config, true),
            Ok(choice) if refused.may_try(&choice.config, Instant::now()) => {
                refused.ends(metrics, &choice.config, false);
                return choice;
            }
            Ok(_) => {}
        }
    }
}

/// The configuration that the label names now.
fn choose(given: Given<'_>, per_node: &PerNode, label: &Label) -> anyhow::Result<Choice> {
    let files = files(&per_node.folder).with_context(|| {
        format!("cannot read the folder {} (CONFIG_FILE_SRCDIR)", per_node.folder.display())
    })?;
    let file = per_node.choose(label.as_deref(), &files)?.map(|name| per_node.folder.join(name));
    let config = config::load_chosen(given.flags, given.env, file.as_deref())?;
    Ok(Choice { file, config })
}

/// The names of a folder's files, but for those that a ConfigMap's mount is made of.
fn files(folder: &Path) -> std::io::Result<BTreeSet<String>> {
    let mut names = BTreeSet::new();
    for entry in std::fs::read_dir(folder)?.take(FILES_MAX) {
        let entry = entry?;
        let name = entry.file_name().to_string_lossy().into_owned();
        if !name.starts_with("..") && !entry.file_type()?.is_dir() {
            names.insert(name);
        }
    }
    Ok(names)
}
