//! What both programs do around their job: logs, liveness, readiness and metrics, signals, exit codes, an error in words,
//! and the client of the API server.
//!
//! It knows nothing of GPUs: whatever a program has to say about itself comes in through [`http::Health`] and
//! a metrics registry.

mod chain;
mod fault;
pub mod http;
pub mod kubernetes;
pub mod listen;
pub mod logs;
pub mod signal;

pub use chain::chain;
pub use fault::{Fault, exit};
