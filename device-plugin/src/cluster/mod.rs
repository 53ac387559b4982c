//! The API server: this node's pods with their plans, and our GpuNode.
//!
//! Nothing here holds the kubelet's side up. While the API server is away the plugin goes on with what it knows,
//! and says so.

pub mod gpu_node;
mod lookup;
pub mod pods;
mod status;
mod trouble;

pub use lookup::PlanLookup;
