//! What the cluster needs from the machine, exactly what of it is missing, and how to get it.
//!
//! Nothing here starts anything. Kubernetes and containerd themselves are the affair of [`crate::build`].

use std::path::{Path, PathBuf};
use std::process::Command;
use std::{env, fmt, fs};

use anyhow::{Context, Result, bail, ensure};

use crate::build::{self, Scope};
use crate::versions::Versions;

/// Set to `1` to let the tests install what is missing, as they do by themselves where `CI=true`.
pub const INSTALL_ENV: &str = "STOWAGE_INSTALL";

/// Where Debian (first) and everybody else puts CNI plugins.
const CNI_FOLDERS: [&str; 2] = ["/usr/lib/cni", "/opt/cni/bin"];
/// Debian's folders for programs of root are not always in `PATH`.
const ROOT_FOLDERS: [&str; 3] = ["/usr/sbin", "/sbin", "/usr/local/sbin"];

/// One thing that the cluster needs and this machine lacks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Missing {
    /// Namespaces, cgroups, mounts and a kubelet need the real root.
    Root,
    /// A program or file that a Debian package brings.
    Package {
        /// What was looked for.
        what: &'static str,
        /// The Debian package that has it.
        package: &'static str,
    },
    /// Kubernetes is not in the cache yet, and there is no `go` to build it.
    Go,
    /// No cgroup hierarchy is mounted at `/sys/fs/cgroup`.
    Cgroups,
}

impl fmt::Display for Missing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Root => {
                f.write_str("root (in a VM for instance, or with sudo -E env \"PATH=$PATH\" in front)")
            }
            Self::Package { what, package } => write!(f, "{what} (Debian package {package})"),
            Self::Go => f.write_str("go 1.21 or newer, to build Kubernetes once (https://go.dev/dl)"),
            Self::Cgroups => f.write_str("cgroups, mounted at /sys/fs/cgroup"),
        }
    }
}

/// Lists what is missing; empty when a cluster can start.
pub fn missing(versions: &Versions, scope: Scope) -> Vec<Missing> {
    let mut missing = Vec::new();
    if !rustix::process::geteuid().is_root() {
        missing.push(Missing::Root);
    }
    let nodes = scope == Scope::Nodes;
    let packages: [(&str, &str, bool); 5] = [
        ("etcd", "etcd-server", find_program("etcd").is_some()),
        ("ip", "iproute2", find_program("ip").is_some()),
        ("runc", "runc", !nodes || find_program("runc").is_some()),
        (
            "the CNI plugins bridge and host-local",
            "containernetworking-plugins",
            !nodes || cni_folder().is_some(),
        ),
        ("a statically linked busybox", "busybox-static", !nodes || busybox().is_some()),
    ];
    for (what, package, found) in packages {
        if !found {
            missing.push(Missing::Package { what, package });
        }
    }
    if !build::is_built(versions, scope) && find_program("go").is_none() {
        missing.push(Missing::Go);
    }
    if !Path::new("/sys/fs/cgroup/cgroup.procs").exists() && !Path::new("/sys/fs/cgroup/cpu").exists() {
        missing.push(Missing::Cgroups);
    }
    missing
}

/// True where missing things may be installed without asking again: in CI, or when [`INSTALL_ENV`] says so.
pub fn may_install() -> bool {
    in_ci() || env::var(INSTALL_ENV).is_ok_and(|value| value == "1" || value == "true")
}

/// True where `CI=true`: nothing may be skipped there.
pub fn in_ci() -> bool {
    env::var("CI").is_ok_and(|value| value == "true" || value == "1")
}

/// The command that installs the Debian packages among `missing`; `None` when there are none.
pub fn install_command(missing: &[Missing]) -> Option<String> {
    let packages = packages_of(missing);
    (!packages.is_empty())
        .then(|| format!("apt-get install --yes --no-install-recommends {}", packages.join(" ")))
}

/// Installs the Debian packages among `missing` with apt-get; the rest of `missing` stays as it is.
///
/// # Errors
/// When this is not root on Debian, with the command that a person would run; or when apt-get fails.
pub fn install(missing: &[Missing]) -> Result<()> {
    let packages = packages_of(missing);
    let Some(command) = install_command(missing) else { return Ok(()) };
    ensure!(
        rustix::process::geteuid().is_root() && find_program("apt-get").is_some(),
        "only root on Debian can install packages here; run: {command}"
    );
    apt_get(&["update"])?;
    let mut arguments = vec!["install", "--yes", "--no-install-recommends"];
    arguments.extend(packages);
    apt_get(&arguments)
}

