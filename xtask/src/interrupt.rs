//! Being asked to end.

use anyhow::{Context, Result};
use tokio::signal::unix::{SignalKind, signal};

/// Waits until somebody wants the program to end; answers with the signal's name.
pub async fn interrupted() -> Result<&'static str> {
    let mut terminate = signal(SignalKind::terminate()).context("cannot listen for SIGTERM")?;
    let mut interrupt = signal(SignalKind::interrupt()).context("cannot listen for SIGINT")?;
    Ok(tokio::select! {
        _ = terminate.recv() => "SIGTERM",
        _ = interrupt.recv() => "SIGINT",
    })
}
