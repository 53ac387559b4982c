//! Which Kubernetes and which containerd the tests run, and where the built programs are kept.
//!
//! The one place to change for a new release. Another Kubernetes is chosen by environment, as a minor
//! (`STOWAGE_KUBERNETES_VERSION=1.34`) or as a version (`1.34.2`); each version has a folder of its own.

use std::env;
use std::path::PathBuf;

/// The Kubernetes that is built when nothing else is asked for.
pub const KUBERNETES: &str = "1.36.1";
/// The patch that is built of each minor that Stowage supports.
pub const MINORS: [&str; 5] = ["1.33.13", "1.34.4", "1.35.4", KUBERNETES, "1.37.2"];
/// The containerd that is built when nothing else is asked for; 2.x has CDI in its CRI plugin.
pub const CONTAINERD: &str = "2.2.9";
/// Chooses another Kubernetes, as `1.MINOR` of [`MINORS`] or as `1.MINOR.PATCH`, without a `v`.
pub const KUBERNETES_ENV: &str = "STOWAGE_KUBERNETES_VERSION";
/// Chooses another containerd, as `2.MINOR.PATCH` without a `v`.
pub const CONTAINERD_ENV: &str = "STOWAGE_CONTAINERD_VERSION";

/// The two versions that belong to one cache folder.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Versions {
    /// `1.MINOR.PATCH`, without a `v`.
    pub kubernetes: String,
    /// `2.MINOR.PATCH`, without a `v`.
    pub containerd: String,
}

impl Versions {
    /// The versions that the environment asks for, else [`KUBERNETES`] and [`CONTAINERD`].
    pub fn from_env() -> Self {
        let chosen = |name, default: &str| {
            env::var(name).ok().filter(|v| !v.is_empty()).unwrap_or_else(|| default.to_owned())
        };
        Self {
            kubernetes: patch_of(&chosen(KUBERNETES_ENV, KUBERNETES)).to_owned(),
            containerd: chosen(CONTAINERD_ENV, CONTAINERD),
        }
    }

    /// Where the programs of these versions are kept: outside the repository, so that every checkout of a
    /// user shares them and `cargo clean` does not cost the minutes of a build.
    pub fn cache_folder(&self) -> PathBuf {
        Self::cache_root().join(format!("kubernetes-{}", self.kubernetes))
    }

    /// `$XDG_CACHE_HOME/stowage`, else `~/.cache/stowage`: where everything is kept that is built or downloaded.
    pub(crate) fn cache_root() -> PathBuf {
        let home_cache = || env::home_dir().unwrap_or_else(|| PathBuf::from("/root")).join(".cache");
        env::var_os("XDG_CACHE_HOME")
            .map(PathBuf::from)
            .filter(|path| path.is_absolute())
            .unwrap_or_else(home_cache)
            .join("stowage")
    }

    /// What the stamp file holds when the folder is complete.
    pub(crate) fn stamp(&self) -> String {
        format!("kubernetes {}\ncontainerd {}\n", self.kubernetes, self.containerd)
    }
}

/// The version that is meant: a minor means its patch in [`MINORS`].
fn patch_of(chosen: &str) -> &str {
    let is_of = |version: &&str| version.strip_prefix(chosen).is_some_and(|rest| rest.starts_with('.'));
    MINORS.into_iter().find(is_of).unwrap_or(chosen)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_minor_means_its_patch_and_a_version_itself() {
        assert_eq!(patch_of("1.34"), "1.34.4");
        assert_eq!(patch_of("1.36"), KUBERNETES);
        assert_eq!(patch_of("1.34.2"), "1.34.2");
        assert_eq!(patch_of("1.3"), "1.3");
    }

    #[test]
    fn the_minors_are_those_that_users_and_the_menu_are_told() {
        let minors = MINORS.map(|version| version.rsplit_once('.').map_or(version, |(minor, _)| minor));
        let (first, last) = (minors[0], minors[MINORS.len() - 1]);
        let readme = include_str!("../../../README.md");
        assert!(readme.contains(&format!("Kubernetes {first} to {last}")));
        let quoted = format!("[{}]", minors.map(|minor| format!("\"{minor}\"")).join(", "));
        assert!(include_str!("../../../xtask/src/minors.rs").contains(&quoted), "{quoted}");
    }
}
