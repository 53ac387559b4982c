//! Whose turn it is on a node: one plugin serves, the next one stands by.
//!
//! In a rolling update the new pod starts while the old one still serves, and registers when that ends: the node is without
//! device lists for as long as a registration takes, not for as long as an image takes to come. What keeps two apart is a
//! lock on a file beside the kubelet's sockets. The kernel lets go of it however its holder ends.

use std::fs::{File, OpenOptions, TryLockError};
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::anyhow;
use ops::Fault;
use tokio::net::TcpListener;
use tokio::sync::watch;

/// The file's name. It stays when nobody holds it.
pub const FILE: &str = "stowage.lock";
/// How often it is tried: part of what a rolling update costs.
const POLL: Duration = Duration::from_millis(20);

/// Why it is not known whose turn it is.
#[derive(Debug, thiserror::Error)]
#[error(
    "cannot lock {}: it must be possible to write to the kubelet's folder; run as root with it mounted, or correct --kubelet-socket (KUBELET_SOCKET)",
    .path.display()
)]
pub struct TurnError {
    path: PathBuf,
    source: io::Error,
}

/// The right to serve this node, until it is dropped.
#[derive(Debug)]
pub struct Turn(#[expect(dead_code, reason = "the lock is held while the file is open")] File);

impl Turn {
    /// Takes the turn in this folder; `None` while another plugin has it.
    ///
    /// # Errors
    /// [`TurnError`].
    pub fn take(folder: &Path) -> Result<Option<Self>, TurnError> {
        let path = folder.join(FILE);
        let opened = OpenOptions::new().create(true).truncate(false).write(true).mode(0o600).open(&path);
        let locked = opened.map_err(TryLockError::Error).and_then(|file| file.try_lock().map(|()| file));
        match locked {
            Ok(file) => Ok(Some(Self(file))),
            Err(TryLockError::WouldBlock) => Ok(None),
            Err(TryLockError::Error(source)) => Err(TurnError { path, source }),
        }
    }

    /// Waits for the turn.
    ///
    /// # Errors
    /// [`TurnError`].
    pub async fn wait(folder: &Path) -> Result<Self, TurnError> {
        loop {
            if let Some(turn) = Self::take(folder)? {
                return Ok(turn);
            }
            tokio::time::sleep(POLL).await;
        }
    }
}

/// Waits for the turn of this node, and tells so on `http` meanwhile; `None` when asked to end before.
///
/// # Errors
/// A [`Fault`], where it cannot be known whose turn it is.
pub async fn stand_by(
    http: &TcpListener,
    folder: &Path,
    mut stop: watch::Receiver<bool>,
) -> Result<Option<Turn>, Fault> {
    let http_address = http.local_addr().ok().map(tracing::field::display);
    tracing::info!(http_address, "Another plugin serves this node: standing by until it ends.");
    tokio::select! {
        turn = Turn::wait(folder) => Ok(Some(turn?)),
        () = ops::http::serve(http, Arc::new(StandingBy), Arc::default()) => {
            Err(Fault::software(anyhow!("the HTTP server ended by itself")))
        }
        _ = stop.wait_for(|stop| *stop) => Ok(None),
    }
}

impl From<TurnError> for Fault {
    fn from(error: TurnError) -> Self {
        if error.source.kind() == io::ErrorKind::PermissionDenied {
            Self::no_permission(error)
        } else {
            Self::unavailable(error)
        }
    }
}

/// What a plugin says of itself while it stands by. It is ready: a rolling update ends the old one once the new one is.
struct StandingBy;

impl ops::http::Health for StandingBy {
    fn live(&self) -> Result<(), String> {
        Ok(())
    }

    fn ready(&self) -> Result<(), String> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn one_has_the_turn_until_it_is_dropped() {
        let folder = tempfile::tempdir().unwrap();
        let first = Turn::take(folder.path()).unwrap().unwrap();
        assert!(Turn::take(folder.path()).unwrap().is_none());
        let path = folder.path().to_owned();
        let waiting = tokio::spawn(async move { Turn::wait(&path).await });
        tokio::task::yield_now().await;
        assert!(!waiting.is_finished());
        drop(first);
        waiting.await.unwrap().unwrap();
    }

    #[test]
    fn a_folder_that_cannot_be_written_is_named_with_the_cure() {
        let error = Turn::take(Path::new("/does/not/exist")).unwrap_err();
        assert!(error.to_string().starts_with("cannot lock /does/not/exist/stowage.lock: "), "{error}");
    }
}
