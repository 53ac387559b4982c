//! A loadable `libnvidia-ml.so.1` for machines without a GPU.
//!
//! A program that speaks NVML loads this library instead of NVIDIA's and sees the node that a YAML file
//! describes: GPUs by model, MIG instances, NUMA nodes, a GPU that is lost. There is no test-only path in
//! the program; what differs is the file that `dlopen` finds.
//!
//! ```text
//!   description (YAML) ──check()──► Hardware (never changes)   ffi: the C functions, one call = one look
//!                          │                │                        │
//!                          └──► State ◄── Store: a file, a lock ◄────┘
//! ```
//!
//! What NVML can change (MIG instances, MIG modes, lost GPUs, events) is a [`state::State`] in a file beside
//! the description. Every process on the machine reads and writes that one file, as every process on a real
//! node talks to one driver: a restarted plugin sees what it left, and a second process sees it at once.
//!
//! The library is used twice: as a `cdylib` by programs under test, through the C API in [`mod@ffi`], and as
//! a Rust crate by tests and tools, which write descriptions ([`description::Description`]) and change the
//! state behind a program's back ([`store::Store::update`]).
//!
//! It does not know the kubelet, the device plugin or CUDA: no device node, no memory and no kernel exist.

mod changes;
mod derive;
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct ReadmeExamples;

pub mod description;
pub mod ffi;
mod handles;
pub mod hardware;
mod session;
pub mod state;
pub mod store;

use std::path::{Path, PathBuf};

/// Names the description's file. Without it, `nvmlInit` fails with `DRIVER_NOT_LOADED`.
pub const CONFIG_ENV: &str = "NVML_SIMULATOR_CONFIG";
/// Names the state file. Without it, the file lies beside the description (`node.yaml`: `node.state.json`).
pub const STATE_ENV: &str = "NVML_SIMULATOR_STATE";
/// The library's file name as Cargo builds it.
pub const LIBRARY_FILE: &str = "libnvml_simulator.so";

/// Finds the built library near an executable of the same Cargo target folder, newest first.
///
/// Cargo puts it into the profile's folder (`target/debug`) or its `deps`; tests and examples lie in
/// `deps` or `examples`. `None` where it was not built: `cargo build -p nvml-simulator` builds it.
pub fn library_near(executable: &Path) -> Option<PathBuf> {
    let modified = |path: &PathBuf| path.metadata().and_then(|file| file.modified()).ok();
    executable
        .ancestors()
        .skip(1)
        .take(2)
        .flat_map(|folder| [folder.join(LIBRARY_FILE), folder.join("deps").join(LIBRARY_FILE)])
        .filter(|path| path.is_file())
        .max_by_key(modified)
}
