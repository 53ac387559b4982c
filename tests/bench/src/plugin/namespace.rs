//! A `/var/lib/kubelet` of our own, which only this process and its children see.
//!
//! NVIDIA's plugin makes its socket in that folder, whatever it is told. So where it is measured too, the bench
//! starts itself again in a mount namespace, which takes root.

use std::fs;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail, ensure};

/// Names NVIDIA's plugin: the path of its program.
pub(crate) const NVIDIA_ENV: &str = "NVIDIA_DEVICE_PLUGIN";
/// Set in the process that has the namespace.
const INSIDE_ENV: &str = "STOWAGE_BENCH_INSIDE";

/// The kubelet's folder, as NVIDIA's plugin knows it.
const KUBELET: &str = "/var/lib/kubelet";

/// NVIDIA's plugin, if it is to be measured. Call it before there is a second thread.
pub(crate) fn nvidia() -> Result<Option<PathBuf>> {
    let Some(program) = std::env::var_os(NVIDIA_ENV).filter(|value| !value.is_empty()) else {
        return Ok(None);
    };
    let program = PathBuf::from(program);
    ensure!(program.is_file(), "{NVIDIA_ENV} is {}, where there is no program", program.display());
    if std::env::var_os(INSIDE_ENV).is_none() {
        let mut again = Command::new("unshare");
        again.args(["--mount", "--propagation", "private"]).arg(std::env::current_exe()?);
        let error = again.args(std::env::args_os().skip(1)).env(INSIDE_ENV, "1").exec();
        bail!(error);
    }
    mount(Path::new(KUBELET))?;
    mount(Path::new("/var/run/cdi"))?;
    Ok(Some(program))
}

/// The folder that the kubelet stand-in uses as its own.
pub(crate) fn kubelet_folder(scratch: &Path, is_inside: bool) -> PathBuf {
    if is_inside { KUBELET.into() } else { scratch.join("kubelet") }
}

/// Lays an empty file system over a folder.
pub(crate) fn mount(folder: &Path) -> Result<()> {
    fs::create_dir_all(folder).with_context(|| format!("cannot make {}", folder.display()))?;
    let status = Command::new("mount").args(["-t", "tmpfs", "stowage-bench"]).arg(folder).status()?;
    ensure!(status.success(), "cannot mount {}: are you root?", folder.display());
    Ok(())
}
