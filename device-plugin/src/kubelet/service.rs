//! What the kubelet may ask of one resource.
//!
//! Its calls hold up the admission of every pod of the node, one after another and without a time limit of its
//! own. So `Allocate` only looks into memory, and `GetPreferredAllocation` waits for a plan within stated bounds.
//! An error of either fails a pod for good: the latter never gives one, the former only for what cannot be.

use std::pin::Pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures::{Stream, stream};
use kubelet_api::device_plugin::device_plugin_server::DevicePlugin;
use kubelet_api::device_plugin::{
    AllocateRequest, AllocateResponse, ContainerPreferredAllocationRequest,
    ContainerPreferredAllocationResponse, Device, DevicePluginOptions, Empty, HEALTHY, ListAndWatchResponse,
    NumaNode, PreStartContainerRequest, PreStartContainerResponse, PreferredAllocationRequest,
    PreferredAllocationResponse, TopologyInfo, UNHEALTHY,
};
use stowage_shared::contract::PLAN_WAIT;
use stowage_shared::resource::ResourceName;
use tokio::sync::watch;
use tonic::{Request, Response, Status};

use super::allocate::options;
use super::life::Surroundings;
use crate::book::{Ask, Book, Choice, Event};
use crate::cluster::PlanLookup;
use crate::inventory::ListedDevice;
use crate::plugin::Plugin;
use crate::slices::Slices;

/// How long the first calls after the start wait for pod-resources: until it has told who holds what, a pod that
/// runs already looks like one that waits.
const HOLDERS_WAIT: Duration = Duration::from_millis(200);

/// Serves one resource.
pub struct Service {
    pub(super) resource: ResourceName,
    pub(super) plugin: Arc<Plugin>,
    /// Builds MIG slices, where that is done on demand.
    pub(super) slices: Option<Arc<Slices>>,
    /// Looks pods up at the API server, where there is one.
    lookup: Option<Arc<PlanLookup>>,
    /// The device lists that are being followed.
    streams: watch::Sender<Streams>,
    /// Turns true when the server is to end.
    stop: watch::Receiver<bool>,
}

impl Service {
    /// A service that reports its open device lists to `streams` and ends them when `stop` says so.
    pub fn new(
        resource: ResourceName,
        world: &Surroundings,
        streams: watch::Sender<Streams>,
        stop: watch::Receiver<bool>,
    ) -> Self {
        let Surroundings { plugin, slices, lookup, .. } = world.clone();
        Self { resource, plugin, slices, lookup, streams, stop }
    }

    /// Chooses for one container, after waiting for its plan if that may help.
    async fn prefer(&self, request: &ContainerPreferredAllocationRequest) -> Vec<String> {
        let ask = Ask {
            resource: &self.resource,
            available: &request.available_device_ids,
            must_include: &request.must_include_device_ids,
            size: usize::try_from(request.allocation_size).unwrap_or(0),
        };
        let waited = self.wait_for_plan(&ask).await;
        let Choice { ids, source } = self.plugin.book.borrow().choose(&ask);
        self.plugin.metrics.preferred(source, waited);
        tracing::debug!(resource_name = %self.resource, size = ask.size, ?source, ?ids, "Devices preferred.");
        ids
    }

    /// Waits until a pod is known that may be asking, then looks it up once, then gives up. Tells how long it
    /// took, if it had to wait.
    async fn wait_for_plan(&self, ask: &Ask<'_>) -> Option<Duration> {
        let start = Instant::now();
        if !self.plugin.book.borrow().knows_holders() {
            self.wait_for(HOLDERS_WAIT, |book| book.knows_holders()).await;
        }
        let lookup = self.lookup.as_ref()?;
        let expected = |book: &Book| book.expects(ask);
        if expected(&self.plugin.book.borrow()) {
            return None;
        }
        self.wait_for(PLAN_WAIT, expected).await;
        if !expected(&self.plugin.book.borrow()) && !*self.stop.borrow() {
            let found = lookup.look_up(&self.plugin.gpu_names).await;
            for pod in found.into_iter().flatten() {
                self.plugin.record(Event::FoundPod(pod));
            }
        }
        Some(start.elapsed())
    }

    /// Waits until the book is so, the time is over, or the server is to end.
    async fn wait_for(&self, most: Duration, so: impl Fn(&Book) -> bool) {
        let (mut book, mut stop) = (self.plugin.book.subscribe(), self.stop.clone());
        tokio::select! {
            _ = tokio::time::timeout(most, book.wait_for(so)) => {}
            _ = stop.wait_for(|stop| *stop) => {}
        }
    }
}

