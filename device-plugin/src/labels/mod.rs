//! The node's labels: what GPU it has, under NVIDIA's names, so that every `nodeSelector` in use goes on working.
//!
//! ```text
//!   NVML, PCI, DMI ──facts──► make (pure) ──Labels──► write: the Node, or a NodeFeature for NFD
//! ```
//!
//! Names and values are those of NVIDIA's `gpu-feature-discovery`, whose place this takes: there is no second
//! DaemonSet to run. Where that one still runs, both write the same values. Labels are not what Stowage itself
//! decides by: that is the GpuNode.

mod facts;
mod make;
mod pci;
#[cfg(test)]
mod tests;
mod write;

use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, sleep};

use crate::config::{Config, LabelConfig, LabelTarget, SharedResource, SharingStrategy};
use crate::metrics::LabelWrite;
use crate::nvml::{About, NvmlFault, Session};
use crate::plugin::Plugin;
use crate::told::AtMostEvery;

pub use facts::{Facts, GpuFacts, MigFacts, read as read_facts};
pub use make::{Labels, Rules, Shares, SharingRules, labels};
pub use pci::VgpuHost;
use write::Writer;

/// How often labels that did not change are written again, should somebody have taken them away.
const AGAIN: Duration = Duration::from_secs(3600);
/// The first wait after a failed write; it doubles up to [`LONGEST_WAIT`].
const FIRST_WAIT: Duration = Duration::from_secs(1);
/// The longest wait after failed writes.
const LONGEST_WAIT: Duration = Duration::from_secs(60);
/// How often trouble is logged.
const LOG_EVERY: Duration = Duration::from_secs(600);

/// Keeps the node's labels true until the process ends. Trouble is logged, counted and tried again.
pub async fn keep(
    plugin: Arc<Plugin>,
    session: Arc<Session>,
    client: kube::Client,
    config: Config,
    settings: LabelConfig,
) {
    // Pods come first: the kubelet has its devices by then.
    let _ = plugin.book.subscribe().wait_for(|book| book.knows_holders()).await;
    let timestamp = (!settings.no_timestamp).then(|| jiff::Timestamp::now().as_second());
    let rules = rules(&config, timestamp);
    let mut writer = Writer::new(client, &config.node_name, settings.target);
    let mut log = AtMostEvery::new(LOG_EVERY);
    let mut wait = FIRST_WAIT;
    let mut last: Option<(Instant, Labels)> = None;
    loop {
        let result = match read(&session, &config, &settings).await {
            Ok(facts) => {
                let labels = labels(&facts, &rules);
                let due =
                    last.as_ref().is_none_or(|(at, written)| at.elapsed() >= AGAIN || *written != labels);
                if due { writer.write(&labels).await.map(|()| Some(labels)) } else { Ok(None) }
            }
            Err(error) => Err(error),
        };
        match result {
            Ok(written) => {
                if let Some(labels) = written {
                    plugin.metrics.labels_written(LabelWrite::Written);
                    tracing::info!(node = config.node_name, labels = labels.len(), "Node labelled.");
                    last = Some((Instant::now(), labels));
                }
                log.reset();
                wait = FIRST_WAIT;
                match settings.interval {
                    Some(interval) => sleep(interval).await,
                    None => return,
                }
            }
            Err(error) => {
                plugin.metrics.labels_written(error.kind());
                if log.may() {
                    let cure = error.cure();
                    tracing::warn!(node = config.node_name, %error, cure, "The node cannot be labelled.");
                }
                sleep(wait).await;
                wait = (wait * 2).min(LONGEST_WAIT);
            }
        }
    }
}

/// Takes our labels off the Node, where an earlier configuration of this program put some. Trouble is logged and
/// tried again.
pub async fn clear(client: kube::Client, node: &str) {
    let writer = Writer::new(client, node, LabelTarget::Node);
    let mut log = AtMostEvery::new(LOG_EVERY);
    let mut wait = FIRST_WAIT;
    loop {
        match writer.clear().await {
            Ok(false) => return,
            Ok(true) => return tracing::info!(node, "The Node's labels that were ours are gone."),
            Err(error) => {
                if log.may() {
                    let cure = error.cure();
                    tracing::warn!(node, %error, cure, "The node has labels of ours, which cannot be taken off.");
                }
            }
        }
        sleep(wait).await;
        wait = (wait * 2).min(LONGEST_WAIT);
    }
}

/// Why the node was not labelled.
#[derive(Debug, thiserror::Error)]
pub enum LabelError {
    /// NVML does not work.
    #[error("NVML does not work: {0}")]
    Nvml(#[from] NvmlFault),
    /// Whoever looks at the GPUs has found that it does not work.
    #[error("NVML is being opened again")]
    Closed,
    /// The Node is not there.
    #[error("Node {0} is not there")]
    NoNode(String),
    /// The API server knows no NodeFeatures.
    #[error("the API server knows no nodefeatures.nfd.k8s-sigs.io")]
    MissingCrd,
    /// The API server refused, or was not reached.
    #[error("{}", crate::cluster::trouble::words(.0))]
    Call(kube::Error),
    /// The API server did not answer.
    #[error("the API server did not answer in {:?}", write::CALL_TIMEOUT)]
    Timeout,
}

impl LabelError {
    fn kind(&self) -> LabelWrite {
        match self {
            Self::Call(kube::Error::Api(status)) if status.code == 403 => LabelWrite::Forbidden,
            Self::Nvml(_) | Self::Closed => LabelWrite::Unreadable,
            _ => LabelWrite::Failed,
        }
    }

    fn cure(&self) -> &'static str {
        match self {
            Self::NoNode(_) => "is --node-name (NODE_NAME) the Node's name?",
            Self::MissingCrd => "install node-feature-discovery, or leave useNodeFeatureAPI out",
            Self::Call(error) => crate::cluster::trouble::cure(error),
            _ => "it is tried again",
        }
    }
}

/// Reads the machine: one call that is bounded in time, as all of NVML's.
async fn read(session: &Session, config: &Config, settings: &LabelConfig) -> Result<Facts, LabelError> {
    session.open().await?;
    let (sysfs, machine_type_file) = (config.sysfs.clone(), settings.machine_type_file.clone());
    let reading = session.call(About::Labels, move |gpus| facts::read(gpus, &sysfs, &machine_type_file));
    Ok(reading.await.map_err(NvmlFault::from)?.ok_or(LabelError::Closed)??)
}

/// What of the configuration labels tell.
fn rules(config: &Config, timestamp: Option<i64>) -> Rules {
    let sharing = config.sharing.as_ref().map(|sharing| {
        let shares =
            |shared: &SharedResource| Shares { replicas: shared.replicas, renamed: shared.rename.is_some() };
        // Where several entries share a resource, the first is told, as NVIDIA does.
        let resources = sharing.resources.iter().rev().map(|shared| (shared.name.clone(), shares(shared)));
        SharingRules { mps: sharing.strategy == SharingStrategy::Mps, resources: resources.collect() }
    });
    Rules { mig_strategy: config.mig_strategy, sharing, timestamp }
}
