//! MIG slices that are built when somebody has booked them.

mod provide;

pub use provide::{Cut, OneGpu, OurInstance, Ours, ProvideError, provide};
