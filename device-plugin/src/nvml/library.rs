//! Where `libnvidia-ml.so.1` is.

use std::path::{Path, PathBuf};

/// The library's name, as the driver installs it.
const SONAME: &str = "libnvidia-ml.so.1";

/// Where distributions put it, in the order in which NVIDIA's plugin looks.
const FOLDERS: [&str; 6] = [
    "usr/lib64",
    "usr/lib/x86_64-linux-gnu",
    "usr/lib/aarch64-linux-gnu",
    "lib64",
    "lib/x86_64-linux-gnu",
    "lib/aarch64-linux-gnu",
];

/// The library below `root`; the bare name, which the system's loader resolves, where there is none or where the
/// root is `/`.
pub(super) fn find(root: &Path) -> PathBuf {
    if root == Path::new("/") {
        return SONAME.into();
    }
    let candidates = FOLDERS.iter().map(|folder| root.join(folder).join(SONAME));
    candidates.into_iter().find(|path| path.exists()).unwrap_or_else(|| SONAME.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_folder_that_has_it_wins_and_else_the_loader_looks() {
        let root = tempfile::tempdir().unwrap();
        assert_eq!(find(root.path()), Path::new(SONAME));
        for folder in ["lib64", "usr/lib/x86_64-linux-gnu"] {
            let folder = root.path().join(folder);
            std::fs::create_dir_all(&folder).unwrap();
            std::fs::write(folder.join(SONAME), "").unwrap();
            assert_eq!(find(root.path()), folder.join(SONAME));
        }
        assert_eq!(find(Path::new("/")), Path::new(SONAME));
    }
}
