//! A real Kubernetes cluster for tests, from packages alone.
//!
//! etcd, kube-apiserver, kube-controller-manager, kube-scheduler and several **real** nodes, each a kubelet
//! and a containerd with runc below it. No Docker, no registry, no virtual machine: Kubernetes and containerd
//! are built from the Go module proxy ([`build`]), the rest comes from Debian ([`prerequisites`]).
//!
//! ```text
//! cargo test ─ outer ─┐  prepares, waits, tidies up after          (host namespaces)
//!                     └─ init ─┐  PID 1, reaps orphans             (own PID, network, mount namespace)
//!                              └─ tests ─┬─ etcd, apiserver, …
//!                                        ├─ gpu-node-1: containerd, kubelet, plugin   (own mount namespace)
//!                                        └─ …
//! ```
//!
//! The whole cluster lives in namespaces of its own ([`isolation`]), so its ports, bridge and mounts meet
//! nobody, and when the test process ends, however it ends, the kernel ends everything below it too.
//! Each node has a mount namespace of its own ([`node`]), because a kubelet's plugin sockets are under
//! `/var/lib/kubelet` whatever its flags say.
//!
//! There is no kube-proxy and no DNS: Services have no addresses that work, but for the API server's. Pods reach each
//! other and the nodes by IP address on one bridge.
//!
//! What it does *not* know: GPUs, the device plugin and the extender. The test targets start those.

pub mod apply;
pub mod build;
mod cgroups;
pub mod cluster;
mod containers;
mod control_plane;
pub mod images;
pub mod isolation;
mod kubeconfig;
mod mount_namespace;
pub mod node;
mod node_config;
pub mod operators;
mod pki;
pub mod prerequisites;
pub mod process;
pub mod runner;
pub mod versions;
pub mod wait;

pub use build::Scope;
pub use cluster::{Cluster, Options, Scheduler, TokenBoundTo};
pub use control_plane::Election;
pub use isolation::Isolated;
pub use node::{Node, NodeOptions};
pub use pki::Identity;
pub use process::{Process, Program};
pub use runner::{Run, Scenario, prepare};
pub use wait::wait_until;
