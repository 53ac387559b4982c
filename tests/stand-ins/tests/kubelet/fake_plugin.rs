//! A device plugin that does as it is told, and writes down what it was asked.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::{Arc, Mutex};

use futures::{Stream, StreamExt, stream};
use kubelet_api::device_plugin::device_plugin_server::{DevicePlugin, DevicePluginServer};
use kubelet_api::device_plugin::registration_client::RegistrationClient;
use kubelet_api::device_plugin::{
    AllocateRequest, AllocateResponse, ContainerAllocateResponse, ContainerPreferredAllocationRequest,
    ContainerPreferredAllocationResponse, Device, DevicePluginOptions, Empty, ListAndWatchResponse,
    PreStartContainerRequest, PreStartContainerResponse, PreferredAllocationRequest,
    PreferredAllocationResponse, RegisterRequest, VERSION,
};
use tokio::net::UnixListener;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio_stream::wrappers::UnixListenerStream;
use tonic::transport::Server;
use tonic::{Request, Response, Status};

/// What the plugin was asked, in order.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Asked {
    Options,
    Preferred(ContainerPreferredAllocationRequest),
    Allocate(Vec<String>),
    PreStart(Vec<String>),
}

/// What the plugin answers.
#[derive(Debug, Default)]
pub(crate) struct Answers {
    pub(crate) options: DevicePluginOptions,
    pub(crate) preferred: Vec<String>,
    /// A status of code `Internal`.
    pub(crate) preferred_error: Option<String>,
    pub(crate) allocate_error: Option<String>,
    pub(crate) pre_start_error: Option<String>,
}

/// Serves until dropped, on a socket of its own name.
#[derive(Debug)]
pub(crate) struct FakePlugin {
    pub(crate) answers: Arc<Mutex<Answers>>,
    pub(crate) asked: watch::Sender<Vec<Asked>>,
    /// Whoever locks it makes `Allocate` wait.
    pub(crate) hold_allocate: Arc<tokio::sync::Mutex<()>>,
    /// `None` ends the streams.
    pub(crate) devices: watch::Sender<Option<Vec<Device>>>,
    /// How many streams the kubelet holds open.
    pub(crate) streams: watch::Receiver<usize>,
    pub(crate) socket: PathBuf,
    folder: PathBuf,
    server: JoinHandle<()>,
}

impl Drop for FakePlugin {
    fn drop(&mut self) {
        self.devices.send_replace(None);
        self.server.abort();
    }
}

impl FakePlugin {
    /// Serves on `folder/socket_name`.
    pub(crate) fn serve(folder: &Path, socket_name: &str, devices: Vec<Device>, answers: Answers) -> Self {
        let socket = folder.join(socket_name);
        let listener = UnixListener::bind(&socket).unwrap();
        let (open, streams) = watch::channel(0);
        let service = Service {
            answers: Arc::new(Mutex::new(answers)),
            asked: watch::Sender::new(Vec::new()),
            devices: watch::Sender::new(Some(devices)),
            open: Arc::new(open),
            hold_allocate: Arc::default(),
        };
        Self {
            answers: Arc::clone(&service.answers),
            asked: service.asked.clone(),
            devices: service.devices.clone(),
            streams,
            hold_allocate: Arc::clone(&service.hold_allocate),
            socket,
            folder: folder.to_owned(),
            server: tokio::spawn(async move {
                Server::builder()
                    .add_service(DevicePluginServer::new(service))
                    .serve_with_incoming(UnixListenerStream::new(listener))
                    .await
                    .unwrap();
            }),
        }
    }

    /// Serves and registers.
    pub(crate) async fn start(
        folder: &Path,
        socket_name: &str,
        resource: &str,
        devices: Vec<Device>,
        answers: Answers,
    ) -> Self {
        let plugin = Self::serve(folder, socket_name, devices, answers);
        plugin.register(resource).await.unwrap();
        plugin
    }

    pub(crate) async fn register(&self, resource: &str) -> Result<(), Status> {
        let name = self.socket.file_name().unwrap().to_str().unwrap();
        register(&self.folder, VERSION, name, resource).await
    }

    /// What was asked since the last look.
    pub(crate) fn take_asked(&self) -> Vec<Asked> {
        self.asked.send_replace(Vec::new())
    }
}

