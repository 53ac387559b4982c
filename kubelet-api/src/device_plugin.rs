//! Device plugin interface `v1beta1`: registration, and what a plugin serves.
//!
//! Each constant names the file of Kubernetes that it comes from.

use std::time::Duration;

/// The only interface version; `Register` refuses any other
/// (`k8s.io/kubelet/pkg/apis/deviceplugin/v1beta1/constants.go`).
pub const VERSION: &str = "v1beta1";

/// The health of a device that can be handed out (`constants.go`).
pub const HEALTHY: &str = "Healthy";

/// The health of a device that cannot (`constants.go`); the kubelet takes any other word so too.
pub const UNHEALTHY: &str = "Unhealthy";

/// The folder of the plugins' sockets and the kubelet's (`constants.go`, `DevicePluginPath`). The
/// kubelet deletes every socket in it when it starts.
pub const DIRECTORY: &str = "/var/lib/kubelet/device-plugins";

/// The file name of the kubelet's registration socket (`constants.go`, `KubeletSocket`).
pub const KUBELET_SOCKET_NAME: &str = "kubelet.sock";

/// How long the kubelet waits for `PreStartContainer`
/// (`constants.go`, `KubeletPreStartContainerRPCTimeoutInSecs`).
pub const PRE_START_CONTAINER_TIMEOUT: Duration = Duration::from_secs(30);

/// How long the kubelet tries to dial a plugin inside `Register`
/// (`k8s.io/kubernetes/pkg/kubelet/cm/devicemanager/plugin/v1beta1/client.go`).
pub const DIAL_TIMEOUT: Duration = Duration::from_secs(10);

/// How long a resource stays in the node's capacity, with nothing allocatable, after its plugin
/// went (`k8s.io/kubernetes/pkg/kubelet/cm/devicemanager/types.go`, `endpointStopGracePeriod`).
pub const ENDPOINT_STOP_GRACE_PERIOD: Duration = Duration::from_secs(5 * 60);

/// The longest device id that the interface's text allows, in characters (`api.proto`, `Device`).
/// The kubelet does not check it.
pub const MAX_DEVICE_ID_LENGTH: usize = 63;

pub use generated::*;

/// What the generator wrote. `include!` rather than a module file, so that `cargo fmt` leaves it so.
#[allow(missing_docs, unreachable_pub, unused_qualifications, clippy::all, clippy::unwrap_used, rustdoc::all)]
mod generated {
    include!("generated/v1beta1.rs");
}
