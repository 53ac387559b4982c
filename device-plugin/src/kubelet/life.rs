//! One registration: a server on a new socket, `Register`, and what ends it.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use kubelet_api::NotUtf8;
use kubelet_api::device_plugin::device_plugin_server::DevicePluginServer;
use kubelet_api::device_plugin::registration_client::RegistrationClient;
use kubelet_api::device_plugin::{RegisterRequest, VERSION};
use stowage_shared::resource::ResourceName;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep, timeout};
use tokio_stream::wrappers::UnixListenerStream;
use tonic::transport::Server;

use super::allocate::options;
use super::folder::{self, Changes, Identity};
use super::service::{Service, Streams};
use super::sockets::{Socket, SocketError};
use crate::cluster::PlanLookup;
use crate::plugin::Plugin;
use crate::slices::Slices;

/// How long one dial of the kubelet may take; it is on this machine.
const DIAL_TIMEOUT: Duration = Duration::from_secs(1);
/// How long `Register` may take: within it the kubelet dials us, for up to 10 s, and asks for our options.
const REGISTER_TIMEOUT: Duration = Duration::from_secs(15);
/// How long after `Register` the kubelet may take to ask for the device list. It does so at once, unless it mixed
/// this registration up with an older one.
const STREAM_WAIT: Duration = Duration::from_secs(1);
/// How long calls may take to end when the server does.
const DRAIN: Duration = Duration::from_millis(500);

/// How long the kubelet may be away before the log says so: a restart takes less.
const SAY_AFTER: Duration = Duration::from_secs(1);

/// Why a life ended.
#[derive(Debug)]
pub enum End {
    /// The program is to end.
    Stopped,
    /// Our socket's file is gone: the kubelet deletes it when it starts.
    SocketGone,
    /// `kubelet.sock` is another one.
    KubeletRestarted,
    /// The kubelet hung up, and its socket stayed.
    StreamDropped,
    /// The kubelet took the registration, and never asked for the device list.
    NoStream,
    /// The kubelet refused the registration.
    Refused(tonic::Status),
    /// Our own server ended by itself.
    ServerDied(String),
}

/// What a life needs of the world around it.
#[derive(Clone)]
pub struct Surroundings {
    /// What the tasks share.
    pub plugin: Arc<Plugin>,
    /// Builds MIG slices, where that is done on demand.
    pub slices: Option<Arc<Slices>>,
    /// Looks pods up at the API server, where there is one.
    pub lookup: Option<Arc<PlanLookup>>,
    /// Where the kubelet takes registrations.
    pub kubelet_socket: PathBuf,
    /// Turns true when the program is to end.
    pub stop: watch::Receiver<bool>,
}

/// A server on a socket of its own, for one registration.
pub struct Life {
    resource: ResourceName,
    socket: Socket,
    server: JoinHandle<Result<(), tonic::transport::Error>>,
    streams: watch::Receiver<Streams>,
    stop: watch::Sender<bool>,
}

impl Life {
    /// Begins to serve. The kubelet calls back while it registers us, so this comes first.
    ///
    /// # Errors
    /// [`SocketError`].
    pub fn begin(resource: &ResourceName, world: &Surroundings) -> Result<Self, SocketError> {
        let folder = world.kubelet_socket.parent().unwrap_or(Path::new("/"));
        let (socket, listener) = Socket::bind(folder, resource)?;
        let streams = watch::Sender::new(Streams::default());
        let (stop, mut stopped) = watch::channel(false);
        let followed = streams.subscribe();
        let service = Service::new(resource.clone(), world, streams, stopped.clone());
        let server = Server::builder()
            .add_service(DevicePluginServer::new(service))
            .serve_with_incoming_shutdown(UnixListenerStream::new(listener), async move {
                let _ = stopped.wait_for(|stop| *stop).await;
            });
        Ok(Self { resource: resource.clone(), socket, server: tokio::spawn(server), streams: followed, stop })
    }

    /// Its socket.
    pub fn socket(&self) -> &Socket {
        &self.socket
    }

    /// Registers, then lives until something ends it. `listed` is called once the kubelet follows the list.
    pub async fn run(&mut self, world: &Surroundings, changes: &mut Changes, listed: impl FnOnce()) -> End {
        let mut stop = world.stop.clone();
        let Self { resource, socket, server, streams, .. } = self;
        let lived = async {
            let kubelet = match register(resource, socket, world, changes).await {
                Ok(kubelet) => kubelet,
                Err(end) => return end,
            };
            if timeout(STREAM_WAIT, streams.wait_for(|streams| streams.seen)).await.is_err() {
                return End::NoStream;
            }
            listed();
            loop {
                tokio::select! {
                    _ = streams.wait_for(|streams| streams.open == 0) => return End::StreamDropped,
                    () = changes.next() => {}
                }
                if !socket.exists() {
                    return End::SocketGone;
                }
                // A kubelet that is away may come back to the same stream only by a new socket of its own.
                if folder::identity(&world.kubelet_socket).is_some_and(|now| now != kubelet) {
                    return End::KubeletRestarted;
                }
            }
        };
        tokio::select! {
            end = lived => end,
            _ = stop.wait_for(|stop| *stop) => End::Stopped,
            ended = server => End::ServerDied(match ended {
                Ok(Ok(())) => "it ended by itself".to_owned(),
                Ok(Err(error)) => error.to_string(),
                Err(error) => error.to_string(),
            }),
        }
    }

