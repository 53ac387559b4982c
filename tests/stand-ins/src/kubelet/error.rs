//! What can go wrong, in the kubelet's own words.
//!
//! Tests and the demo compare these texts, and people search for them, so they are
//! `pkg/kubelet/cm/devicemanager/manager.go`'s of Kubernetes 1.36, capitals, colons and all.

use std::path::PathBuf;

use tonic::{Code, Status};

/// Why a container did not get its devices.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AllocationError {
    /// Asked again for a container that holds another number of devices.
    #[error(
        "pod {pod_uid:?} container {container:?} changed request for resource {resource_name:?} from {held} to {requested}"
    )]
    RequestChanged {
        /// The pod.
        pod_uid: String,
        /// The container.
        container: String,
        /// The resource.
        resource_name: String,
        /// How many devices it holds.
        held: usize,
        /// How many it asks for now.
        requested: usize,
    },
    /// The resource was given out once, and no plugin serves it any more.
    #[error("cannot allocate unregistered device {0}")]
    Unregistered(String),
    /// The plugin is gone, or all of its devices are unhealthy.
    #[error("no healthy devices present; cannot allocate unhealthy devices {0}")]
    NoneHealthy(String),
    /// What the container held before has become unhealthy.
    #[error("previously allocated devices are no longer healthy; cannot allocate unhealthy devices {0}")]
    NoLongerHealthy(String),
    /// Not enough devices are free.
    #[error(
        "requested number of devices unavailable for {resource_name}. Requested: {requested}, Available: {available}"
    )]
    Unavailable {
        /// The resource.
        resource_name: String,
        /// How many more the container needs.
        requested: usize,
        /// How many are healthy and free.
        available: usize,
    },
    /// Cannot happen unless two admissions run at once.
    #[error("unexpectedly allocated less resources than required. Requested: {requested}, Got: {got}")]
    Short {
        /// How many the container needs.
        requested: usize,
        /// How many it could get.
        got: usize,
    },
    /// The plugin went between the choice and `Allocate`.
    #[error("unknown Device Plugin {0}")]
    UnknownPlugin(String),
    /// The plugin went before the choice.
    #[error("endpoint not found in cache for a registered resource: {0}")]
    NoEndpoint(String),
    /// The plugin's `GetPreferredAllocation` failed, which fails the pod.
    #[error("device plugin GetPreferredAllocation rpc failed with err: {0}")]
    Preferred(CallError),
    /// The plugin's `Allocate` failed.
    #[error("{0}")]
    Allocate(CallError),
    /// The plugin's `Allocate` answered for no container.
    #[error("no containers return in allocation response {0}")]
    EmptyResponse(String),
    /// The plugin's `PreStartContainer` failed.
    #[error("device plugin PreStartContainer rpc failed with err: {0}")]
    PreStart(CallError),
    /// `PreStartContainer` is due, and the container holds nothing.
    #[error(
        "no devices found allocated in local cache for pod {pod_uid}, container {container}, resource {resource_name}"
    )]
    NothingAllocated {
        /// The pod.
        pod_uid: String,
        /// The container.
        container: String,
        /// The resource.
        resource_name: String,
    },
}

/// Why a call to a plugin brought no answer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CallError {
    /// The plugin disconnected. (The kubelet prints a Go struct here, not the name.)
    #[error("endpoint {0} has been stopped")]
    Stopped(String),
    /// The plugin answered with an error, or the connection broke.
    #[error("rpc error: code = {code} desc = {message}")]
    Rpc {
        /// The status code, spelled as gRPC's Go library does.
        code: &'static str,
        /// The plugin's words.
        message: String,
    },
    /// No answer in time. The kubelet itself would wait for ever; a stand-in must not.
    #[error("rpc error: code = DeadlineExceeded desc = no answer within {0:?}")]
    Timeout(std::time::Duration),
}

impl From<Status> for CallError {
    fn from(status: Status) -> Self {
        Self::Rpc { code: go_name(status.code()), message: status.message().to_owned() }
    }
}

/// `google.golang.org/grpc/codes`, `Code.String`.
fn go_name(code: Code) -> &'static str {
    match code {
        Code::Ok => "OK",
        Code::Cancelled => "Canceled",
        Code::Unknown => "Unknown",
        Code::InvalidArgument => "InvalidArgument",
        Code::DeadlineExceeded => "DeadlineExceeded",
        Code::NotFound => "NotFound",
        Code::AlreadyExists => "AlreadyExists",
        Code::PermissionDenied => "PermissionDenied",
        Code::ResourceExhausted => "ResourceExhausted",
        Code::FailedPrecondition => "FailedPrecondition",
        Code::Aborted => "Aborted",
        Code::OutOfRange => "OutOfRange",
        Code::Unimplemented => "Unimplemented",
        Code::Internal => "Internal",
        Code::Unavailable => "Unavailable",
        Code::DataLoss => "DataLoss",
        Code::Unauthenticated => "Unauthenticated",
    }
}

/// Why `Register` refused a plugin. `Display` is the kubelet's own text, sent with status `Unknown`,
/// as Go does with a plain error.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(super) enum RegisterError {
    #[error("requested API version {0:?} is not supported by kubelet. Supported version is [\"v1beta1\"]")]
    Version(String),
    #[error("the ResourceName {0:?} is invalid")]
    ResourceName(String),
    #[error("failed to dial device plugin: context deadline exceeded")]
    Dial,
    #[error("failed to get device plugin options: {0}")]
    Options(CallError),
    /// Ours: the call was under way when the kubelet stopped.
    #[error("the kubelet stopped")]
    Stopped,
}

impl From<RegisterError> for Status {
    fn from(error: RegisterError) -> Self {
        match error {
            // What a client sees when the real process ends under its call.
            RegisterError::Stopped => Self::unavailable(error.to_string()),
            _ => Self::unknown(error.to_string()),
        }
    }
}

/// Why the stand-in could not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The device plugins' folder could not be made or read, or an old socket in it not deleted.
    #[error("cannot prepare the socket folder {}", .path.display())]
    Folder {
        /// The folder or the socket.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// A socket could not be opened. A path of more than 107 bytes is the usual cause.
    #[error("cannot listen on {}", .socket.display())]
    Listen {
        /// The socket.
        socket: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
}
