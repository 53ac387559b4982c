//! Admission of a pod, and the start of its containers: the device manager's calls to plugins.
//!
//! After `Allocate`, `allocateContainerResources` and `GetDeviceRunContainerOptions` of
//! `pkg/kubelet/cm/devicemanager/manager.go` of Kubernetes 1.36.

use kubelet_api::device_plugin::{
    AllocateRequest, AllocateResponse, ContainerAllocateRequest, ContainerAllocateResponse,
    ContainerPreferredAllocationRequest, PRE_START_CONTAINER_TIMEOUT, PreStartContainerRequest,
    PreferredAllocationRequest,
};
use tokio::time::timeout;

use super::books::Names;
use super::choosing::{Ask, Choice, OpenChoice};
use super::error::{AllocationError, CallError};
use super::merge::merge;
use super::options::{ChoiceRequest, DeviceChoice};
use super::plugins::Plugin;
use super::pod::{
    AdmissionError, Admitted, AdmittedContainer, Container, ContainerKind, PodToAdmit, StartContainerError,
};
use super::shared::{KnownPod, Shared};

impl Shared {
    /// Admits a pod: every container gets its devices, or the pod fails.
    pub(super) async fn admit(&self, pod: PodToAdmit) -> Result<Admitted, AdmissionError> {
        let _sync_loop = self.sync_loop.lock().await;
        {
            let mut state = self.state();
            if !state.is_running() {
                return Err(AdmissionError::Stopped);
            }
            state.pods.insert(pod.uid.clone(), KnownPod { pod: pod.clone(), active: true });
        }
        let abandoned = Abandoned { shared: self, uid: &pod.uid };
        let outcome = self.allocate_all(&pod).await;
        std::mem::forget(abandoned);
        match outcome {
            Ok(()) => Ok(self.admitted(&pod)),
            Err(error) => {
                self.state().refuse(&pod.uid);
                Err(AdmissionError::Unexpected(error))
            }
        }
    }

    async fn allocate_all(&self, pod: &PodToAdmit) -> Result<(), AllocationError> {
        for container in pod.in_admission_order() {
            self.allocate(&pod.uid, container).await?;
        }
        Ok(())
    }

    /// Gets a container ready to start: `PreStartContainer` where the plugin wants it, and what the
    /// runtime is told.
    pub(super) async fn start_container(
        &self,
        namespace: &str,
        pod: &str,
        container: &str,
    ) -> Result<ContainerAllocateResponse, StartContainerError> {
        let (uid, active, container) = {
            let state = self.state();
            if !state.is_running() {
                return Err(StartContainerError::Stopped);
            }
            let unknown = || StartContainerError::Unknown {
                namespace: namespace.to_owned(),
                pod: pod.to_owned(),
                container: container.to_owned(),
            };
            let known = state.pod_named(namespace, pod).ok_or_else(unknown)?;
            let container = known.pod.container(container).ok_or_else(unknown)?;
            (known.pod.uid.clone(), known.active, container.clone())
        };
        let mut lost = false;
        for (resource, count) in &container.devices {
            if *count == 0 || !self.state().books.is_device_plugin_resource(resource) {
                continue;
            }
            self.pre_start(&uid, &container.name, resource).await.map_err(StartContainerError::Config)?;
            lost |= active && self.state().books.held_ids(&uid, &container.name, resource).is_none();
        }
        if lost {
            // Admitted before its plugin was known, so it holds nothing yet.
            let _sync_loop = self.sync_loop.lock().await;
            self.allocate(&uid, &container).await.map_err(StartContainerError::Config)?;
        }
        Ok(self.merged(&uid, &container.name))
    }

    /// `Allocate`: the devices of one container, and what is left of them for the next.
    async fn allocate(&self, uid: &str, container: &Container) -> Result<(), AllocationError> {
        self.allocate_resources(uid, container).await?;
        let mut state = self.state();
        match container.kind {
            ContainerKind::Init => state.books.leave_to_next(uid, &container.name),
            ContainerKind::Sidecar | ContainerKind::App => state.books.keep_from_next(uid, &container.name),
        }
        Ok(())
    }

    /// `allocateContainerResources`.
    async fn allocate_resources(&self, uid: &str, container: &Container) -> Result<(), AllocationError> {
        let limits = self.state().books.in_any_order(&container.devices);
        let mut freed = false;
        for (resource, count) in limits {
            let required = usize::try_from(*count).unwrap_or(usize::MAX);
            let ask = Ask { pod_uid: uid, container: &container.name, resource, required };
            let choice = {
                let mut state = self.state();
                if !state.books.is_device_plugin_resource(resource) {
                    continue;
                }
                if !std::mem::replace(&mut freed, true) {
                    state.free_ended();
                }
                let reusable = state.books.reusable(uid, resource);
                state.books.choose(&ask, &reusable)?
            };
            let devices = match choice {
                Choice::Nothing => continue,
                Choice::Made(devices) => devices,
                Choice::Open(open) => {
                    let preferred = self.preferred(&ask, &open).await?;
                    self.state().books.fill_up(open, &ask, &preferred)?
                }
            };
            let response = self.call_allocate(resource, &devices).await?;
            self.state().books.hold(uid, &container.name, resource, devices, response);
        }
        Ok(())
    }