    /// Ends the device list, lets calls in progress end, and removes the socket.
    pub async fn end(self) {
        let Self { socket, mut server, stop, .. } = self;
        drop(socket);
        stop.send_replace(true);
        if !server.is_finished() && timeout(DRAIN, &mut server).await.is_err() {
            server.abort();
        }
    }
}

/// Waits for the kubelet and registers with it; gives its socket's identity, or what came in between.
async fn register(
    resource: &ResourceName,
    socket: &Socket,
    world: &Surroundings,
    changes: &mut Changes,
) -> Result<Identity, End> {
    let mut dials = Dials::default();
    let mut absence = Absence::begin(resource, world);
    loop {
        if !socket.exists() {
            return Err(End::SocketGone);
        }
        let Some(kubelet) = folder::identity(&world.kubelet_socket) else {
            absence.tell("there is no such socket");
            changes.next().await;
            continue;
        };
        match call(world, resource, socket).await {
            Ok(()) => return Ok(kubelet),
            Err(CallError::Refused(status)) => return Err(End::Refused(status)),
            Err(CallError::Dial(error)) => {
                // The file appears before the kubelet listens on it, and stays where the kubelet was killed.
                absence.tell(&error);
                if dials.first_failure() {
                    world.plugin.metrics.registered(resource, "unreachable");
                }
                tokio::select! {
                    () = changes.next() => {}
                    () = sleep(dials.next_step()) => {}
                }
            }
        }
    }
}

/// A kubelet that is not there: probes are told at once, the log once for each absence that lasts.
struct Absence<'a> {
    resource: &'a ResourceName,
    world: &'a Surroundings,
    since: Instant,
    is_logged: bool,
}

impl<'a> Absence<'a> {
    fn begin(resource: &'a ResourceName, world: &'a Surroundings) -> Self {
        Self { resource, world, since: Instant::now(), is_logged: false }
    }

    fn tell(&mut self, why: &str) {
        let socket = self.world.kubelet_socket.display();
        let why = format!(
            "waiting for the kubelet at {socket}: {why}. Is it running, and --kubelet-socket (KUBELET_SOCKET) right?"
        );
        if !self.is_logged && self.since.elapsed() >= SAY_AFTER {
            self.is_logged = true;
            tracing::warn!(resource_name = %self.resource, error = why, "The resource is not registered.");
        }
        self.world.plugin.set_offered(self.resource, Some(why));
    }
}

/// When to dial again: soon at first, as the kubelet listens a moment after its socket appears; later twice a
/// second.
#[derive(Default)]
struct Dials(u32);

impl Dials {
    const SOON: u32 = 100;

    fn first_failure(&self) -> bool {
        self.0 == 0
    }

    fn next_step(&mut self) -> Duration {
        self.0 = self.0.saturating_add(1);
        Duration::from_millis(match self.0 {
            1..=4 => 10 * u64::from(self.0),
            5..=Self::SOON => 50,
            _ => 500,
        })
    }
}

#[derive(Debug, thiserror::Error)]
enum CallError {
    #[error("{0}")]
    Dial(String),
    #[error(transparent)]
    Refused(tonic::Status),
}

impl From<NotUtf8> for CallError {
    fn from(error: NotUtf8) -> Self {
        Self::Dial(error.to_string())
    }
}

async fn call(world: &Surroundings, resource: &ResourceName, socket: &Socket) -> Result<(), CallError> {
    let endpoint = kubelet_api::endpoint(&world.kubelet_socket)?.connect_timeout(DIAL_TIMEOUT);
    let channel = endpoint.connect().await.map_err(|error| CallError::Dial(innermost(&error)))?;
    let request = RegisterRequest {
        version: VERSION.to_owned(),
        endpoint: socket.name(),
        resource_name: resource.to_string(),
        options: Some(options(world.slices.as_deref())),
    };
    let called = timeout(REGISTER_TIMEOUT, RegistrationClient::new(channel).register(request)).await;
    match called {
        Ok(Ok(_)) => Ok(()),
        // The kubelet went away in the middle: as if it had not been there.
        Ok(Err(status)) if status.code() == tonic::Code::Unavailable => {
            Err(CallError::Dial(status.message().to_owned()))
        }
        Ok(Err(status)) => Err(CallError::Refused(status)),
        Err(_) => Err(CallError::Refused(tonic::Status::deadline_exceeded(format!(
            "no answer in {REGISTER_TIMEOUT:?}"
        )))),
    }
}

/// What a transport error is about: tonic's own words are "transport error".
fn innermost(error: &tonic::transport::Error) -> String {
    let mut cause: &dyn std::error::Error = error;
    while let Some(source) = cause.source() {
        cause = source;
    }
    match cause.downcast_ref::<io::Error>() {
        Some(error) => error.to_string(),
        None => cause.to_string(),
    }
}
