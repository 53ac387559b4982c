//! `kubectl stowage`: what a person asks about the GPUs of a cluster.
//!
//! It reads the API server with the rights of whoever runs it, decides with the same model as the programs, and
//! changes nothing unless it is told to (`defrag --apply`).
//!
//! ```text
//!   flags ──► connect ──► objects ──► world ──► a command ──► Answer ──► text, JSON or YAML
//!             (kube)      (kube)      └──────── pure ───────┘
//! ```

pub mod advise;
pub mod answer;
pub mod ask;
pub mod complete;
pub mod connect;
pub mod defrag;
pub mod describe;
pub mod doctor;
pub mod explain;
pub mod flags;
pub mod map;
pub mod nodes;
pub mod objects;
pub mod page;
pub mod schedulers;
pub mod simulate;
pub mod top;
pub mod what_if;
pub mod world;