    /// Which devices somebody would like the container to get.
    async fn preferred(&self, ask: &Ask<'_>, open: &OpenChoice) -> Result<Names, AllocationError> {
        let available = open.available();
        if let DeviceChoice::Own(choose) = &self.options.device_choice {
            let request = ChoiceRequest {
                node_name: &self.options.node_name,
                resource_name: ask.resource,
                available: &available,
                must_include: &open.taken,
                size: ask.required,
            };
            return Ok(choose(&request).into_iter().collect());
        }
        let (client, request) = {
            let mut state = self.state();
            let endpoint = state.plugins.endpoint(ask.resource).cloned();
            let endpoint = endpoint.ok_or_else(|| AllocationError::NoEndpoint(ask.resource.to_owned()))?;
            if !endpoint.options.get_preferred_allocation_available {
                return Ok(Names::new());
            }
            let request = ContainerPreferredAllocationRequest {
                available_device_ids: state.books.in_any_order(available),
                must_include_device_ids: state.books.in_any_order(open.taken.iter().cloned()),
                allocation_size: i32::try_from(ask.required).unwrap_or(i32::MAX),
            };
            (endpoint.client, PreferredAllocationRequest { container_requests: vec![request] })
        };
        let mut plugin = there(client, ask.resource).map_err(AllocationError::Preferred)?;
        let answer = self.call(plugin.get_preferred_allocation(request)).await;
        let answers = answer.map_err(AllocationError::Preferred)?.container_responses;
        Ok(answers.into_iter().next().map(|first| first.device_ids.into_iter().collect()).unwrap_or_default())
    }

    async fn call_allocate(
        &self,
        resource: &str,
        devices: &Names,
    ) -> Result<ContainerAllocateResponse, AllocationError> {
        let (endpoint, request) = {
            let mut state = self.state();
            let devices_ids = state.books.in_any_order(devices.iter().cloned());
            let request =
                AllocateRequest { container_requests: vec![ContainerAllocateRequest { devices_ids }] };
            (state.plugins.endpoint(resource).cloned(), request)
        };
        // What a failed call took is free again at once, except after an empty answer: there the
        // kubelet forgets it, until the next pod ends.
        let failed = |error| {
            self.state().books.recount();
            error
        };
        let endpoint = endpoint.ok_or_else(|| failed(AllocationError::UnknownPlugin(resource.to_owned())))?;
        let answer = match there(endpoint.client, resource) {
            Ok(mut plugin) => self.call(plugin.allocate(request)).await,
            Err(gone) => Err(gone),
        };
        let answer: AllocateResponse = answer.map_err(|error| failed(AllocationError::Allocate(error)))?;
        let empty = || AllocationError::EmptyResponse(format!("{answer:?}"));
        answer.container_responses.first().cloned().ok_or_else(empty)
    }

    /// `callPreStartContainerIfNeeded`.
    async fn pre_start(&self, uid: &str, container: &str, resource: &str) -> Result<(), AllocationError> {
        let (client, request) = {
            let mut state = self.state();
            let endpoint = state.plugins.endpoint(resource).cloned();
            let endpoint = endpoint.ok_or_else(|| AllocationError::NoEndpoint(resource.to_owned()))?;
            if !endpoint.options.pre_start_required {
                return Ok(());
            }
            let held = state.books.held_ids(uid, container, resource);
            let held = held.ok_or_else(|| AllocationError::NothingAllocated {
                pod_uid: uid.to_owned(),
                container: container.to_owned(),
                resource_name: resource.to_owned(),
            })?;
            (endpoint.client, PreStartContainerRequest { devices_ids: state.books.in_any_order(held) })
        };
        let mut plugin = there(client, resource).map_err(AllocationError::PreStart)?;
        let call = timeout(PRE_START_CONTAINER_TIMEOUT, self.call(plugin.pre_start_container(request)));
        let answer = call.await.unwrap_or(Err(CallError::Timeout(PRE_START_CONTAINER_TIMEOUT)));
        answer.map(|_| ()).map_err(AllocationError::PreStart)
    }

    fn admitted(&self, pod: &PodToAdmit) -> Admitted {
        let container = |container: &Container| {
            let held = self.state().books.held(&pod.uid, &container.name).cloned().unwrap_or_default();
            let ids = held
                .iter()
                .map(|(resource, held)| (resource.clone(), held.devices.keys().cloned().collect()));
            AdmittedContainer {
                name: container.name.clone(),
                devices: ids.collect(),
                response: self.merged(&pod.uid, &container.name),
            }
        };
        Admitted { containers: pod.in_admission_order().map(container).collect() }
    }

    /// `deviceRunContainerOptions`: the answers for all of a container's resources as one.
    fn merged(&self, uid: &str, container: &str) -> ContainerAllocateResponse {
        let mut state = self.state();
        let held = state.books.held(uid, container).cloned().unwrap_or_default();
        merge(state.books.in_any_order(held.into_values().map(|held| held.response)))
    }
}

fn there(client: Option<Plugin>, resource: &str) -> Result<Plugin, CallError> {
    client.ok_or_else(|| CallError::Stopped(resource.to_owned()))
}

/// Refuses the pod when its caller goes away in the middle of the admission.
struct Abandoned<'a> {
    shared: &'a Shared,
    uid: &'a str,
}

impl Drop for Abandoned<'_> {
    fn drop(&mut self) {
        let mut state = self.shared.state();
        state.refuse(self.uid);
        // What was chosen and not yet stored: the real kubelet never leaves a choice in the middle.
        state.books.recount();
    }
}
