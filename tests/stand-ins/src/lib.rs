//! Stand-ins for a cluster's parts: a kubelet, an API server and a kube-scheduler, in memory, without root.
//!
//! The demo and the socket-level tests run on them. They know none of Stowage's programs, which meet them over
//! sockets as they meet the real ones; and each is held to the real one by scripts that both answer alike.

pub mod api_server;
pub mod kubelet;
pub mod scheduler;
