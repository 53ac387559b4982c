//! The scheduler extender: it tells kube-scheduler where a GPU pod fits, which of those nodes is best, and binds
//! the pod with a plan that names its devices.
//!
//! ```text
//!   kube-scheduler                      API server
//!    │ filter, prioritize   bind │        ▲      │ watches: pods, nodes, GpuNodes
//!    ▼                           ▼        │      ▼
//!   server ──► verbs            binding ──┘    watch
//!                │ reads          │ holds        │ applies
//!                ▼                ▼              ▼
//!             Snapshot ◄──────── state (pure: no socket, no clock)
//! ```
//!
//! `filter` and `prioritize` read an immutable snapshot: no API call, no lock that anybody else holds, no side
//! effect. `page` shows the same to people. It knows nothing of NVML, the kubelet or gRPC.

pub mod ahead;
pub mod api;
pub mod binding;
pub mod book;
pub mod clock;
mod debug;
pub mod defrag;
pub mod drain;
pub mod health;
pub mod lease;
pub mod memory;
pub mod metrics;
pub mod page;
pub mod planner;
pub mod preempt;
pub mod program;
pub mod schedulers;
mod seldom;
pub mod server;
pub mod state;
pub mod stock;
pub mod synthetic;
pub mod tls;
pub mod verbs;
pub mod watch;
pub mod wire;
