//! The packing core: does a request fit, and which placement leaves most for the pods to come?
//!
//! [`place`] answers for one node; whoever asks for several nodes compares the [`Cost`]s. The device plugin
//! asks with one node as well, when the kubelet wants devices that no plan names. Both therefore choose alike.
//!
//! What a placement costs is, first, what it takes away from the requests to come ([`Mix`]); then whether it
//! wakes a node or a GPU that nobody uses; then how much room it leaves beside it, the least being best.
//!
//! That is all from the names that GPUs are offered under. What is known of the pods of this cluster, and of CPU and
//! memory, is in a [`Market`], which a [`Mix`] may carry; it weighs before the rest where a pod asks for whole GPUs or
//! shares.

pub mod fleet;
mod market;
mod mix;
mod place;
#[cfg(test)]
mod tests;

pub use market::{Lot, Market, Stands};
pub use mix::{Mix, Shape};
pub use place::{Chosen, Cost, Demand, NoFit, Placement, place};
