//! The device plugins: their registration, and the stream each keeps open.
//!
//! After `pkg/kubelet/cm/devicemanager/plugin/v1beta1/{server,handler,client}.go` of Kubernetes 1.36,
//! with its known flaw: when a stream ends, the kubelet disconnects whoever is registered under that
//! *name* then, which may be the plugin's next instance. A plugin has to survive that.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use kubelet_api::device_plugin::device_plugin_client::DevicePluginClient;
use kubelet_api::device_plugin::registration_server::Registration;
use kubelet_api::device_plugin::{DevicePluginOptions, Empty, RegisterRequest, VERSION};
use tokio::task::AbortHandle;
use tokio::time::{Instant, sleep, timeout};
use tonic::transport::Channel;
use tonic::{Request, Response, Status};

use super::error::{CallError, RegisterError};
use super::resource_name;
use super::shared::{Shared, State};

/// Between two tries to dial a plugin: the first step of gRPC's back-off, which the kubelet uses.
const DIAL_PAUSE: Duration = Duration::from_secs(1);

/// A connection to a device plugin.
pub(super) type Plugin = DevicePluginClient<Channel>;

/// Where a resource's calls go.
#[derive(Debug, Clone)]
pub(super) struct PluginEndpoint {
    /// `None` once the plugin has gone.
    pub(super) client: Option<Plugin>,
    /// As of registration; all off for a resource that is known from before a restart only.
    pub(super) options: DevicePluginOptions,
}

/// Who is registered: the endpoints by resource name, and the streams.
#[derive(Debug, Default)]
pub(super) struct Plugins {
    endpoints: BTreeMap<String, PluginEndpoint>,
    /// The newest registration of each name; its stream, once there is one. An older registration's
    /// stream runs on beside it.
    streams: BTreeMap<String, Option<AbortHandle>>,
}

impl Plugins {
    pub(super) fn endpoint(&self, resource: &str) -> Option<&PluginEndpoint> {
        self.endpoints.get(resource)
    }

    /// Hangs up on whoever is registered under this name. `false`: nobody is.
    pub(super) fn disconnect(&mut self, resource: &str) -> bool {
        let Some(stream) = self.streams.remove(resource) else { return false };
        if let Some(stream) = stream {
            stream.abort();
        }
        if let Some(endpoint) = self.endpoints.get_mut(resource) {
            endpoint.client = None;
        }
        true
    }

    /// A restarted process knows the names from its checkpoint, and nobody behind them.
    pub(super) fn restart(&mut self) {
        self.streams.clear();
        for endpoint in self.endpoints.values_mut() {
            *endpoint = PluginEndpoint { client: None, options: DevicePluginOptions::default() };
        }
    }
}

/// The registration service of one life of the kubelet.
#[derive(Debug)]
pub(super) struct Registrar {
    pub(super) shared: Arc<Shared>,
    /// Which life: a call that outlives it registers nobody.
    pub(super) life: u64,
}

#[tonic::async_trait]
impl Registration for Registrar {
    async fn register(&self, request: Request<RegisterRequest>) -> Result<Response<Empty>, Status> {
        let request = request.into_inner();
        let resource = request.resource_name.clone();
        let outcome = self.connect(request).await;
        let node = &self.shared.options.node_name;
        match &outcome {
            Ok(()) => tracing::debug!(node, resource_name = resource, "Device plugin registered."),
            Err(error) => tracing::warn!(node, resource_name = resource, %error, "Device plugin refused."),
        }
        Ok(outcome.map(|()| Response::new(Empty {}))?)
    }
}

impl Registrar {
    async fn connect(&self, request: RegisterRequest) -> Result<(), RegisterError> {
        let RegisterRequest { version, endpoint, resource_name: resource, .. } = request;
        if version != VERSION {
            return Err(RegisterError::Version(version));
        }
        if !resource_name::is_extended(&resource) {
            return Err(RegisterError::ResourceName(resource));
        }
        // Takes the name at once, and gives it up on failure: an older registration of the name is
        // then known no more, although its stream runs on. The kubelet does so too.
        self.in_this_life(|state| state.plugins.streams.insert(resource.clone(), None))?;
        let connected = self.dial(&self.socket(&endpoint)).await;
        self.in_this_life(|state| match connected {
            Ok((plugin, options)) => {
                state.books.connect(&resource);
                let endpoint = PluginEndpoint { client: Some(plugin.clone()), options };
                state.plugins.endpoints.insert(resource.clone(), endpoint);
                let stream = follow(Arc::clone(&self.shared), resource.clone(), plugin);
                state.plugins.streams.insert(resource, Some(self.shared.spawn(stream)));
                Ok(())
            }
            Err(error) => {
                state.plugins.streams.remove(&resource);
                Err(error)
            }
        })?
    }

