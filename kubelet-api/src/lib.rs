//! The kubelet's gRPC interfaces: device plugin `v1beta1` and pod-resources `v1`.
//!
//! Messages, clients and servers for both sides of each socket, so that a plugin, and a stand-in
//! for the kubelet, speak from one definition. The `.proto` files in `proto/` are held to
//! Kubernetes's field by field, and the committed code to the `.proto` files, by `tests/fresh.rs`:
//! nobody needs a protobuf compiler to build this.
//!
//! Rust names differ from the protocol's where its own would come out as `device_i_ds`; only numbers
//! and types go over the wire. This crate has no policy: it knows addresses and limits, not when to
//! call what.

use std::path::{Path, PathBuf};

use tonic::codegen::http::Uri;
use tonic::transport::Endpoint;

pub mod device_plugin;
pub mod pod_resources;

/// A socket path that cannot be dialled.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("socket path {0:?} is not UTF-8: choose one that is")]
pub struct NotUtf8(
    /// The path.
    pub PathBuf,
);

/// The gRPC endpoint at a Unix socket, with the authority `localhost` that the kubelet sends too: a
/// path is no authority, and strict servers refuse it.
///
/// # Errors
/// [`NotUtf8`]: `tonic` takes text only.
pub fn endpoint(socket: &Path) -> Result<Endpoint, NotUtf8> {
    let not_utf8 = || NotUtf8(socket.to_owned());
    let path = socket.to_str().ok_or_else(not_utf8)?;
    let endpoint = Endpoint::from_shared(format!("unix://{path}")).map_err(|_| not_utf8())?;
    Ok(endpoint.origin(Uri::from_static("http://localhost")))
}
