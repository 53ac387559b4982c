//! The pod-resources service, v1.
//!
//! After `pkg/kubelet/apis/podresources/server_v1.go` of Kubernetes 1.36. CPUs, memory and resource
//! claims are not there: the lists are empty, as on a node with the default policies.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use kubelet_api::pod_resources::pod_resources_lister_server::PodResourcesLister;
use kubelet_api::pod_resources::{
    AllocatableResourcesRequest, AllocatableResourcesResponse, ContainerDevices, ContainerResources,
    GetPodResourcesRequest, GetPodResourcesResponse, ListPodResourcesRequest, ListPodResourcesResponse,
    MAX_BURST_CALLS, MAX_CALLS_PER_SECOND, NumaNode, PodResources, TopologyInfo,
};
use tokio::time::Instant;
use tonic::{Request, Response, Status};

use super::pod::{ContainerKind, PodToAdmit};
use super::shared::{KnownPod, Shared, State};

/// The service of one life of the kubelet.
#[derive(Debug)]
pub(super) struct Lister {
    shared: Arc<Shared>,
    life: u64,
    limit: Mutex<CallLimit>,
}

impl Lister {
    pub(super) fn new(shared: Arc<Shared>, life: u64) -> Self {
        Self { shared, life, limit: Mutex::new(CallLimit::new(Instant::now())) }
    }

    /// Answers from the state, within the limit of calls.
    fn answer<T>(&self, look: impl FnOnce(&mut State) -> Result<T, Status>) -> Result<Response<T>, Status> {
        if !self.limit.lock().unwrap_or_else(PoisonError::into_inner).allows(Instant::now()) {
            return Err(Status::resource_exhausted("rejected by rate limit"));
        }
        // A connection may outlive its server by a moment; a stopped process answers nobody.
        let answer = self.shared.in_life(self.life, look);
        answer.unwrap_or_else(|| Err(Status::unavailable("the kubelet stopped"))).map(Response::new)
    }
}

#[tonic::async_trait]
impl PodResourcesLister for Lister {
    async fn list(
        &self,
        _: Request<ListPodResourcesRequest>,
    ) -> Result<Response<ListPodResourcesResponse>, Status> {
        self.answer(|state| Ok(state.pod_resources()))
    }

    async fn get_allocatable_resources(
        &self,
        _: Request<AllocatableResourcesRequest>,
    ) -> Result<Response<AllocatableResourcesResponse>, Status> {
        self.answer(|state| Ok(state.allocatable_resources()))
    }

    async fn get(
        &self,
        request: Request<GetPodResourcesRequest>,
    ) -> Result<Response<GetPodResourcesResponse>, Status> {
        let GetPodResourcesRequest { pod_name, pod_namespace } = request.into_inner();
        self.answer(|state| {
            // A pod that has ended is as unknown as to `List`; but its devices are not freed here.
            let known = state.pod_named(&pod_namespace, &pod_name).filter(|known| known.active);
            let known = known.ok_or_else(|| {
                Status::unknown(format!("pod {pod_name} in namespace {pod_namespace} not found"))
            })?;
            Ok(GetPodResourcesResponse { pod_resources: Some(state.resources_of(&known.pod)) })
        })
    }
}

impl State {
    /// The pod of this name; the active one if there are two.
    pub(super) fn pod_named(&self, namespace: &str, name: &str) -> Option<&KnownPod> {
        self.pods
            .values()
            .filter(|known| known.pod.namespace == namespace && known.pod.name == name)
            .max_by_key(|known| known.active)
    }

    /// `List`: frees the devices of ended pods, then tells of the others.
    pub(super) fn pod_resources(&mut self) -> ListPodResourcesResponse {
        self.free_ended();
        let active = self.pods.values().filter(|known| known.active);
        ListPodResourcesResponse {
            pod_resources: active.map(|known| self.resources_of(&known.pod)).collect(),
        }
    }

    fn resources_of(&self, pod: &PodToAdmit) -> PodResources {
        let containers = pod
            .in_admission_order()
            .filter(|container| container.kind != ContainerKind::Init)
            .map(|container| ContainerResources {
                name: container.name.clone(),
                devices: self.devices_of(&pod.uid, &container.name),
                ..ContainerResources::default()
            });
        PodResources {
            name: pod.name.clone(),
            namespace: pod.namespace.clone(),
            containers: containers.collect(),
        }
    }

    fn devices_of(&self, uid: &str, container: &str) -> Vec<ContainerDevices> {
        let held = self.books.held(uid, container).into_iter().flatten();
        held.flat_map(|(resource, held)| {
            held.devices.iter().flat_map(move |(id, nodes)| {
                // A device without nodes is told all the same, without a topology.
                let nodes =
                    if nodes.is_empty() { vec![None] } else { nodes.iter().copied().map(Some).collect() };
                nodes.into_iter().map(move |node| entry(resource, id, node))
            })
        })
        .collect()
    }

    /// `GetAllocatableResources`: the healthy devices, held by pods or not.
    fn allocatable_resources(&self) -> AllocatableResourcesResponse {
        let devices = self.books.healthy_devices().flat_map(|(resource, device)| {
            let nodes = match &device.topology {
                None => vec![None],
                // A topology without nodes makes the kubelet leave the device out.
                Some(topology) => topology.nodes.iter().map(|node| Some(node.id)).collect(),
            };
            nodes.into_iter().map(move |node| entry(resource, &device.id, node))
        });
        AllocatableResourcesResponse { devices: devices.collect(), ..AllocatableResourcesResponse::default() }
    }
}

/// The kubelet writes one entry for each device and NUMA node.
fn entry(resource: &str, id: &str, node: Option<i64>) -> ContainerDevices {
    ContainerDevices {
        resource_name: resource.to_owned(),
        device_ids: vec![id.to_owned()],
        topology: node.map(|id| TopologyInfo { nodes: vec![NumaNode { id }] }),
    }
}

/// A token bucket, as the kubelet's: [`MAX_BURST_CALLS`] at once, refilled at
/// [`MAX_CALLS_PER_SECOND`]. A token is counted as the time that it takes to earn one.
#[derive(Debug)]
struct CallLimit {
    saved: Duration,
    counted_to: Instant,
}

impl CallLimit {
    const TOKEN: Duration = Duration::from_nanos(1_000_000_000 / MAX_CALLS_PER_SECOND as u64);
    const FULL: Duration = Self::TOKEN.saturating_mul(MAX_BURST_CALLS);

    fn new(now: Instant) -> Self {
        Self { saved: Self::FULL, counted_to: now }
    }

    fn allows(&mut self, now: Instant) -> bool {
        let saved = (self.saved + (now - self.counted_to)).min(Self::FULL);
        self.counted_to = now;
        let left = saved.checked_sub(Self::TOKEN);
        self.saved = left.unwrap_or(saved);
        left.is_some()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ten_calls_pass_at_once_and_one_more_every_ten_milliseconds() {
        let start = Instant::now();
        let mut limit = CallLimit::new(start);
        assert_eq!((0..20).filter(|_| limit.allows(start)).count(), 10);
        assert!(!limit.allows(start + Duration::from_millis(9)));
        assert!(limit.allows(start + Duration::from_millis(10)));
        assert!(!limit.allows(start + Duration::from_millis(10)));
        let later = start + Duration::from_secs(60);
        assert_eq!((0..20).filter(|_| limit.allows(later)).count(), 10, "unused time does not add up");
    }
}
