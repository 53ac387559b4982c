//! How busy the GPUs are, and with whose pods.
//!
//! ```text
//!   NVML ──every 10 s──► samples ──┬──► /metrics, joined with who holds what at that moment
//!                                  └──► smooth (pure) ──once a minute at most──► the GpuNode
//! ```
//!
//! The metrics are called as NVIDIA's `dcgm-exporter` calls them, with its labels and units (`DCGM_FI_DEV_GPU_UTIL`
//! in per cent, `DCGM_FI_DEV_FB_USED` in MiB), and not as ours are otherwise: every dashboard and alert that knows
//! GPUs asks for those names, and goes on working. Who runs `dcgm-exporter` too switches these off, since each GPU
//! would be counted twice. What they cannot tell is left to it: NVML has no utilization of MIG slices, and knows
//! no pods, so that all pods which share a GPU show the GPU's numbers.

mod expose;
mod owners;
mod shares;
mod smooth;

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use prometheus_client::registry::Registry;
use stowage_shared::gpu_node::UtilizationStatus;
use tokio::sync::watch;
use tokio::time::{Instant, MissedTickBehavior, interval_at};

use crate::cluster::NodeEvents;
use crate::config::Config;
use crate::nvml::{About, GpuUsage, Session};
use crate::plugin::Plugin;
use expose::Exposed;
use shares::{Shares, SharesMetrics};
use smooth::Smoother;

/// How often the GPUs are asked.
const SAMPLE_EVERY: Duration = Duration::from_secs(10);
/// A sample that is older is not shown: a GPU that does not answer is not idle.
const STALE: Duration = Duration::from_secs(35);

/// What is published of each GPU's utilization, by UUID.
pub type Published = BTreeMap<String, UtilizationStatus>;

/// The last samples.
#[derive(Debug, Default)]
pub struct Telemetry {
    samples: Mutex<BTreeMap<String, Sample>>,
    shares: Arc<Shares>,
    published: watch::Sender<Published>,
}

/// What one GPU answered last, and when.
#[derive(Debug, Clone)]
struct Sample {
    usage: GpuUsage,
    at: Instant,
}

impl Telemetry {
    /// Makes the samples readable as metrics.
    pub fn register(self: &Arc<Self>, registry: &mut Registry, plugin: &Arc<Plugin>, config: &Config) {
        let exposed =
            Exposed::new(self.clone(), plugin.clone(), config.node_name.clone(), config.dcgm_metrics);
        registry.register_collector(Box::new(exposed));
    }

    /// Makes what pods take of their shares readable as metrics.
    pub fn register_shares(&self, registry: &mut Registry) {
        registry.register_collector(Box::new(SharesMetrics(self.shares.clone())));
    }

    /// What the GpuNode tells of utilization; changes once a minute at most.
    pub fn published(&self) -> watch::Receiver<Published> {
        self.published.subscribe()
    }

    /// Asks the GPUs until the process ends, one at a time and each for no longer than the session allows.
    pub async fn follow(&self, plugin: &Plugin, session: &Session, procfs: &Path, events: &NodeEvents) {
        // The kubelet and its pods come first.
        let _ = plugin.book.subscribe().wait_for(|book| book.knows_holders()).await;
        let mut smoother = Smoother::default();
        let begun = Instant::now();
        let mut ticks = interval_at(begun, SAMPLE_EVERY);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            ticks.tick().await;
            let indices: Vec<u32> =
                plugin.book.borrow().inventory().gpus().iter().map(|gpu| gpu.index).collect();
            for index in indices {
                let answer = session.call(About::Gpu(index), move |gpus| gpus.usage(index)).await;
                match answer {
                    Ok(Some(Ok(usage))) => self.keep(usage),
                    // Whether a GPU is well is found out elsewhere, and said there.
                    Ok(Some(Err(error))) => tracing::debug!(gpu.index = index, %error, "No sample."),
                    Ok(None) => {}
                    Err(error) => tracing::debug!(gpu.index = index, %error, "No sample."),
                }
            }
            let usage: Vec<GpuUsage> = self.fresh().into_values().collect();
            let holders = plugin.book.borrow().share_holders();
            self.shares.look(holders, &usage, procfs, events);
            if let Some(published) = smoother.sample(begun.elapsed(), &usage) {
                self.published.send_replace(published);
            }
        }
    }

    fn keep(&self, usage: GpuUsage) {
        let mut samples = self.samples.lock().unwrap_or_else(PoisonError::into_inner);
        samples.insert(usage.uuid.clone(), Sample { usage, at: Instant::now() });
        samples.retain(|_, sample| sample.at.elapsed() < STALE);
    }

    /// The samples that still say something.
    fn fresh(&self) -> BTreeMap<String, GpuUsage> {
        let samples = self.samples.lock().unwrap_or_else(PoisonError::into_inner);
        let fresh = samples.iter().filter(|(_, sample)| sample.at.elapsed() < STALE);
        fresh.map(|(uuid, sample)| (uuid.clone(), sample.usage.clone())).collect()
    }
}
