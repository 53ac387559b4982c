//! Replays traces of GPU clusters with Stowage's packing core, and with the policies it is compared to.
//!
//! Text in, values out: it opens no file, asks no clock and prints nothing, and its random numbers come from a
//! seed. `kubectl stowage simulate` reads the files and shows the answers.

pub mod openb;
pub mod scenario;
