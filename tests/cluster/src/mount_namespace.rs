//! A mount namespace for each node.
//!
//! A kubelet's plugin and pod-resources sockets are under `/var/lib/kubelet`, whatever `--root-dir` says. So
//! several kubelets on one machine need each a `/var/lib/kubelet` of their own. The same holds for a few other
//! paths that programs have built in, or that users know and tests should use.
//!
//! A descriptor holds the namespace; what runs on the node enters it between fork and exec. The mount points
//! have to exist outside: where they do not, empty folders are made, and they are all that a run leaves on the
//! host.

use std::fs::File;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::thread;

use anyhow::{Context, Result, anyhow};
use rustix::mount::{MountPropagationFlags, mount_bind, mount_change};
use rustix::thread::{UnshareFlags, unshare_unsafe};

use crate::control_plane::create_folder;

const KUBELET: &str = "/var/lib/kubelet";
/// Folders of the node, and where its processes see them: the kubelet's state and sockets, CDI specs, the
/// kubelet's links to containers' logs, and what CNI remembers of its answers.
const MOUNTS: [(&str, &str); 4] = [
    ("kubelet", KUBELET),
    ("cdi", "/var/run/cdi"),
    ("container-logs", "/var/log/containers"),
    ("cni-cache", "/var/lib/cni"),
];

/// The folders that a node's state folder must have before [`create`].
pub(crate) const FOLDERS: [&str; MOUNTS.len()] = [MOUNTS[0].0, MOUNTS[1].0, MOUNTS[2].0, MOUNTS[3].0];

/// Makes a mount namespace for the node whose state is in `folder`, and returns a descriptor that keeps it.
pub(crate) fn create(folder: PathBuf) -> Result<OwnedFd> {
    // A thread of its own, since it leaves the mount namespace of the process for good.
    let thread = thread::spawn(move || -> Result<OwnedFd> {
        for (_, target) in MOUNTS {
            create_folder(Path::new(target))?;
        }
        // SAFETY: only this thread changes its mounts, root and working directory, and it ends right after;
        // descriptors and memory stay shared.
        unsafe { unshare_unsafe(UnshareFlags::NEWNS | UnshareFlags::FS) }
            .context("cannot get a mount namespace")?;
        for (source, target) in MOUNTS {
            mount_bind(folder.join(source), target).with_context(|| format!("cannot mount {target}"))?;
        }
        // The kubelet passes mounts below it on to containers.
        let shared = MountPropagationFlags::SHARED | MountPropagationFlags::REC;
        mount_change(KUBELET, shared).with_context(|| format!("cannot share {KUBELET}"))?;
        Ok(File::open("/proc/thread-self/ns/mnt").context("cannot open the mount namespace")?.into())
    });
    thread.join().map_err(|_| anyhow!("the thread that makes a mount namespace panicked"))?
}
