//! The kubelet's two sockets, opened as the kubelet opens them.

use std::os::unix::fs::{DirBuilderExt, FileTypeExt};
use std::path::Path;
use std::{fs, io};

use tokio::net::UnixListener;

use super::error::StartError;

/// The mode of a socket folder that the kubelet makes.
const FOLDER_MODE: u32 = 0o750;

/// Opens the registration socket, after deleting every socket of the folder, the plugins' own too:
/// that is how a plugin learns that the kubelet has restarted.
pub(super) fn registration(socket: &Path) -> Result<UnixListener, StartError> {
    let folder = folder_of(socket);
    make(folder)?;
    let unusable = |path: &Path| {
        let path = path.to_owned();
        move |source| StartError::Folder { path, source }
    };
    for entry in fs::read_dir(folder).map_err(unusable(folder))? {
        let path = entry.map_err(unusable(folder))?.path();
        // Follows links, as the kubelet does. What is gone meanwhile need not be deleted.
        if fs::metadata(&path).is_ok_and(|metadata| metadata.file_type().is_socket()) {
            fs::remove_file(&path).or_else(missing_is_fine).map_err(unusable(&path))?;
        }
    }
    listen(socket)
}

/// Opens the pod-resources socket: under another name first, so that it takes connections from the
/// moment it is seen.
pub(super) fn pod_resources(socket: &Path) -> Result<UnixListener, StartError> {
    make(folder_of(socket))?;
    let new = socket.with_extension("new");
    let failed = |source| StartError::Listen { socket: socket.to_owned(), source };
    fs::remove_file(&new).or_else(missing_is_fine).map_err(failed)?;
    let listener = listen(&new)?;
    fs::rename(&new, socket).map_err(failed)?;
    Ok(listener)
}

fn listen(socket: &Path) -> Result<UnixListener, StartError> {
    UnixListener::bind(socket).map_err(|source| StartError::Listen { socket: socket.to_owned(), source })
}

fn make(folder: &Path) -> Result<(), StartError> {
    fs::DirBuilder::new()
        .recursive(true)
        .mode(FOLDER_MODE)
        .create(folder)
        .map_err(|source| StartError::Folder { path: folder.to_owned(), source })
}

fn folder_of(socket: &Path) -> &Path {
    socket.parent().unwrap_or(Path::new("."))
}

fn missing_is_fine(error: io::Error) -> io::Result<()> {
    if error.kind() == io::ErrorKind::NotFound { Ok(()) } else { Err(error) }
}
