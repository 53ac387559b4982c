//! What an API server stand-in is started with.

use std::net::{Ipv4Addr, SocketAddr};

use super::store::{Store, StoreOptions};

/// A user, known by a static bearer token.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct User {
    /// The name that the audit log shows, such as `system:serviceaccount:stowage:extender`.
    pub name: String,
    /// What stands behind `Authorization: Bearer`.
    pub token: String,
}

/// What an [`ApiServer`](super::ApiServer) is started with. The default listens on a free port of
/// 127.0.0.1, asks for no token and begins with an empty cluster.
#[derive(Clone)]
pub struct Options {
    /// Where to listen; port 0 takes a free one. A test that restarts the server on the port it had
    /// names it here.
    pub address: SocketAddr,
    /// The users; if there are any, a request without one of their tokens is answered with 401. What
    /// a user may do is not limited: the audit log tells what rights it would have needed.
    pub users: Vec<User>,
    /// What the store is made with, if `store` does not bring one.
    pub store_options: StoreOptions,
    /// A cluster that exists already: another server's, or one filled beforehand.
    pub store: Option<Store>,
    /// What `/version` says.
    pub git_version: String,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            address: (Ipv4Addr::LOCALHOST, 0).into(),
            users: Vec::new(),
            store_options: StoreOptions::default(),
            store: None,
            git_version: "v1.36.1".to_owned(),
        }
    }
}
