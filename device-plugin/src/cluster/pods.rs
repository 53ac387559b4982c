//! This node's pods, as the API server binds them.

use std::sync::Arc;
use std::time::Duration;

use futures::TryStreamExt;
use k8s_openapi::api::core::v1::Pod;
use kube::api::{Api, ApiResource};
use kube::core::Object;
use kube::runtime::WatchStreamExt;
use kube::runtime::watcher::{self, Event as WatchEvent, watcher};
use stowage_shared::pod::{PodSpec, PodStatus};

use super::trouble;
use crate::book::{Event, PodSeen};
use crate::config::GpuNames;
use crate::plugin::Plugin;
use crate::told::AtMostEvery;

/// A pod with only the fields that matter here: environments and volumes are never kept.
pub(super) type SlimPod = Object<PodSpec, PodStatus>;

/// How often trouble with the watch is logged.
const LOG_EVERY: Duration = Duration::from_secs(60);

/// The pods' API.
pub(super) fn api(client: kube::Client) -> Api<SlimPod> {
    Api::all_with(client, &ApiResource::erase::<Pod>(&()))
}

/// Selects the pods that are bound to a node: the kubelet's own selector.
pub(super) fn on_node(node: &str) -> String {
    format!("spec.nodeName={node}")
}

/// Follows the node's pods until the process ends. Trouble is logged and retried with back-off.
pub async fn follow(plugin: Arc<Plugin>, client: kube::Client, node: &str) {
    let config = watcher::Config::default().fields(&on_node(node));
    let mut events = std::pin::pin!(watcher(api(client), config).default_backoff());
    let mut listed = Vec::new();
    let mut log = AtMostEvery::new(LOG_EVERY);
    loop {
        match events.try_next().await {
            Ok(None) => return,
            Ok(Some(event)) => {
                // Each try begins with `Init`, before anything has answered.
                if !matches!(event, WatchEvent::Init | WatchEvent::InitApply(_)) && log.reset() {
                    tracing::info!(node, "This node's pods are watched again.");
                }
                match event {
                    WatchEvent::Init => listed.clear(),
                    WatchEvent::InitApply(pod) => listed.extend(seen(pod, &plugin.gpu_names)),
                    // Only now is the list whole: a half of it would look as if the other half were gone.
                    WatchEvent::InitDone => plugin.record(Event::Pods(std::mem::take(&mut listed))),
                    WatchEvent::Apply(pod) => {
                        if let Some(pod) = seen(pod, &plugin.gpu_names) {
                            plugin.record_pod(pod);
                        }
                    }
                    WatchEvent::Delete(pod) => {
                        if let Some(uid) = pod.metadata.uid.filter(|uid| plugin.book.borrow().knows_pod(uid))
                        {
                            plugin.record(Event::PodGone { uid });
                        }
                    }
                }
            }
            Err(error) => {
                if log.may() {
                    let cure = match &error {
                        watcher::Error::InitialListFailed(source)
                        | watcher::Error::WatchStartFailed(source)
                        | watcher::Error::WatchFailed(source) => trouble::cure(source),
                        _ => "it is tried again",
                    };
                    tracing::warn!(
                        node,
                        error = chain(&error),
                        cure,
                        "This node's pods cannot be watched, so new plans are not seen."
                    );
                }
            }
        }
    }
}

fn chain(error: &watcher::Error) -> String {
    match error {
        watcher::Error::InitialListFailed(source)
        | watcher::Error::WatchStartFailed(source)
        | watcher::Error::WatchFailed(source) => trouble::words(source),
        other => other.to_string(),
    }
}

/// A pod as the book wants it; `None` for an object that is none.
pub(super) fn seen(pod: SlimPod, names: &GpuNames) -> Option<PodSeen> {
    let meta = pod.metadata;
    let key = (meta.namespace?, meta.name?, meta.uid?);
    let created = meta.creation_timestamp.map_or(0, |time| time.0.as_second());
    let annotations = meta.annotations.unwrap_or_default().into_iter().collect();
    let ending = meta.deletion_timestamp.is_some();
    let is_gpu = |name: &str| names.has(name);
    let status = pod.status.unwrap_or_default();
    Some(PodSeen { ending, ..PodSeen::on(is_gpu, key, created, annotations, &pod.spec, &status) })
}
