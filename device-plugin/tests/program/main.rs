//! The program as a process of its own, over its sockets: against stand-ins for the kubelet and the API server, and
//! a simulated NVML.

#![allow(clippy::unwrap_used)]

mod answers;
mod api_server;
mod harness;
mod health;
mod labels;
mod live;
mod mistakes;
mod node_config;
mod pods;
mod registration;
mod restarts;
mod start;
mod strategies;
mod telemetry;
