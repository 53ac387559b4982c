//! When to end.

use tokio::signal::unix::{SignalKind, signal};

/// Resolves when the process is asked to end: SIGTERM from Kubernetes, SIGINT from a terminal. Counts from the call on,
/// not from the first poll: call it before anything that is to be ended in order.
///
/// Where a handler cannot be installed, it never resolves: the signal then ends the process by itself.
///
/// # Panics
/// Outside a tokio runtime.
pub fn terminated() -> impl Future<Output = ()> {
    let handlers = (signal(SignalKind::terminate()), signal(SignalKind::interrupt()));
    async {
        let (Ok(mut term), Ok(mut int)) = handlers else {
            return std::future::pending().await;
        };
        tokio::select! {
            _ = term.recv() => tracing::info!("SIGTERM received: ending."),
            _ = int.recv() => tracing::info!("SIGINT received: ending."),
        }
    }
}
