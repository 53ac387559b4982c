//! Who holds which devices: the kubelet's pod-resources, asked again and again.
//!
//! The kubelet tells nobody when devices are handed out or freed, so we ask: soon after each `Allocate` and each
//! pod that goes, and every few seconds otherwise. It answers 100 calls a second for all clients together. Where
//! it does not answer, nothing is concluded: what was held stays held.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use kubelet_api::pod_resources::pod_resources_lister_client::PodResourcesListerClient;
use kubelet_api::pod_resources::{ListPodResourcesRequest, ListPodResourcesResponse};
use ops::Fault;
use stowage_shared::resource::ResourceName;
use tokio::time::{Instant, sleep_until, timeout};
use tonic::transport::Channel;

use crate::book::{Event, Holding};
use crate::config::GpuNames;
use crate::plugin::Plugin;
use crate::told::AtMostEvery;

/// How often it is asked while nothing happens.
const QUIET: Duration = Duration::from_secs(5);
/// How soon after an `Allocate`: the kubelet stores the devices only after the answer.
const SOON: Duration = Duration::from_millis(20);
/// The least time between two questions.
const LEAST: Duration = Duration::from_millis(50);
/// How long an answer may take.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(2);
/// How long to wait after a question that was not answered.
const AFTER_FAILURE: Duration = Duration::from_secs(1);
/// How often a failure is logged.
const LOG_EVERY: Duration = Duration::from_secs(60);

/// Asks until the process ends.
///
/// # Errors
/// A [`Fault`] where the socket's path cannot be dialled at all.
pub async fn follow(plugin: Arc<Plugin>, socket: &Path) -> Result<(), Fault> {
    let endpoint = kubelet_api::endpoint(socket).map_err(Fault::config)?.connect_timeout(ANSWER_TIMEOUT);
    // Dials when it is first used, and again whenever the kubelet was restarted.
    let mut client = kubelet_api::pod_resources::client(endpoint.connect_lazy());
    let mut log = AtMostEvery::new(LOG_EVERY);
    let mut pace = Pace::new();
    loop {
        let asked_at = plugin.now();
        let answer = list(&mut client).await;
        plugin.metrics.asked_pod_resources(answer.is_ok());
        let next = match answer {
            Ok(list) => {
                if log.reset() {
                    tracing::info!("The kubelet tells again who holds which devices.");
                }
                plugin.record(Event::PodResources { held: holdings(list, &plugin.gpu_names), asked_at });
                if plugin.book.borrow().awaits_holders() { pace.slower() } else { pace.quiet() }
            }
            Err(error) => {
                if log.may() {
                    tracing::warn!(
                        socket = %socket.display(),
                        error = format!("{error:#}"),
                        "The kubelet does not tell who holds which devices: nothing is published as free until it \
                         does. Is its pod-resources folder mounted, and --pod-resources-socket right?"
                    );
                }
                AFTER_FAILURE
            }
        };
        wait(&plugin, next, &mut pace).await;
    }
}

/// Waits for the next question: `next`, or sooner if something happens.
async fn wait(plugin: &Plugin, next: Duration, pace: &mut Pace) {
    let asked = Instant::now();
    let mut due = asked + next.max(LEAST);
    loop {
        tokio::select! {
            () = sleep_until(due) => return,
            () = plugin.holders_changed.notified() => {
                pace.restart();
                due = due.min((Instant::now() + SOON).max(asked + LEAST));
            }
        }
    }
}

/// How soon to ask again while an allocation has not shown yet: it does so in milliseconds, or never.
struct Pace(Duration);

impl Pace {
    fn new() -> Self {
        Self(LEAST)
    }

    fn restart(&mut self) {
        self.0 = LEAST;
    }

    fn slower(&mut self) -> Duration {
        let now = self.0;
        self.0 = (now * 2).min(QUIET);
        now
    }

    fn quiet(&mut self) -> Duration {
        self.restart();
        QUIET
    }
}

async fn list(client: &mut PodResourcesListerClient<Channel>) -> anyhow::Result<ListPodResourcesResponse> {
    let answer = timeout(ANSWER_TIMEOUT, client.list(ListPodResourcesRequest {})).await;
    Ok(answer.with_context(|| format!("no answer in {ANSWER_TIMEOUT:?}"))??.into_inner())
}

