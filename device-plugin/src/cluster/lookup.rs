//! The last resort for a plan that the watch has not brought: one look at the API server.

use std::sync::Mutex;
use std::sync::PoisonError;
use std::time::{Duration, Instant};

use kube::api::{Api, ListParams};
use stowage_shared::contract::PLAN_LOOKUP;
use tokio::time::timeout;

use super::pods::{self, SlimPod};
use crate::book::PodSeen;
use crate::config::GpuNames;
use crate::metrics::Metrics;

/// How long nobody looks again after the API server did not answer: the kubelet's admission waits meanwhile.
const AFTER_FAILURE: Duration = Duration::from_secs(10);
/// The least time between two looks, so that a burst of pods that nobody planned costs the API server little.
const LEAST: Duration = Duration::from_millis(500);

/// Looks the node's pods up.
pub struct PlanLookup {
    api: Api<SlimPod>,
    node: String,
    metrics: Metrics,
    not_before: Mutex<Option<Instant>>,
}

impl PlanLookup {
    /// Looks up pods of this node.
    pub fn new(client: kube::Client, node: &str, metrics: Metrics) -> Self {
        Self { api: pods::api(client), node: node.to_owned(), metrics, not_before: Mutex::new(None) }
    }

    /// The node's pods, if the API server answers within [`PLAN_LOOKUP`] and was not asked a moment ago.
    pub async fn look_up(&self, names: &GpuNames) -> Option<Vec<PodSeen>> {
        if !self.may_ask() {
            return None;
        }
        let params = ListParams::default().fields(&pods::on_node(&self.node));
        let answer = match timeout(PLAN_LOOKUP, self.api.list(&params)).await {
            Ok(Ok(list)) => {
                let pods = list.items.into_iter();
                Ok(pods.filter_map(|pod| pods::seen(pod, names)).collect::<Vec<_>>())
            }
            Ok(Err(error)) => Err(error.to_string()),
            Err(_) => Err(format!("no answer in {PLAN_LOOKUP:?}")),
        };
        let asks_for_gpus = |pod: &PodSeen| pod.request.as_ref().is_ok_and(|request| !request.is_empty());
        self.metrics.looked_up(&answer.as_ref().map(|pods| pods.iter().any(asks_for_gpus)));
        match answer {
            Ok(pods) => Some(pods),
            Err(error) => {
                self.set_not_before(AFTER_FAILURE);
                tracing::debug!(error, "A plan could not be looked up.");
                None
            }
        }
    }

    fn may_ask(&self) -> bool {
        let free = {
            let not_before = self.not_before.lock().unwrap_or_else(PoisonError::into_inner);
            not_before.is_none_or(|at| Instant::now() >= at)
        };
        if free {
            self.set_not_before(LEAST);
        }
        free
    }

    fn set_not_before(&self, wait: Duration) {
        *self.not_before.lock().unwrap_or_else(PoisonError::into_inner) = Some(Instant::now() + wait);
    }
}
