//! Manifests against the schemas that Kubernetes publishes, with `kubernetes-validate`, which has those of every minor with it.

use std::env;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::OnceLock;

use anyhow::{Context, Result, ensure};

/// The minors that Stowage supports.
pub const MINORS: [&str; 5] = ["1.33", "1.34", "1.35", "1.36", "1.37"];
/// What is installed where it is not found: the version whose newest schemas are those of the last of the minors.
const VERSION: &str = "1.37.0";

/// The program: `$KUBERNETES_VALIDATE`, the one on the `PATH`, or one of our own in a Python environment below `folder`.
///
/// # Errors
/// Where it must be installed and cannot be, with what is missing.
pub fn program(folder: &Path) -> Result<&'static Path> {
    static FOUND: OnceLock<PathBuf> = OnceLock::new();
    if let Some(found) = FOUND.get() {
        return Ok(found);
    }
    let given = env::var_os("KUBERNETES_VALIDATE").filter(|path| !path.is_empty()).map(PathBuf::from);
    let path = match given.or_else(on_path) {
        Some(path) => path,
        None => installed(folder)?,
    };
    Ok(FOUND.get_or_init(|| path))
}

fn on_path() -> Option<PathBuf> {
    let path = env::var_os("PATH")?;
    env::split_paths(&path).map(|folder| folder.join("kubernetes-validate")).find(|path| path.is_file())
}

fn installed(folder: &Path) -> Result<PathBuf> {
    let home = folder.join("kubernetes-validate");
    let program = home.join("bin/kubernetes-validate");
    fs::create_dir_all(folder).with_context(|| format!("cannot create {}", folder.display()))?;
    // Tests run at once: one installs, the others wait.
    let lock = File::create(folder.join("kubernetes-validate.lock")).context("cannot create a lock file")?;
    lock.lock().context("cannot lock")?;
    if !program.is_file() {
        eprintln!("Installing kubernetes-validate {VERSION} into {} (once) …", home.display());
        let environment =
            Command::new("python3").args(["-m", "venv"]).arg(&home).stdout(Stdio::null()).status();
        let environment = environment.context(
            "cannot run python3: install it and its venv (apt-get install python3-venv), or name kubernetes-validate in \
             KUBERNETES_VALIDATE",
        )?;
        ensure!(environment.success(), "python3 has no venv: apt-get install python3-venv");
        let wanted = format!("kubernetes-validate=={VERSION}");
        let status = Command::new(home.join("bin/pip")).args(["install", "--quiet", &wanted]).status();
        let status = status.context("the Python environment has no pip: apt-get install python3-venv")?;
        ensure!(status.success(), "pip cannot install {wanted}: is there a way to a Python package index?");
    }
    Ok(program)
}

/// Objects of those minors' Kubernetes: `name` is for messages, `manifests` are files of YAML. Kinds of others, such as monitors of
/// Prometheus's operator, have no schema there and are passed over.
///
/// # Errors
/// What is wrong, field by field.
pub fn check(program: &Path, minors: &[&str], name: &str, manifests: &[PathBuf]) -> Result<()> {
    for minor in minors {
        let output = Command::new(program)
            .args(["--kubernetes-version", minor, "--strict", "--quiet", "--no-warn"])
            .args(manifests)
            .stdin(Stdio::null())
            .output()
            .with_context(|| format!("cannot run {}", program.display()))?;
        let said = String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
        ensure!(output.status.success(), "{name} is not what Kubernetes {minor} takes:\n{said}");
    }
    Ok(())
}
