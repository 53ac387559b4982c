//! Thousands of hollow nodes under a real API server and a real kube-scheduler.
//!
//! What scheduling costs end to end can only be seen with the real kube-scheduler, and a cluster of thousands of GPU
//! nodes can only be had hollow: Nodes and GpuNodes are API objects, and one task plays all their kubelets and device
//! plugins ([`hollow`]). etcd, kube-apiserver, kube-scheduler and the extender are the real ones, each with the
//! rights that `deploy/` gives it, in namespaces of their own ([`stowage_cluster_tests`]).
//!
//! ```text
//!   creates pods ──► API server ◄── kube-scheduler ──► extender       (real)
//!   (fill)             │    ▲                             │ Binding + plan
//!                      ▼    └─────────────────────────────┘
//!                    hollow: confirms plans in GpuNodes, sets pods Running
//! ```
//!
//! Everything is on one machine, so figures of one run are to be compared with each other and with nothing else.

// Figures are what these programs are for.
#![allow(clippy::print_stdout)]

mod api;
pub mod book;
pub mod cluster;
pub mod do_nothing;
pub mod figures;
pub mod fill;
pub mod hollow;
pub mod inventory;
pub mod openb;
pub mod programs;
pub mod record;
pub mod shapes;
pub mod throughput;
pub mod verdict;