/// The device lists that the kubelet follows.
#[derive(Debug, Clone, Copy, Default)]
pub struct Streams {
    /// How many are open.
    pub open: usize,
    /// Whether there has been one: a kubelet that ends may follow a list for less time than it takes to see that.
    pub seen: bool,
}

/// Counts an open device list until it is dropped, whoever ends it.
struct Followed(watch::Sender<Streams>);

impl Followed {
    fn begin(streams: &watch::Sender<Streams>) -> Self {
        streams.send_modify(|streams| *streams = Streams { open: streams.open + 1, seen: true });
        Self(streams.clone())
    }
}

impl Drop for Followed {
    fn drop(&mut self) {
        self.0.send_modify(|streams| streams.open = streams.open.saturating_sub(1));
    }
}

/// The device lists of one stream.
struct Lists {
    _followed: Followed,
    plugin: Arc<Plugin>,
    resource: ResourceName,
    book: watch::Receiver<Book>,
    stop: watch::Receiver<bool>,
    last: Option<Vec<ListedDevice>>,
}

impl Lists {
    /// Waits for a list that differs from the last one.
    async fn next(mut self) -> Option<(Result<ListAndWatchResponse, Status>, Self)> {
        loop {
            let devices = self.plugin.listed(&self.book.borrow_and_update(), &self.resource);
            if self.last.as_ref() != Some(&devices) {
                let list = response(&devices);
                self.last = Some(devices);
                return Some((Ok(list), self));
            }
            // An error means that a sender is gone, which is an end as well.
            tokio::select! {
                changed = self.book.changed() => changed.ok()?,
                _ = self.stop.wait_for(|stop| *stop) => return None,
            }
        }
    }
}

/// Devices as the kubelet wants them.
fn response(devices: &[ListedDevice]) -> ListAndWatchResponse {
    let device = |device: &ListedDevice| Device {
        id: device.id.clone(),
        health: if device.healthy { HEALTHY } else { UNHEALTHY }.to_owned(),
        topology: device.numa_node.map(|node| TopologyInfo { nodes: vec![NumaNode { id: i64::from(node) }] }),
    };
    ListAndWatchResponse { devices: devices.iter().map(device).collect() }
}

#[tonic::async_trait]
impl DevicePlugin for Service {
    type ListAndWatchStream = Pin<Box<dyn Stream<Item = Result<ListAndWatchResponse, Status>> + Send>>;

    async fn get_device_plugin_options(
        &self,
        _: Request<Empty>,
    ) -> Result<Response<DevicePluginOptions>, Status> {
        Ok(Response::new(options(self.slices.as_deref())))
    }

    /// Lists the devices, again whenever they change, until the server ends: to the kubelet, its end is the plugin's.
    async fn list_and_watch(&self, _: Request<Empty>) -> Result<Response<Self::ListAndWatchStream>, Status> {
        let lists = Lists {
            _followed: Followed::begin(&self.streams),
            book: self.plugin.book.subscribe(),
            plugin: self.plugin.clone(),
            resource: self.resource.clone(),
            stop: self.stop.clone(),
            last: None,
        };
        Ok(Response::new(Box::pin(stream::unfold(lists, Lists::next))))
    }

    async fn get_preferred_allocation(
        &self,
        request: Request<PreferredAllocationRequest>,
    ) -> Result<Response<PreferredAllocationResponse>, Status> {
        let mut container_responses = Vec::new();
        for request in request.into_inner().container_requests {
            container_responses
                .push(ContainerPreferredAllocationResponse { device_ids: self.prefer(&request).await });
        }
        Ok(Response::new(PreferredAllocationResponse { container_responses }))
    }

    async fn allocate(
        &self,
        request: Request<AllocateRequest>,
    ) -> Result<Response<AllocateResponse>, Status> {
        let container_responses = self.answer(request.into_inner().container_requests).await?;
        Ok(Response::new(AllocateResponse { container_responses }))
    }

    /// Only where slices are built then.
    async fn pre_start_container(
        &self,
        request: Request<PreStartContainerRequest>,
    ) -> Result<Response<PreStartContainerResponse>, Status> {
        self.prepare(&request.into_inner().devices_ids).await?;
        Ok(Response::new(PreStartContainerResponse {}))
    }
}
