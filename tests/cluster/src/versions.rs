//! Which Kubernetes and which containerd the tests run, and where the built programs are kept.
//!
//! The one place to change for a new release. Another minor is chosen by environment, for instance
//! `STOWAGE_KUBERNETES_VERSION=1.35.4`; each version has a folder of its own.

use std::env;
use std::path::PathBuf;

/// The Kubernetes that is built when nothing else is asked for.
pub const KUBERNETES: &str = "1.36.1";
/// The containerd that is built when nothing else is asked for; 2.x has CDI in its CRI plugin.
pub const CONTAINERD: &str = "2.2.9";
/// Chooses another Kubernetes, as `1.MINOR.PATCH` without a `v`.
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
            kubernetes: chosen(KUBERNETES_ENV, KUBERNETES),
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
