//! Prometheus and `promtool`, Prometheus's own judge of rule files.
//!
//! They are taken from the cache folder that the cluster tests use too, or from the PATH, or else built once from the Go
//! module proxy where that is asked for: `CI=true` or `STOWAGE_INSTALL=1`. The build takes minutes and the network, which
//! nobody should meet by surprise.

use std::env;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};

/// The Prometheus that is built.
const VERSION: &str = "0.316.0";

/// One of Prometheus's programs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Program {
    /// Checks rule files, and runs their tests.
    Promtool,
    /// The server.
    Prometheus,
}

impl Program {
    /// What it is called.
    pub fn name(self) -> &'static str {
        match self {
            Self::Promtool => "promtool",
            Self::Prometheus => "prometheus",
        }
    }

    /// What it is built without: looking for targets in two dozen clouds is most of the server, and no test's affair.
    fn tags(self) -> &'static str {
        match self {
            Self::Promtool => "",
            Self::Prometheus => "remove_all_sd",
        }
    }

    /// Where it is, or why it is not.
    ///
    /// # Errors
    /// Where a build that was asked for fails.
    pub fn find(self) -> Result<Result<PathBuf, String>> {
        let name = self.name();
        let folder = cache_root().join(format!("{name}-{VERSION}"));
        let program = folder.join(name);
        if program.is_file() {
            return Ok(Ok(program));
        }
        if let Some(program) = on_path(name) {
            return Ok(Ok(program));
        }
        let asked = |name, value: &str| env::var(name).is_ok_and(|is| is == value);
        if asked("CI", "true") || asked("STOWAGE_INSTALL", "1") {
            self.build(&folder)?;
            return Ok(Ok(program));
        }
        Ok(Err(format!(
            "{name} is neither on the PATH nor in the cache; STOWAGE_INSTALL=1 builds it with Go"
        )))
    }

    /// Builds beside, and moves into place what is whole; who comes meanwhile waits.
    fn build(self, folder: &Path) -> Result<()> {
        let name = self.name();
        let module = format!("github.com/prometheus/prometheus/cmd/{name}@v{VERSION}");
        let beside = folder.join("build");
        fs::create_dir_all(&beside).with_context(|| format!("cannot create {}", beside.display()))?;
        let lock = File::create(folder.join("lock")).context("cannot create a lock file")?;
        lock.lock().context("cannot lock")?;
        if folder.join(name).is_file() {
            return Ok(());
        }
        eprintln!("Building {module} into {} (once; about 7 minutes of one core) …", folder.display());
        let status = Command::new("go")
            .args(["install", "-trimpath", "-ldflags", "-s -w", "-tags", self.tags(), &module])
            .env("GOBIN", &beside)
            .env("GOWORK", "off")
            .status()
            .context("cannot run `go` (install Go: https://go.dev/dl)")?;
        ensure!(status.success(), "`go install {module}` failed with {status}");
        fs::rename(beside.join(name), folder.join(name)).with_context(|| format!("go install made no {name}"))
    }
}

fn on_path(name: &str) -> Option<PathBuf> {
    let folders = env::var_os("PATH")?;
    env::split_paths(&folders).map(|folder| folder.join(name)).find(|program| program.is_file())
}

fn cache_root() -> PathBuf {
    let of_home = || env::home_dir().unwrap_or_else(|| PathBuf::from("/root")).join(".cache");
    let chosen = env::var_os("XDG_CACHE_HOME").map(PathBuf::from).filter(|path| path.is_absolute());
    chosen.unwrap_or_else(of_home).join("stowage")
}
