//! IMEX channels: how pods on different nodes of one NVLink domain share memory.
//!
//! A channel is a device node that the driver makes. Whoever configures one gets it in every container with a GPU; it is
//! looked for once, at the start, as NVIDIA's plugin does.

use std::io;
use std::os::unix::fs::FileTypeExt;
use std::path::PathBuf;

/// Why a channel that is required cannot be had.
#[derive(Debug, thiserror::Error)]
#[error(
    "IMEX channel {channel} is required, and {} {what}: create it (the kernel module's option NVreg_CreateImexChannel0, or nvidia-modprobe), or set imex.required to false",
    .path.display()
)]
pub struct ImexError {
    channel: u32,
    path: PathBuf,
    what: String,
}

/// The device node of a channel, below the root.
pub fn node(channel: u32) -> String {
    format!("dev/nvidia-caps-imex-channels/channel{channel}")
}

/// The channels of `wanted` that exist below one of the folders `seen_at`.
///
/// # Errors
/// [`ImexError`], for the first that is missing, if they are required; otherwise it is left out, with a line in the log.
pub fn channels(wanted: &[u32], required: bool, seen_at: &[PathBuf]) -> Result<Vec<u32>, ImexError> {
    let mut channels = Vec::new();
    for &channel in wanted {
        match find(channel, seen_at) {
            Ok(()) => channels.push(channel),
            Err(error) if required => return Err(error),
            Err(error) => {
                let path = error.path.display();
                tracing::warn!(%path, error = error.what, "The IMEX channel is left out.");
            }
        }
    }
    Ok(channels)
}

fn find(channel: u32, seen_at: &[PathBuf]) -> Result<(), ImexError> {
    let mut why =
        ImexError { channel, path: PathBuf::from("/").join(node(channel)), what: "is not there".into() };
    for path in seen_at.iter().map(|root| root.join(node(channel))) {
        match std::fs::metadata(&path) {
            Ok(found) if found.file_type().is_char_device() => return Ok(()),
            Ok(_) => why = ImexError { channel, path, what: "is no character device".into() },
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => why = ImexError { channel, path, what: format!("cannot be looked at ({error})") },
        }
    }
    Err(why)
}
