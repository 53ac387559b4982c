//! The model of Stowage: what a GPU can be handed out as, what a pod asks for, what is in use,
//! and which placement leaves most for the pods to come.
//!
//! The device plugin and the scheduler extender both decide with this crate, so that they can never
//! disagree. It is pure and synchronous: no socket, file, clock, thread or random number of its own;
//! it knows neither the kubelet nor the API server nor NVML. Those live at the edges, which turn their
//! messages into the values of this crate and carry its answers out.
//!
//! The words used throughout:
//!
//! - a **part** is a whole GPU or one MIG slice of it ([`gpu::Part`]);
//! - an **offer** is a part under a resource name, exclusive or in several replicas ([`gpu::Offer`]);
//! - a **device** is one replica of an offer: what the kubelet counts, with a device id ([`device_id`]);
//! - a **plan** names the devices chosen for a pod, in one annotation ([`plan`]).

pub mod at_once;
pub mod audit;
pub mod belief;
pub mod contract;
pub mod count;
pub mod device_id;
pub mod gpu;
pub mod gpu_node;
pub mod host;
pub mod listing;
pub mod mig;
pub mod models;
pub mod moves;
pub mod occupancy;
pub mod pack;
pub mod plan;
pub mod pod;
pub mod policy;
mod quantity;
pub mod reckon;
pub mod request;
pub mod resource;
pub mod share;
pub mod tally;
pub mod topology;
pub mod units;
