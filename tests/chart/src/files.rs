//! Generated files: compared with what they should be, or written again.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

/// The repository's root.
pub fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

/// The chart.
pub fn chart() -> PathBuf {
    root().join("deploy/helm/stowage")
}

/// A file of the repository.
///
/// # Panics
/// Where it cannot be read: these are files of the repository itself.
pub fn read(path: &str) -> String {
    fs::read_to_string(root().join(path)).unwrap_or_else(|error| panic!("cannot read {path}: {error}"))
}

/// Panics where a folder holds anything else than `fresh`, by file name; writes it instead where `UPDATE_GENERATED` is set.
///
/// # Panics
/// As said.
#[track_caller]
pub fn is_fresh(folder: &str, fresh: &BTreeMap<String, String>) {
    let path = root().join(folder);
    let update = std::env::var_os("UPDATE_GENERATED").is_some();
    if update {
        fs::create_dir_all(&path).expect("the repository can be written");
    }
    let entries = fs::read_dir(&path).into_iter().flatten().flatten();
    let names = entries.map(|entry| entry.file_name().to_string_lossy().into_owned());
    for name in names.filter(|name| !fresh.contains_key(name)) {
        assert!(update, "{folder}/{name} is made from nothing any more: run `cargo xtask generate`");
        fs::remove_file(path.join(&name)).expect("the repository can be written");
    }
    for (name, text) in fresh {
        file_is_fresh(&format!("{folder}/{name}"), text);
    }
}

/// The same for one file.
///
/// # Panics
/// Where it is stale.
#[track_caller]
pub fn file_is_fresh(path: &str, fresh: &str) {
    if std::env::var_os("UPDATE_GENERATED").is_some() {
        fs::write(root().join(path), fresh).expect("the repository can be written");
    }
    let committed = fs::read_to_string(root().join(path)).unwrap_or_default();
    assert!(committed == fresh, "{path} is stale: run `cargo xtask generate`");
}

/// The text of a file with what stands between two marks replaced.
///
/// # Panics
/// Where there are no such marks.
pub fn between_marks(text: &str, mark: &str, inside: &str) -> String {
    let begin = format!("<!-- {mark}: made by `cargo xtask generate` -->\n");
    let end = format!("<!-- end of {mark} -->");
    let (before, rest) = text.split_once(&begin).expect("the page has the first mark");
    let (_, after) = rest.split_once(&end).expect("the page has the second mark");
    format!("{before}{begin}\n{inside}\n\n{end}{after}")
}
