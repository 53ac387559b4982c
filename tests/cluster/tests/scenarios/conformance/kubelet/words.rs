//! What a script of the kubelet sees, in words that are the same in every run.

use std::time::Duration;

use anyhow::Result;
use kubelet_api::pod_resources::pod_resources_lister_client::PodResourcesListerClient;
use kubelet_api::pod_resources::{self, ContainerDevices, PodResources};
use stowage_cluster_tests::wait_until;
use tonic::transport::Channel;
use tonic::{Code, Response, Status};

use super::Node;
use super::fake_plugin::{Asked, FakePlugin};

/// A kubelet that has just started listens within a second or so.
const LIMIT: Duration = Duration::from_secs(30);

type Client = PodResourcesListerClient<Channel>;

/// Asks pod-resources, again if it was asked too often: the answer, or its refusal.
pub(super) async fn ask<T>(
    node: &impl Node,
    call: impl AsyncFn(Client) -> Result<Response<T>, Status>,
) -> Result<Result<T, Status>> {
    wait_until(LIMIT, "an answer of pod-resources", async || {
        let channel = kubelet_api::endpoint(&node.pod_resources_socket())?.connect().await?;
        match call(pod_resources::client(channel)).await {
            Err(status) if status.code() == Code::ResourceExhausted => Err(status.into()),
            answer => Ok(answer.map(Response::into_inner)),
        }
    })
    .await
}

/// What the plugin was asked since the last look, one line each; ids are sorted already.
pub(super) fn asked(plugin: &FakePlugin) -> String {
    let line = |asked: &Asked| match asked {
        Asked::Options => "GetDevicePluginOptions".to_owned(),
        Asked::Preferred(request) => {
            let [available, must_include] =
                [&request.available_device_ids, &request.must_include_device_ids].map(|ids| ids.join(" "));
            let size = request.allocation_size;
            format!("GetPreferredAllocation {size} of [{available}] with [{must_include}]")
        }
        Asked::Allocate(ids) => format!("Allocate [{}]", ids.join(" ")),
        Asked::PreStart(ids) => format!("PreStartContainer [{}]", ids.join(" ")),
    };
    let lines: Vec<String> = plugin.take_asked().iter().map(line).collect();
    if lines.is_empty() { "nothing asked".to_owned() } else { lines.join("\n") }
}

/// A pod with its containers, in their order, and their devices.
pub(super) fn pod(pod: &PodResources) -> String {
    let containers = pod.containers.iter();
    let containers = containers.map(|one| format!("{} [{}]", one.name, devices(&one.devices)));
    format!("{}: {}", pod.name, containers.collect::<Vec<_>>().join(" "))
}

/// Entries of the script's resources, as `id` or `id@node`.
pub(super) fn devices(entries: &[ContainerDevices]) -> String {
    let ours = entries.iter().filter(|entry| entry.resource_name.starts_with("example.com/"));
    let mut entries: Vec<String> = ours
        .map(|entry| {
            let nodes = entry.topology.iter().flat_map(|topology| &topology.nodes);
            let nodes: String = nodes.map(|node| format!("@{}", node.id)).collect();
            entry.device_ids.join("+") + &nodes
        })
        .collect();
    entries.sort();
    entries.join(" ")
}