fn packages_of(missing: &[Missing]) -> Vec<&'static str> {
    missing
        .iter()
        .filter_map(|missing| match missing {
            Missing::Package { package, .. } => Some(*package),
            Missing::Root | Missing::Go | Missing::Cgroups => None,
        })
        .collect()
}

fn apt_get(arguments: &[&str]) -> Result<()> {
    let status = Command::new("apt-get")
        .args(arguments)
        .env("DEBIAN_FRONTEND", "noninteractive")
        // The results of the tests are the only thing on standard output.
        .stdout(std::io::stderr())
        .status()
        .context("cannot run apt-get")?;
    if !status.success() {
        bail!("`apt-get {}` failed with {status}", arguments.join(" "));
    }
    Ok(())
}

/// Finds `name` in `PATH` or in the folders for programs of root.
pub(crate) fn find_program(name: &str) -> Option<PathBuf> {
    let path = env::var_os("PATH").unwrap_or_default();
    env::split_paths(&path)
        .chain(ROOT_FOLDERS.iter().map(PathBuf::from))
        .map(|folder| folder.join(name))
        .find(|candidate| candidate.is_file())
}

/// The folder that has the CNI plugins the nodes use.
pub(crate) fn cni_folder() -> Option<&'static str> {
    CNI_FOLDERS.into_iter().find(|folder| {
        ["bridge", "host-local", "loopback"].iter().all(|p| Path::new(folder).join(p).is_file())
    })
}

/// A busybox that runs in an image with nothing else in it.
pub(crate) fn busybox() -> Option<PathBuf> {
    let candidates = ["/bin/busybox", "/usr/bin/busybox", "/bin/busybox.static"];
    candidates.into_iter().map(PathBuf::from).find(|path| fs::read(path).is_ok_and(|file| is_static(&file)))
}

/// True for a 64-bit little-endian ELF file that asks for no dynamic loader (no `PT_INTERP` header).
fn is_static(elf: &[u8]) -> bool {
    const PT_INTERP: u32 = 3;
    let half = |at: usize| elf.get(at..at + 2).map(|b| usize::from(u16::from_le_bytes([b[0], b[1]])));
    let headers = || {
        let offset = elf.get(32..40)?.try_into().map(u64::from_le_bytes).ok()?;
        Some((usize::try_from(offset).ok()?, half(54)?, half(56)?))
    };
    if !elf.starts_with(b"\x7fELF\x02\x01") {
        return false;
    }
    let Some((offset, size, count)) = headers() else { return false };
    (0..count).all(|index| {
        let at = offset.saturating_add(index * size);
        elf.get(at..at.saturating_add(4))
            .and_then(|kind| kind.try_into().ok())
            .is_some_and(|kind| u32::from_le_bytes(kind) != PT_INTERP)
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_dynamically_linked_program_is_not_taken_for_a_static_one() {
        // The test itself is linked against glibc.
        assert!(!is_static(&fs::read("/proc/self/exe").unwrap()));
        assert!(!is_static(b"#!/bin/sh\n"));
        assert!(!is_static(b"\x7fELF\x02\x01"));
    }

    #[test]
    fn an_elf_file_without_an_interpreter_header_is_static() {
        let mut elf = vec![0_u8; 64 + 56];
        elf[..6].copy_from_slice(b"\x7fELF\x02\x01");
        elf[32] = 64; // the program headers follow the file's header,
        elf[54] = 56; // are 56 bytes each,
        elf[56] = 1; // and there is one,
        elf[64] = 1; // PT_LOAD
        assert!(is_static(&elf));
        elf[64] = 3; // PT_INTERP
        assert!(!is_static(&elf));
    }

    #[test]
    fn the_install_command_names_exactly_the_missing_packages() {
        let missing = [
            Missing::Root,
            Missing::Package { what: "runc", package: "runc" },
            Missing::Package { what: "ip", package: "iproute2" },
        ];
        let command = install_command(&missing).unwrap();
        assert_eq!(command, "apt-get install --yes --no-install-recommends runc iproute2");
        assert_eq!(install_command(&[Missing::Root, Missing::Go]), None);
    }
}