    /// The plugin's socket. Like Go's `filepath.Join`, a leading slash does not leave the folder.
    fn socket(&self, endpoint: &str) -> PathBuf {
        self.shared.options.device_plugin_dir.join(endpoint.trim_start_matches('/'))
    }

    /// Connects and asks for the options. The kubelet's limit is for the connection only, and gRPC
    /// calls a connection made when the server has spoken; ours is for both, since `tonic` does not
    /// wait for the server's first word.
    async fn dial(&self, socket: &Path) -> Result<(Plugin, DevicePluginOptions), RegisterError> {
        let endpoint = kubelet_api::endpoint(socket).map_err(|_| RegisterError::Dial)?;
        let connect_and_ask = async {
            let mut plugin = loop {
                match endpoint.connect().await {
                    Ok(channel) => break DevicePluginClient::new(channel),
                    Err(_) => sleep(DIAL_PAUSE).await,
                }
            };
            let options = plugin.get_device_plugin_options(Empty {}).await;
            let options = options.map_err(|status| RegisterError::Options(status.into()))?;
            Ok((plugin, options.into_inner()))
        };
        timeout(self.shared.options.dial_timeout, connect_and_ask).await.unwrap_or(Err(RegisterError::Dial))
    }

    /// Runs `act` unless the kubelet has stopped since the call began.
    fn in_this_life<T>(&self, act: impl FnOnce(&mut State) -> T) -> Result<T, RegisterError> {
        self.shared.in_life(self.life, act).ok_or(RegisterError::Stopped)
    }
}

/// Reads a plugin's lists until its stream ends.
async fn follow(shared: Arc<Shared>, resource: String, mut plugin: Plugin) {
    let end = read_lists(&shared, &resource, &mut plugin).await;
    let node = &shared.options.node_name;
    tracing::debug!(node, resource_name = resource, %end, "ListAndWatch ended.");
    // By name, as 1.36 does it: see the module.
    hang_up(&shared, &resource);
}

async fn read_lists(shared: &Shared, resource: &str, plugin: &mut Plugin) -> Status {
    let mut lists = match plugin.list_and_watch(Empty {}).await {
        Ok(response) => response.into_inner(),
        Err(status) => return status,
    };
    loop {
        match lists.message().await {
            Ok(Some(list)) => {
                shared.state().books.list(resource, list.devices);
                shared.publish();
            }
            Ok(None) => return Status::ok("the plugin ended the stream"),
            Err(status) => return status,
        }
    }
}

/// Disconnects whoever is registered under this name: all devices unhealthy now, out of the
/// capacity after the grace period. `false`: nobody is.
pub(super) fn hang_up(shared: &Arc<Shared>, resource: &str) -> bool {
    let now = Instant::now();
    {
        let mut state = shared.state();
        if !state.plugins.disconnect(resource) {
            return false;
        }
        state.books.disconnect(resource, now);
    }
    shared.publish();
    shared.publish_after_grace();
    true
}

impl Shared {
    /// A call to a plugin, with the stand-in's limit.
    pub(super) async fn call<T>(
        &self,
        call: impl Future<Output = Result<Response<T>, Status>>,
    ) -> Result<T, CallError> {
        let limit = self.options.plugin_call_timeout;
        match timeout(limit, call).await {
            Ok(answer) => Ok(answer.map(Response::into_inner)?),
            Err(_) => Err(CallError::Timeout(limit)),
        }
    }

    /// Looks again when the grace period of what went just now is over.
    pub(super) fn publish_after_grace(self: &Arc<Self>) {
        let shared = Arc::clone(self);
        self.spawn(async move {
            // One more, since the period must be exceeded.
            sleep(shared.options.endpoint_stop_grace_period + Duration::from_millis(1)).await;
            shared.publish();
        });
    }
}
