//! The kubelet's calls, made by a bare client.

use std::path::{Path, PathBuf};
use std::time::Instant;

use anyhow::{Context, Result};
use kubelet_api::device_plugin::device_plugin_client::DevicePluginClient;
use kubelet_api::device_plugin::{
    AllocateRequest, ContainerAllocateRequest, ContainerPreferredAllocationRequest, Empty,
    ListAndWatchResponse, PreferredAllocationRequest,
};
use tonic::transport::Channel;

use super::figures::{Figure, Figures};
use super::machine::Plugin;
use crate::stats::Times;

/// Calls of each kind in a run.
const CALLS: usize = 500;
/// Calls that are not measured: the first ones find caches cold.
const WARM_UP: usize = 20;
/// Calls while a GPU is lost.
const LOST_CALLS: usize = 50;

/// A client of one resource of a plugin.
pub(crate) type Client = DevicePluginClient<Channel>;

/// Connects to a plugin's socket of this resource.
pub(crate) async fn connect(folder: &Path, plugin: &Plugin, resource: &str) -> Result<Client> {
    let socket = socket_of(folder, plugin, resource)?;
    Ok(Client::new(kubelet_api::endpoint(&socket)?.connect().await?))
}

fn socket_of(folder: &Path, plugin: &Plugin, resource: &str) -> Result<PathBuf> {
    let short = resource.split('/').next_back().unwrap_or(resource);
    let is_it = |name: &str| match plugin {
        Plugin::Nvidias(_) => name == format!("nvidia-{short}.sock"),
        // Ours have a random end, since a predecessor may still be there.
        Plugin::Ours => name.rsplit_once('-').is_some_and(|(stem, _)| stem == format!("stowage-{short}")),
    };
    let entries = std::fs::read_dir(folder)?.collect::<Result<Vec<_>, _>>()?;
    let mut own = entries.into_iter().filter(|entry| is_it(&entry.file_name().to_string_lossy()));
    let found = own.next().with_context(|| format!("no socket for {resource} in {}", folder.display()))?;
    Ok(found.path())
}

/// The plugin's first device list.
pub(crate) async fn list(client: &mut Client) -> Result<ListAndWatchResponse> {
    let mut stream = client.list_and_watch(Empty {}).await?.into_inner();
    stream.message().await?.context("the stream ended")
}

/// A question which of these devices to take.
pub(crate) fn preferred(ids: &[String], size: usize) -> PreferredAllocationRequest {
    let request = ContainerPreferredAllocationRequest {
        available_device_ids: ids.to_vec(),
        must_include_device_ids: Vec::new(),
        allocation_size: i32::try_from(size).unwrap_or(i32::MAX),
    };
    PreferredAllocationRequest { container_requests: vec![request] }
}

/// A container's devices.
pub(crate) fn allocate(ids: &[String]) -> AllocateRequest {
    AllocateRequest { container_requests: vec![ContainerAllocateRequest { devices_ids: ids.to_vec() }] }
}

async fn ids(client: &mut Client) -> Result<Vec<String>> {
    Ok(list(client).await?.devices.into_iter().map(|device| device.id).collect())
}

/// Measures the calls that hold up a pod's admission.
pub(crate) async fn measure(client: &mut Client, figures: &mut Figures) -> Result<()> {
    let ids = ids(client).await?;
    let [mut options, mut prefers, mut allocates] = [Times::default(), Times::default(), Times::default()];
    for call in 0..WARM_UP + CALLS {
        let start = Instant::now();
        client.get_device_plugin_options(Empty {}).await?;
        let asked = Instant::now();
        client.get_preferred_allocation(preferred(&ids, 1 + call % 4)).await?;
        let preferred = Instant::now();
        client.allocate(allocate(std::slice::from_ref(&ids[call % ids.len()]))).await?;
        if call >= WARM_UP {
            options.push(asked - start);
            prefers.push(preferred - asked);
            allocates.push(preferred.elapsed());
        }
    }
    figures.push(Figure::Options, options.at(0.5));
    figures.push(Figure::Preferred, prefers.at(0.5));
    figures.push(Figure::PreferredSlow, prefers.at(0.99));
    figures.push(Figure::Allocate, allocates.at(0.5));
    figures.push(Figure::AllocateSlow, allocates.at(0.99));
    Ok(())
}

/// How many in a hundred questions which GPUs to take end with an error, each of which fails a pod for good.
pub(crate) async fn errors(client: &mut Client) -> Result<f64> {
    let ids = ids(client).await?;
    let mut errors = 0;
    for call in 0..LOST_CALLS {
        errors += u32::from(client.get_preferred_allocation(preferred(&ids, 1 + call % 4)).await.is_err());
    }
    Ok(100.0 * f64::from(errors) / LOST_CALLS as f64)
}
