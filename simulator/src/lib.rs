//! Replays of GPU clusters: what a placement policy makes of a stream of requests.
//!
//! Stowage's own answers come from [`stowage_shared::pack`], the same code that the extender and the plugin decide
//! with. Everything is deterministic by a seed, and pure, text in and values out: files, flags and progress belong to
//! the command line.

pub mod day;
mod gpu;
pub mod mig;
pub mod openb;
pub mod scenario;
