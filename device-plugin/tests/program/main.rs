//! The program as a process of its own, over its sockets: against stand-ins for the kubelet and the API server, and
//! a simulated NVML.

#![allow(clippy::unwrap_used)]

mod answers;
mod api_server;
mod faults;
mod harness;
mod labels;
mod live;
mod mistakes;
mod mps;
mod node_config;
mod on_demand;
mod pods;
mod restarts;
mod start;
mod strategies;
mod telemetry;
mod topology;
