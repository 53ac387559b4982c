//! A kubelet, as far as device plugins and pod-resources clients see it.
//!
//! It takes registrations on `kubelet.sock`, dials the plugins, follows their device lists, admits
//! pods by the device manager's own rules, calls `GetPreferredAllocation`, `Allocate` and
//! `PreStartContainer`, and serves pod-resources. All over real Unix sockets, without root, so that
//! the demo and the tests run the real plugin against it. The rules and texts are those of
//! Kubernetes 1.36 (`pkg/kubelet/cm/devicemanager`, `pkg/kubelet/apis/podresources`).
//!
//! It has no API server: whoever uses it feeds it pods and carries its answers on. What else it leaves
//! out:
//!
//! * NUMA hints: it is a kubelet with Topology Manager policy `none`, the default.
//! * The node's other resources, and the second check that the kubelet makes against its own Node
//!   object after the devices are chosen (`OutOfnvidia.com/gpu`).
//! * Time lag: the real Node's status follows a change up to 10 s later.
//! * Running containers: after [`Kubelet::restart`] the pods are simply still there. (The real one
//!   admits them anew, and lets those pass whose containers it finds running.)
//! * The checkpoint file: what it would hold is kept in memory.
//!
//! ```no_run
//! # async fn example() -> Result<(), Box<dyn std::error::Error>> {
//! use stowage_stand_ins::kubelet::{Kubelet, KubeletOptions};
//!
//! let kubelet = Kubelet::start(KubeletOptions::new("gpu-node-1", "/tmp/gpu-node-1")).await?;
//! // … start a device plugin on /tmp/gpu-node-1/device-plugins …
//! let mut allocatable = kubelet.watch_allocatable();
//! allocatable.wait_for(|told| told.get("nvidia.com/gpu").is_some_and(|gpus| gpus.allocatable == 8)).await?;
//! # Ok(())
//! # }
//! ```

mod admission;
mod books;
mod choosing;
mod error;
mod merge;
mod options;
mod plugins;
mod pod;
mod pod_resources;
mod resource_name;
mod shared;
mod sockets;
#[cfg(test)]
mod tests;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use kubelet_api::device_plugin::registration_server::RegistrationServer;
use kubelet_api::device_plugin::{ContainerAllocateResponse, KUBELET_SOCKET_NAME};
use kubelet_api::pod_resources::ListPodResourcesResponse;
use kubelet_api::pod_resources::pod_resources_lister_server::PodResourcesListerServer;
use tokio::sync::watch;
use tokio_stream::wrappers::UnixListenerStream;
use tonic::transport::Server;

pub use self::books::{Allocatable, ResourceCounts};
pub use self::error::{AllocationError, CallError, StartError};
pub use self::options::{ChoiceRequest, ChooseDevices, DeviceChoice, KubeletOptions};
use self::plugins::Registrar;
pub use self::pod::{
    AdmissionError, Admitted, AdmittedContainer, Container, ContainerKind, PodToAdmit, StartContainerError,
};
use self::pod_resources::Lister;
use self::shared::Shared;

/// A running kubelet stand-in; it ends when dropped. See the [module](self).
#[derive(Debug)]
pub struct Kubelet {
    shared: Arc<Shared>,
}

impl Kubelet {
    /// Starts a kubelet: deletes every socket in the device plugins' folder, then listens.
    ///
    /// # Errors
    /// [`StartError`]: a folder or socket cannot be used.
    pub async fn start(options: KubeletOptions) -> Result<Self, StartError> {
        let kubelet = Self { shared: Arc::new(Shared::new(options)) };
        kubelet.resume().await?;
        Ok(kubelet)
    }

    /// The node's name.
    #[must_use]
    pub fn node_name(&self) -> &str {
        &self.shared.options.node_name
    }

    /// Where plugins register.
    #[must_use]
    pub fn registration_socket(&self) -> PathBuf {
        self.shared.options.device_plugin_dir.join(KUBELET_SOCKET_NAME)
    }

    /// Where pod-resources is served.
    #[must_use]
    pub fn pod_resources_socket(&self) -> &Path {
        &self.shared.options.pod_resources_socket
    }

    /// Admits a pod that was bound to the node: chooses its devices and calls the plugins. One pod at
    /// a time, in order of arrival, as the kubelet does; a slow plugin holds all of them up.
    ///
    /// A refused pod stays known, and inactive, until [`Kubelet::remove_pod`], as a failed pod does.
    /// A caller that drops the future refuses the pod. A pod of the same UID that is admitted again
    /// keeps its devices.
    ///
    /// # Errors
    /// [`AdmissionError::Unexpected`] fails the pod for good; [`AdmissionError::Stopped`] decides nothing.
    pub async fn admit(&self, pod: PodToAdmit) -> Result<Admitted, AdmissionError> {
        self.shared.admit(pod).await
    }

