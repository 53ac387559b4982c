//! Pod-resources interface `v1`: which pod holds which devices.
//!
//! Each constant names the file of Kubernetes that it comes from.

use tonic::transport::Channel;

/// Where the kubelet serves it (`k8s.io/kubernetes/pkg/kubelet/kubelet_getters.go`,
/// `getPodResourcesDir`, with `apis/podresources/constants.go`, `Socket`).
pub const SOCKET: &str = "/var/lib/kubelet/pod-resources/kubelet.sock";

/// The longest answer a client should take, in bytes: 16 MiB, as Kubernetes's own clients do
/// (`test/e2e_node/util.go`, `defaultPodResourcesMaxSize`). gRPC's default of 4 MiB is too little
/// for a node with thousands of devices, since every device is an entry of its own.
pub const MAX_MESSAGE_BYTES: usize = 16 * 1024 * 1024;

/// How many calls a second the kubelet answers; more are refused with `ResourceExhausted`
/// (`apis/podresources/constants.go`, `DefaultQPS`).
pub const MAX_CALLS_PER_SECOND: u32 = 100;

/// How many calls at once it answers on top (`apis/podresources/constants.go`,
/// `DefaultBurstTokens`).
pub const MAX_BURST_CALLS: u32 = 10;

/// A client that takes answers of up to [`MAX_MESSAGE_BYTES`].
pub fn client(channel: Channel) -> pod_resources_lister_client::PodResourcesListerClient<Channel> {
    pod_resources_lister_client::PodResourcesListerClient::new(channel)
        .max_decoding_message_size(MAX_MESSAGE_BYTES)
}

pub use generated::*;

/// What the generator wrote. `include!` rather than a module file, so that `cargo fmt` leaves it so.
#[allow(missing_docs, unreachable_pub, unused_qualifications, clippy::all, clippy::unwrap_used, rustdoc::all)]
mod generated {
    include!("generated/v1.rs");
}
