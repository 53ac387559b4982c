//! The kubelet stand-in over real Unix sockets, with a device plugin that does as it is told.

#![allow(clippy::unwrap_used)]

mod admission;

mod fake_plugin;
mod node;
mod plugins;
mod pod_resources;
mod restart;
