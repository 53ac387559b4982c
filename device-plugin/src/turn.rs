//! Whose turn it is on a node: one plugin serves, the next one stands by.
//!
//! From the end of one plugin to the registration of the next, each pod with GPUs that the kubelet admits fails for good. So
//! the next one is there already, and that time is a registration's, not that of an image or a container to come:
//!
//! - In a rolling update the new pod starts while the old one still serves. What keeps two apart is a lock on a file beside
//!   the kubelet's sockets. The kernel lets go of it however its holder ends.
//! - Within a pod two containers are kept apart by the address of `/metrics` and the probes, which one of them can have. So
//!   that is answered by the one that serves, and when it crashes by the other.

use std::fs::{File, OpenOptions, TryLockError};
use std::io;
use std::net::SocketAddr;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use anyhow::anyhow;
use ops::Fault;
use tokio::io::AsyncReadExt;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{oneshot, watch};
use tokio::time::{Instant, sleep_until};

use crate::config::Config;

/// The file's name. It stays when nobody holds it.
pub const FILE: &str = "stowage.lock";

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
        let (path, file) = open(folder)?;
        match file.try_lock() {
            Ok(()) => Ok(Some(Self(file))),
            Err(TryLockError::WouldBlock) => Ok(None),
            Err(TryLockError::Error(source)) => Err(TurnError { path, source }),
        }
    }

    /// Waits for the turn: it is there the moment that the other plugin ends.
    ///
    /// # Errors
    /// [`TurnError`].
    pub async fn wait(folder: &Path) -> Result<Self, TurnError> {
        let (path, file) = open(folder)?;
        let (tell, told) = oneshot::channel();
        // A thread of its own, since the wait cannot be broken off: it ends with the process. Where nobody waits any more
        // when it comes to an end, the lock goes with the file.
        let waiting = move || _ = tell.send(file.lock().map(|()| Self(file)));
        let started = thread::Builder::new().name("turn".into()).spawn(waiting);
        let locked = match started {
            Ok(_) => {
                told.await.unwrap_or_else(|_| Err(io::Error::other("the thread that waits for it ended")))
            }
            Err(error) => Err(error),
        };
        locked.map_err(|source| TurnError { path, source })
    }
}

fn open(folder: &Path) -> Result<(PathBuf, File), TurnError> {
    let path = folder.join(FILE);
    let opened = OpenOptions::new().create(true).truncate(false).write(true).mode(0o600).open(&path);
    match opened {
        Ok(file) => Ok((path, file)),
        Err(source) => Err(TurnError { path, source }),
    }
}

/// The least time between two tries of the address: it may just be changing hands, or belong to somebody who hangs up at once.
const TRY_EVERY: Duration = Duration::from_millis(5);

/// The address for `/metrics` and the probes; with [`Config::standby`] once no other plugin has it. `None` when asked to
/// end before.
///
/// # Errors
/// A [`Fault`] that names the address.
pub async fn address(config: &Config, mut stop: watch::Receiver<bool>) -> Result<Option<TcpListener>, Fault> {
    let mut is_said = false;
    loop {
        match ops::listen::listen(config.http_address).await {
            Ok(listener) => return Ok(Some(listener)),
            Err(error) if config.standby && error.kind() == io::ErrorKind::AddrInUse => {}
            Err(_) => return ops::listen::bind(config.http_address).await.map(Some),
        }
        if !is_said {
            is_said = true;
            tracing::info!(http_address = %config.http_address, "Another plugin has the address: standing by until it ends.");
        }
        tokio::select! {
            () = hung_up(config.http_address) => {}
            _ = stop.wait_for(|stop| *stop) => return Ok(None),
        }
    }
}

/// Waits until whoever listens there hangs up: the moment that it ends, or now and then because nothing is asked of it.
async fn hung_up(address: SocketAddr) {
    let begun = Instant::now();
    if let Ok(mut stream) = TcpStream::connect(address).await {
        // There is nothing to read before that, and an error is as good an end.
        let _ = stream.read(&mut [0]).await;
    }
    sleep_until(begun + TRY_EVERY).await;
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
