//! The device plugin: advertises this node's NVIDIA GPUs to the kubelet, and hands out what was planned.
//!
//! ```text
//!   NVML ──Reading──► inventory ──┐                       ┌──► kubelet: ListAndWatch, GetPreferredAllocation,
//!   pods' plans ─────events──────►├──► book (pure state) ─┤             Allocate
//!   pod-resources ───events──────►┘                       └──► GpuNode status
//! ```
//!
//! [`book`], [`inventory`], [`health`] and [`answer`] are pure; [`nvml`], [`kubelet`] and [`cluster`] are thin edges around them,
//! [`live`] keeps the inventory true, and [`run`](mod@run) puts them together. Which GPU is best is not decided here but in `stowage-shared`, with the
//! very code that the scheduler extender decides with.

pub mod answer;
pub mod book;
pub mod cdi;
pub mod cluster;
pub mod config;
#[cfg(test)]
mod fixture;
pub mod health;
pub mod inventory;
pub mod kubelet;
pub mod labels;
pub mod live;
pub mod metrics;
pub mod mps;
pub mod node_config;
pub mod nvml;
pub mod plugin;
pub mod run;
pub mod slices;
pub mod telemetry;
mod told;
mod turn;
