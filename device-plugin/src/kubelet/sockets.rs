//! Our sockets in the kubelet's folder: their names, making them, and sweeping up after a crash.

use std::fs;
use std::hash::{BuildHasher, RandomState};
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use stowage_shared::resource::ResourceName;
use tokio::net::UnixListener;

/// How our sockets' names begin.
const PREFIX: &str = "stowage-";
/// How they end.
const SUFFIX: &str = ".sock";
/// The most bytes of a resource's name in a socket's: a whole path must fit the 107 bytes of `sockaddr_un`.
const NAME_MAX_BYTES: usize = 32;
/// How often another name is tried; a clash of 32 random bits is rare enough once.
const TRIES: u32 = 4;

/// Why there is no socket.
#[derive(Debug, thiserror::Error)]
#[error(
    "cannot make the socket {}: it must be possible to write to the kubelet's folder; run as root with it mounted, or correct --kubelet-socket (KUBELET_SOCKET)",
    .path.display()
)]
pub struct SocketError {
    path: PathBuf,
    source: io::Error,
}

impl SocketError {
    /// Whether a right is missing.
    pub fn is_permission(&self) -> bool {
        self.source.kind() == io::ErrorKind::PermissionDenied
    }
}

/// A socket of ours; its file is removed when it is dropped.
#[derive(Debug)]
pub struct Socket {
    path: PathBuf,
}

impl Socket {
    /// Makes a socket for a resource in this folder, under a name that nobody had before, for root alone.
    ///
    /// # Errors
    /// [`SocketError`].
    pub fn bind(folder: &Path, resource: &ResourceName) -> Result<(Self, UnixListener), SocketError> {
        let name: String = resource.short().chars().take(NAME_MAX_BYTES).collect();
        let mut tried = 0;
        loop {
            // Random enough: each hasher is seeded by the system.
            let number = RandomState::new().hash_one(std::process::id()) & 0xffff_ffff;
            let path = folder.join(format!("{PREFIX}{name}-{number:08x}{SUFFIX}"));
            match UnixListener::bind(&path) {
                Ok(listener) => {
                    let socket = Self { path };
                    fs::set_permissions(&socket.path, fs::Permissions::from_mode(0o600))
                        .map_err(|source| SocketError { path: socket.path.clone(), source })?;
                    return Ok((socket, listener));
                }
                Err(error) if error.kind() == io::ErrorKind::AddrInUse && tried < TRIES => tried += 1,
                Err(source) => return Err(SocketError { path, source }),
            }
        }
    }

    /// Where it lies.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Its name, as the kubelet is told it: relative to the kubelet's folder.
    pub fn name(&self) -> String {
        self.path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default()
    }

    /// Whether the file is still there.
    pub fn exists(&self) -> bool {
        self.path.symlink_metadata().is_ok()
    }
}

impl Drop for Socket {
    fn drop(&mut self) {
        // Gone already is as good.
        let _ = fs::remove_file(&self.path);
    }
}

/// Removes sockets that a killed predecessor left: ours by name, with nobody listening. A predecessor that is
/// still running, as in a rolling update, keeps its own. Gives the number of removed ones.
///
/// # Errors
/// Where the folder cannot be read.
pub fn sweep(folder: &Path) -> io::Result<usize> {
    let mut removed = 0;
    for path in ours(folder)? {
        let nobody_listens = std::os::unix::net::UnixStream::connect(&path)
            .is_err_and(|error| error.kind() == io::ErrorKind::ConnectionRefused);
        if nobody_listens && fs::remove_file(&path).is_ok() {
            removed += 1;
        }
    }
    Ok(removed)
}

fn ours(folder: &Path) -> io::Result<Vec<PathBuf>> {
    let mut paths = Vec::new();
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        let name = entry.file_name();
        let name = name.to_string_lossy();
        if name.starts_with(PREFIX) && name.ends_with(SUFFIX) {
            paths.push(entry.path());
        }
    }
    Ok(paths)
}

/// Other plugins' sockets that may stand for the same resources: NVIDIA's plugin's, or another of our own.
pub fn rivals(folder: &Path, own: &Socket) -> Vec<String> {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    let names = entries.map(|entry| entry.file_name().to_string_lossy().into_owned());
    let mine = own.name();
    // Sockets of this process for its other resources end in other names but are made of the same resource's
    // name only for the same resource.
    let same_resource = mine.rsplit_once('-').map_or("", |(stem, _)| stem).to_owned();
    names
        .filter(|name| name != &mine)
        .filter(|name| {
            name.starts_with("nvidia-")
                || name.rsplit_once('-').is_some_and(|(stem, _)| stem == same_resource)
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_socket_is_roots_alone_unique_and_gone_when_dropped() {
        let folder = tempfile::tempdir().unwrap();
        let name: ResourceName = format!("nvidia.com/mig-{}", "a".repeat(50)).parse().unwrap();
        let (one, _listener) = Socket::bind(folder.path(), &name).unwrap();
        let (two, _other) = Socket::bind(folder.path(), &name).unwrap();
        assert_ne!(one.path(), two.path());
        let mode = fs::metadata(one.path()).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        assert!(one.name().starts_with("stowage-mig-aaa") && one.name().len() < 60, "{}", one.name());
        assert_eq!(rivals(folder.path(), &one), [two.name()]);
        let path = one.path().to_owned();
        drop(one);
        assert!(!path.exists() && two.exists());
    }

    #[tokio::test]
    async fn only_dead_sockets_of_ours_are_swept() {
        let folder = tempfile::tempdir().unwrap();
        let (alive, _listener) = Socket::bind(folder.path(), &ResourceName::gpu()).unwrap();
        for name in ["stowage-gpu-00000001.sock", "nvidia-gpu.sock", "kubelet.sock"] {
            drop(std::os::unix::net::UnixListener::bind(folder.path().join(name)).unwrap());
        }
        assert_eq!(sweep(folder.path()).unwrap(), 1);
        assert!(alive.exists() && folder.path().join("nvidia-gpu.sock").exists());
        assert!(!folder.path().join("stowage-gpu-00000001.sock").exists());
    }

    #[tokio::test]
    async fn a_folder_that_is_missing_is_named_with_the_cure() {
        let error = Socket::bind(Path::new("/does/not/exist"), &ResourceName::gpu()).unwrap_err();
        assert!(
            error.to_string().starts_with("cannot make the socket /does/not/exist/stowage-gpu-"),
            "{error}"
        );
        assert!(!error.is_permission());
    }
}
