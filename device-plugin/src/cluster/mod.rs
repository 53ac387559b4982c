//! The API server: this node's pods with their plans, and our GpuNode.
//!
//! Nothing here holds the kubelet's side up. While the API server is away the plugin goes on with what it knows,
//! and says so.

pub mod gpu_node;
mod lookup;
mod node_events;
pub mod pods;
mod reason;
mod status;
pub(crate) mod trouble;
mod when;

pub use lookup::PlanLookup;
pub use node_events::{NodeEvents, NodeEventsInbox};
pub use reason::Reason;
