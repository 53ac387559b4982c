//! Spec files on disk: a runtime sees the old one or the new one, never half of one.

use std::fs;
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use super::CdiError;
use super::spec::Spec;

/// Where the file of a class lies.
pub fn path(folder: &Path, vendor: &str, class: &str) -> PathBuf {
    folder.join(format!("{vendor}-{class}.json"))
}

/// Writes a spec into `folder`, which is made where it is missing. Tells whether the file has changed: runtimes read
/// the folder anew after every change, so nothing is written that is there already.
///
/// # Errors
/// [`CdiError::Folder`] and [`CdiError::Write`]; the old file is still there then.
pub fn write(folder: &Path, vendor: &str, class: &str, spec: &Spec) -> Result<bool, CdiError> {
    let path = path(folder, vendor, class);
    let text = serde_json::to_vec(spec).expect("strings and numbers are always JSON");
    if fs::read(&path).is_ok_and(|old| old == text) {
        return Ok(false);
    }
    fs::create_dir_all(folder).map_err(|source| CdiError::of(folder, source))?;
    // Runtimes read .json and .yaml only, so this name is not seen.
    let draft = folder.join(format!(".{vendor}-{class}.new"));
    let written = put(&draft, &text).and_then(|()| fs::rename(&draft, &path));
    if written.is_err() {
        let _ = fs::remove_file(&draft);
    }
    written.map(|()| true).map_err(|source| CdiError::of(&path, source))
}

fn put(path: &Path, text: &[u8]) -> io::Result<()> {
    // What a crash left is not written into: it may be a link to somewhere else.
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let mut file = fs::OpenOptions::new().write(true).create_new(true).mode(0o644).open(path)?;
    file.write_all(text)?;
    file.sync_all()
}

/// Removes the file of a class, if there is one.
///
/// # Errors
/// [`CdiError::Write`].
pub fn remove(folder: &Path, vendor: &str, class: &str) -> Result<(), CdiError> {
    let path = path(folder, vendor, class);
    match fs::remove_file(&path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(CdiError::of(&path, error)),
        _ => Ok(()),
    }
}
