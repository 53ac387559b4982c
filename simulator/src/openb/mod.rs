//! The openb trace: a production cluster of 1,213 GPU nodes, published as `cluster-trace-gpu-v2023`.
//!
//! Pods arrive in a given order, each is placed or refused at once, and none leaves: what counts is how much of
//! the cluster's GPUs is allocated when so much has been asked for. They can also leave ([`Replay::departures`]): then it
//! is how much is allocated while so much is asked for. The published results of the fragmentation
//! gradient descent (FGD, USENIX ATC '23) and of the policies it was compared with were made so, and the policies here
//! reproduce them.

mod csv;
mod departures;
mod plot;
mod policy;
mod replay;
mod report;
mod stowage;
mod ties;
mod trace;

#[cfg(test)]
mod tests;

pub use csv::TraceError;
pub use plot::{Line, plot};
pub use replay::{MixKind, PolicyName, Replay, replay};
pub use report::{Placed, Run, Steady};
pub use ties::Ties;
pub use trace::{NodeRow, PodKind, Source, Trace};
