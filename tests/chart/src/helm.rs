//! Helm: found, or built once from the Go module proxy.

use std::env;
use std::ffi::OsStr;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::OnceLock;

use anyhow::{Context, Result, bail, ensure};
use serde_json::Value;

/// The version that is built where none is found.
const VERSION: &str = "3.22.0";

/// The program: `$HELM`, else the one on the `PATH`, else one of our own, in `~/.cache/stowage` with Kubernetes's programs.
///
/// # Errors
/// Where it must be built and cannot be.
pub fn helm() -> Result<&'static Path> {
    static FOUND: OnceLock<PathBuf> = OnceLock::new();
    if let Some(found) = FOUND.get() {
        return Ok(found);
    }
    let given = env::var_os("HELM").filter(|path| !path.is_empty()).map(PathBuf::from);
    let path = match given.or_else(on_path) {
        Some(path) => path,
        None => built()?,
    };
    Ok(FOUND.get_or_init(|| path))
}

fn on_path() -> Option<PathBuf> {
    let path = env::var_os("PATH")?;
    env::split_paths(&path).map(|folder| folder.join("helm")).find(|path| path.is_file())
}

fn built() -> Result<PathBuf> {
    let home = || env::home_dir().unwrap_or_else(|| PathBuf::from("/root")).join(".cache");
    let cache = env::var_os("XDG_CACHE_HOME").map(PathBuf::from).filter(|path| path.is_absolute());
    let folder = cache.unwrap_or_else(home).join("stowage").join(format!("helm-{VERSION}"));
    let program = folder.join("helm");
    if program.is_file() {
        return Ok(program);
    }
    fs::create_dir_all(&folder).with_context(|| format!("cannot create {}", folder.display()))?;
    // Tests run at once: one builds, the others wait.
    let lock = File::create(folder.join("lock")).context("cannot create a lock file")?;
    lock.lock().context("cannot lock")?;
    if !program.is_file() {
        eprintln!("Building helm {VERSION} into {} (once; about 4 minutes on 2 cores) …", folder.display());
        let work = folder.join("build");
        let status = Command::new("go")
            .args(["install", "-ldflags", "-s -w", &format!("helm.sh/helm/v3/cmd/helm@v{VERSION}")])
            .current_dir(&folder)
            .env("GOBIN", &work)
            .env("GOWORK", "off")
            .status()
            .context("cannot run `go`: install Go (https://go.dev/dl), or name helm in HELM")?;
        ensure!(status.success(), "`go install` of helm ended with {status}");
        fs::rename(work.join("helm"), &program).context("go install made no helm")?;
    }
    Ok(program)
}

/// What the chart in this folder renders to, with further arguments of `helm template`.
///
/// # Errors
/// What helm says, where it refuses.
pub fn template<S: AsRef<OsStr>>(chart: &Path, arguments: impl IntoIterator<Item = S>) -> Result<String> {
    let mut command = Command::new(helm()?);
    command.args(["template", "stowage"]).arg(chart).args(["--kube-version", "1.36.1"]).args(arguments);
    run(command)
}

/// What helm prints.
///
/// # Errors
/// What it says on standard error, where it fails.
pub fn run(mut command: Command) -> Result<String> {
    let output = command.stdin(Stdio::null()).output().with_context(|| format!("cannot run {command:?}"))?;
    if !output.status.success() {
        bail!("{}{}", String::from_utf8_lossy(&output.stderr), String::from_utf8_lossy(&output.stdout));
    }
    String::from_utf8(output.stdout).context("helm printed something else than text")
}

/// The objects of a rendered text.
///
/// # Errors
/// Where it is no YAML.
pub fn objects(rendered: &str) -> Result<Vec<Value>> {
    let documents: Vec<Value> = serde_saphyr::from_multiple(rendered).context("this is no YAML")?;
    Ok(documents.into_iter().filter(|document| !document.is_null()).collect())
}