/// Calls `Register` of the kubelet in `folder`.
pub(crate) async fn register(
    folder: &Path,
    version: &str,
    endpoint: &str,
    resource: &str,
) -> Result<(), Status> {
    let channel = kubelet_api::endpoint(&folder.join("kubelet.sock")).unwrap().connect().await.unwrap();
    let request = RegisterRequest {
        version: version.to_owned(),
        endpoint: endpoint.to_owned(),
        resource_name: resource.to_owned(),
        options: None,
    };
    RegistrationClient::new(channel).register(request).await.map(|_| ())
}

#[derive(Debug)]
struct Service {
    answers: Arc<Mutex<Answers>>,
    asked: watch::Sender<Vec<Asked>>,
    devices: watch::Sender<Option<Vec<Device>>>,
    open: Arc<watch::Sender<usize>>,
    hold_allocate: Arc<tokio::sync::Mutex<()>>,
}

impl Service {
    fn note(&self, asked: Asked) {
        self.asked.send_modify(|all| all.push(asked));
    }
}

/// Counts a stream as open until it is dropped.
struct Open(Arc<watch::Sender<usize>>);

impl Open {
    fn new(count: &Arc<watch::Sender<usize>>) -> Self {
        count.send_modify(|open| *open += 1);
        Self(Arc::clone(count))
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.0.send_modify(|open| *open -= 1);
    }
}

#[tonic::async_trait]
impl DevicePlugin for Service {
    type ListAndWatchStream = Pin<Box<dyn Stream<Item = Result<ListAndWatchResponse, Status>> + Send>>;

    async fn get_device_plugin_options(
        &self,
        _: Request<Empty>,
    ) -> Result<Response<DevicePluginOptions>, Status> {
        self.note(Asked::Options);
        Ok(Response::new(self.answers.lock().unwrap().options))
    }

    async fn list_and_watch(&self, _: Request<Empty>) -> Result<Response<Self::ListAndWatchStream>, Status> {
        let mut devices = self.devices.subscribe();
        devices.mark_changed();
        let lists = stream::unfold((devices, Open::new(&self.open)), |(mut devices, open)| async move {
            devices.changed().await.ok()?;
            let list = devices.borrow_and_update().clone()?;
            Some((Ok(ListAndWatchResponse { devices: list }), (devices, open)))
        });
        Ok(Response::new(lists.boxed()))
    }

    async fn get_preferred_allocation(
        &self,
        request: Request<PreferredAllocationRequest>,
    ) -> Result<Response<PreferredAllocationResponse>, Status> {
        for request in request.into_inner().container_requests {
            self.note(Asked::Preferred(sorted(request)));
        }
        let answers = self.answers.lock().unwrap();
        if let Some(error) = &answers.preferred_error {
            return Err(Status::internal(error));
        }
        let device_ids = answers.preferred.clone();
        let container_responses = vec![ContainerPreferredAllocationResponse { device_ids }];
        Ok(Response::new(PreferredAllocationResponse { container_responses }))
    }

    async fn allocate(
        &self,
        request: Request<AllocateRequest>,
    ) -> Result<Response<AllocateResponse>, Status> {
        let mut container_responses = Vec::new();
        for mut request in request.into_inner().container_requests {
            request.devices_ids.sort();
            let visible = ("VISIBLE".to_owned(), request.devices_ids.join(","));
            self.note(Asked::Allocate(request.devices_ids));
            container_responses.push(ContainerAllocateResponse {
                envs: BTreeMap::from([visible]),
                ..ContainerAllocateResponse::default()
            });
        }
        drop(self.hold_allocate.lock().await);
        match &self.answers.lock().unwrap().allocate_error {
            Some(error) => Err(Status::unknown(error)),
            None => Ok(Response::new(AllocateResponse { container_responses })),
        }
    }

    async fn pre_start_container(
        &self,
        request: Request<PreStartContainerRequest>,
    ) -> Result<Response<PreStartContainerResponse>, Status> {
        let mut devices = request.into_inner().devices_ids;
        devices.sort();
        self.note(Asked::PreStart(devices));
        match &self.answers.lock().unwrap().pre_start_error {
            Some(error) => Err(Status::unknown(error)),
            None => Ok(Response::new(PreStartContainerResponse {})),
        }
    }
}

/// The kubelet sends ids in no order.
fn sorted(mut request: ContainerPreferredAllocationRequest) -> ContainerPreferredAllocationRequest {
    request.available_device_ids.sort();
    request.must_include_device_ids.sort();
    request
}
