//! When to end.

use tokio::signal::unix::{SignalKind, signal};

/// Resolves when the process is asked to end: SIGTERM from Kubernetes, SIGINT from a terminal.
///
/// Where a handler cannot be installed, it never resolves: the signal then ends the process by itself.
pub async fn terminated() {
    let (Ok(mut term), Ok(mut int)) = (signal(SignalKind::terminate()), signal(SignalKind::interrupt()))
    else {
        return std::future::pending().await;
    };
    tokio::select! {
        _ = term.recv() => tracing::info!("SIGTERM received: ending."),
        _ = int.recv() => tracing::info!("SIGINT received: ending."),
    }
}
