//! `promtool`, Prometheus's own judge of rule files.
//!
//! It is taken from the cache folder that the cluster tests use too, or from the PATH, or else built once from the Go
//! module proxy where that is asked for: `CI=true` or `STOWAGE_INSTALL=1`. The build takes minutes and the network, which
//! nobody should meet by surprise.

use std::env;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};

/// The Prometheus that is built.
const VERSION: &str = "0.316.0";

/// Where promtool is, or why there is none.
///
/// # Errors
/// Where a build that was asked for fails.
pub fn find() -> Result<Result<PathBuf, String>> {
    let folder = cache_root().join(format!("promtool-{VERSION}"));
    let program = folder.join("promtool");
    if program.is_file() {
        return Ok(Ok(program));
    }
    if let Some(program) = on_path() {
        return Ok(Ok(program));
    }
    let asked = |name, value: &str| env::var(name).is_ok_and(|is| is == value);
    if asked("CI", "true") || asked("STOWAGE_INSTALL", "1") {
        build(&folder)?;
        return Ok(Ok(program));
    }
    Ok(Err("promtool is neither on the PATH nor in the cache; STOWAGE_INSTALL=1 builds it with Go".into()))
}

/// Builds beside, and moves into place what is whole: another test may look meanwhile.
fn build(folder: &Path) -> Result<()> {
    let module = format!("github.com/prometheus/prometheus/cmd/promtool@v{VERSION}");
    eprintln!("Building {module} into {} (once; about 7 minutes of one core) …", folder.display());
    let beside = folder.join("build");
    fs::create_dir_all(&beside).with_context(|| format!("cannot create {}", beside.display()))?;
    let status = Command::new("go")
        .args(["install", "-trimpath", "-ldflags", "-s -w", &module])
        .env("GOBIN", &beside)
        .env("GOWORK", "off")
        .status()
        .context("cannot run `go` (install Go: https://go.dev/dl)")?;
    ensure!(status.success(), "`go install {module}` failed with {status}");
    fs::rename(beside.join("promtool"), folder.join("promtool")).context("go install made no promtool")
}

fn on_path() -> Option<PathBuf> {
    let folders = env::var_os("PATH")?;
    env::split_paths(&folders).map(|folder| folder.join("promtool")).find(|program| program.is_file())
}

fn cache_root() -> PathBuf {
    let of_home = || env::home_dir().unwrap_or_else(|| PathBuf::from("/root")).join(".cache");
    let chosen = env::var_os("XDG_CACHE_HOME").map(PathBuf::from).filter(|path| path.is_absolute());
    chosen.unwrap_or_else(of_home).join("stowage")
}