    /// Gets a container of an admitted pod ready to start: calls `PreStartContainer` where the plugin
    /// asks for it, before each start and restart, and answers with what the runtime is told.
    ///
    /// # Errors
    /// [`StartContainerError`]; the pod has not failed: the kubelet tries again.
    pub async fn start_container(
        &self,
        namespace: &str,
        pod: &str,
        container: &str,
    ) -> Result<ContainerAllocateResponse, StartContainerError> {
        self.shared.start_container(namespace, pod, container).await
    }

    /// The pod has succeeded or failed, and its API object is still there. Its devices are freed when
    /// the next pod asks for devices, or somebody lists pod resources. `false`: no such pod.
    pub fn end_pod(&self, namespace: &str, name: &str) -> bool {
        let mut state = self.shared.state();
        let named = state
            .pods
            .values_mut()
            .filter(|known| known.pod.namespace == namespace && known.pod.name == name);
        named.map(|known| known.active = false).count() > 0
    }

    /// The pod's API object is gone, and its containers have ended. Its devices are freed as with
    /// [`Kubelet::end_pod`]. `false`: no such pod.
    pub fn remove_pod(&self, namespace: &str, name: &str) -> bool {
        let mut state = self.shared.state();
        let before = state.pods.len();
        state.pods.retain(|_, known| known.pod.namespace != namespace || known.pod.name != name);
        state.pods.len() < before
    }

    /// The capacity and the allocatable count of each resource, as the Node's status would tell them.
    /// A resource that has gone for good is told with 0. While stopped: what was told last.
    #[must_use]
    pub fn allocatable(&self) -> Allocatable {
        self.shared.publish()
    }

    /// Tells every change of [`Kubelet::allocatable`], at once.
    #[must_use]
    pub fn watch_allocatable(&self) -> watch::Receiver<Allocatable> {
        self.shared.watch_allocatable()
    }

    /// What `List` of pod-resources answers now, without the socket and its limit of calls.
    #[must_use]
    pub fn pod_resources(&self) -> ListPodResourcesResponse {
        self.shared.state().pod_resources()
    }

    /// Hangs up on the plugin of this resource, with `kubelet.sock` left in place: all of its devices
    /// are unhealthy until it registers again. `false`: no plugin is registered.
    pub fn drop_stream(&self, resource_name: &str) -> bool {
        plugins::hang_up(&self.shared, resource_name)
    }

    /// A restart of the kubelet's process: [`Kubelet::stop`] and [`Kubelet::resume`].
    ///
    /// # Errors
    /// [`StartError`]: a folder or socket cannot be used any more.
    pub async fn restart(&self) -> Result<(), StartError> {
        self.stop().await;
        self.resume().await
    }

    /// The kubelet's process ends: all connections break; its socket files stay behind, with nobody
    /// listening. Pods run on. An admission under way is finished first.
    pub async fn stop(&self) {
        let _sync_loop = self.shared.sync_loop.lock().await;
        self.shared.end_life().await;
    }

    /// The kubelet's process starts again, if it was stopped: sockets are deleted and made anew, who
    /// holds which device is known, and capacities are 0 until the plugins register again.
    ///
    /// # Errors
    /// [`StartError`]: a folder or socket cannot be used any more.
    pub async fn resume(&self) -> Result<(), StartError> {
        let _sync_loop = self.shared.sync_loop.lock().await;
        if self.shared.state().is_running() {
            return Ok(());
        }
        // Nothing is served before the end of this function, so no plugin comes before the restart.
        let pod_resources = sockets::pod_resources(self.pod_resources_socket())?;
        let registration = sockets::registration(&self.registration_socket())?;
        let life = self.shared.begin_life();
        self.shared.publish();
        self.shared.publish_after_grace();

        let registrar = Registrar { shared: Arc::clone(&self.shared), life };
        let registrar = Server::builder().add_service(RegistrationServer::new(registrar));
        let lister = Lister::new(Arc::clone(&self.shared), life);
        let lister = Server::builder().add_service(PodResourcesListerServer::new(lister));
        for (server, listener) in [(registrar, registration), (lister, pod_resources)] {
            // The shutdown signal never comes: it is there so that connections are closed when the
            // task is ended, instead of living on by themselves.
            let serve = server
                .serve_with_incoming_shutdown(UnixListenerStream::new(listener), std::future::pending());
            let node = self.shared.options.node_name.clone();
            self.shared.spawn(async move {
                if let Err(error) = serve.await {
                    tracing::error!(node, %error, "A socket of the kubelet stand-in failed.");
                }
            });
        }
        Ok(())
    }
}

impl Drop for Kubelet {
    fn drop(&mut self) {
        self.shared.abandon();
    }
}
