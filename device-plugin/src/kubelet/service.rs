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

use crate::answer::allocate_response;
use crate::book::{Ask, Book, Choice, Event};
use crate::cluster::PlanLookup;
use crate::inventory::ListedDevice;
use crate::plugin::Plugin;

/// How long the first calls after the start wait for pod-resources: until it has told who holds what, a pod that
/// runs already looks like one that waits.
const HOLDERS_WAIT: Duration = Duration::from_millis(200);

/// Serves one resource.
pub struct Service {
    resource: ResourceName,
    plugin: Arc<Plugin>,
    /// Looks pods up at the API server, where there is one.
    lookup: Option<Arc<PlanLookup>>,
    /// How many device lists are being followed.
    streams: watch::Sender<usize>,
    /// Turns true when the server is to end.
    stop: watch::Receiver<bool>,
}

impl Service {
    /// A service that reports its open device lists to `streams` and ends them when `stop` says so.
    pub fn new(
        resource: ResourceName,
        plugin: Arc<Plugin>,
        lookup: Option<Arc<PlanLookup>>,
        streams: watch::Sender<usize>,
        stop: watch::Receiver<bool>,
    ) -> Self {
        Self { resource, plugin, lookup, streams, stop }
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
            let inventory = self.plugin.book.borrow().inventory().clone();
            let found = lookup.look_up(&inventory).await;
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

/// Counts an open device list until it is dropped, whoever ends it.
struct Followed(watch::Sender<usize>);

impl Followed {
    fn begin(streams: &watch::Sender<usize>) -> Self {
        streams.send_modify(|open| *open += 1);
        Self(streams.clone())
    }
}

impl Drop for Followed {
    fn drop(&mut self) {
        self.0.send_modify(|open| *open = open.saturating_sub(1));
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
        let options =
            DevicePluginOptions { pre_start_required: false, get_preferred_allocation_available: true };
        Ok(Response::new(options))
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
        let requests = request.into_inner().container_requests;
        let inventory = self.plugin.book.borrow().inventory().clone();
        let answers = self.plugin.answers();
        let mut container_responses = Vec::with_capacity(requests.len());
        for request in &requests {
            let ids = &request.devices_ids;
            // The kubelet fails the pod for good with this text as its message: it is for the pod's author.
            let refuse = |text: String| {
                self.plugin.metrics.allocation_refused();
                tracing::error!(resource_name = %self.resource, error = text, "Devices refused.");
                Status::invalid_argument(text)
            };
            let is_share = |id: &String| inventory.is_share(&self.resource, id);
            let one_only = self.plugin.fail_requests_greater_than_one && ids.iter().any(is_share);
            if one_only && ids.len() > 1 {
                let (resource, count) = (&self.resource, ids.len());
                return Err(refuse(format!(
                    "request for '{resource}: {count}' too large: maximum request size for shared resources is 1"
                )));
            }
            if inventory.share_rules().distinct_gpus
                && let Some(part) = inventory.same_part_twice(&self.resource, ids)
            {
                let (resource, count) = (&self.resource, ids.len());
                return Err(refuse(format!(
                    "request for '{resource}: {count}' wants shares of different GPUs (sharing.timeSlicing.distinctGPUs), and this node has not as many free: {part} would be used twice"
                )));
            }
            let response = allocate_response(&inventory, &self.resource, ids, &answers)
                .map_err(|error| refuse(error.to_string()))?;
            container_responses.push(response);
        }
        let at = self.plugin.now();
        for ids in requests.into_iter().map(|request| request.devices_ids) {
            tracing::debug!(resource_name = %self.resource, ?ids, "Devices allocated.");
            self.plugin.record(Event::Allocated { resource: self.resource.clone(), ids, at });
        }
        Ok(Response::new(AllocateResponse { container_responses }))
    }

    /// Never asked for: the options say so.
    async fn pre_start_container(
        &self,
        _: Request<PreStartContainerRequest>,
    ) -> Result<Response<PreStartContainerResponse>, Status> {
        Ok(Response::new(PreStartContainerResponse {}))
    }
}