/// What the answer says of GPUs. Names that are no GPU resource are other plugins' business. A GPU resource
/// counts even if it is not offered any more: whoever holds it still uses the GPU.
fn holdings(list: ListPodResourcesResponse, names: &GpuNames) -> Vec<Holding> {
    let mut holdings: Vec<Holding> = Vec::new();
    for pod in list.pod_resources {
        for container in pod.containers {
            for devices in container.devices {
                let name = devices.resource_name;
                let Some(resource) = name.parse::<ResourceName>().ok().filter(|_| names.has(&name)) else {
                    continue;
                };
                // The kubelet makes an entry of its own for each NUMA node, or for each device.
                let same = |held: &&mut Holding| {
                    held.namespace == pod.namespace
                        && held.pod == pod.name
                        && held.container == container.name
                        && held.resource == resource
                };
                match holdings.iter_mut().rev().find(same) {
                    Some(held) => held.device_ids.extend(devices.device_ids),
                    None => holdings.push(Holding {
                        namespace: pod.namespace.clone(),
                        pod: pod.name.clone(),
                        container: container.name.clone(),
                        resource,
                        device_ids: devices.device_ids,
                    }),
                }
            }
        }
    }
    for held in &mut holdings {
        held.device_ids.sort();
        held.device_ids.dedup();
    }
    holdings
}

#[cfg(test)]
mod tests {
    use kubelet_api::pod_resources::{ContainerDevices, ContainerResources, PodResources};

    use super::*;
    use crate::config::{NamePattern, ResourceNames, SharedDevices, SharedResource, Sharing};

    /// `big` for GPUs, and `quarter` for shares.
    fn names() -> GpuNames {
        let name = |short: &str| format!("nvidia.com/{short}").parse().unwrap();
        let gpus = vec![NamePattern { pattern: "*".into(), name: name("big") }];
        let (rename, devices) = (Some(name("quarter")), SharedDevices::All);
        let resources = vec![SharedResource { name: name("big"), rename, devices, replicas: 4 }];
        let sharing = Sharing { resources, ..Sharing::default() };
        GpuNames::of(&ResourceNames { gpus, mig: vec![] }, Some(&sharing))
    }

    #[test]
    fn devices_of_one_resource_are_put_together_and_other_resources_left_out() {
        let devices = |name: &str, ids: &[&str]| ContainerDevices {
            resource_name: name.into(),
            device_ids: ids.iter().map(|id| (*id).to_owned()).collect(),
            topology: None,
        };
        let list = ListPodResourcesResponse {
            pod_resources: vec![PodResources {
                name: "p".into(),
                namespace: "ns".into(),
                containers: vec![ContainerResources {
                    name: "main".into(),
                    devices: vec![
                        devices("nvidia.com/gpu", &["GPU-b"]),
                        devices("example.com/nic", &["eth0"]),
                        devices("nvidia.com/hostdev", &["0000:3b:00.0"]),
                        devices("nvidia.com/quarter", &["GPU-c::1"]),
                        devices("nvidia.com/big", &["GPU-d"]),
                        devices("nvidia.com/gpu", &["GPU-a"]),
                        devices("nvidia.com/mig-1g.5gb", &["MIG-a"]),
                    ],
                    ..ContainerResources::default()
                }],
            }],
        };
        let found: Vec<String> = holdings(list, &names())
            .iter()
            .map(|held| {
                format!(
                    "{}/{} {} {} {:?}",
                    held.namespace,
                    held.pod,
                    held.container,
                    held.resource.short(),
                    held.device_ids
                )
            })
            .collect();
        assert_eq!(
            found,
            [
                r#"ns/p main gpu ["GPU-a", "GPU-b"]"#,
                r#"ns/p main quarter ["GPU-c::1"]"#,
                r#"ns/p main big ["GPU-d"]"#,
                r#"ns/p main mig-1g.5gb ["MIG-a"]"#,
            ]
        );
    }

    #[test]
    fn an_allocation_that_does_not_show_is_asked_for_less_and_less_often() {
        let mut pace = Pace::new();
        let waits: Vec<Duration> = (0..9).map(|_| pace.slower()).collect();
        assert_eq!(waits[0], LEAST);
        assert!(waits.is_sorted() && waits[8] == QUIET, "{waits:?}");
        assert_eq!(pace.quiet(), QUIET);
        assert_eq!(pace.slower(), LEAST);
    }
}
