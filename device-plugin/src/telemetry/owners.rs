//! Whose a process is.
//!
//! NVML tells processes by number. The kernel tells the control group of each, whose path the kubelet makes of the
//! pod's UID. Both are seen only by who shares the host's process ids (`hostPID: true`).

use std::fs::File;
use std::io::Read;
use std::path::Path;

/// The most of a `cgroup` file that is read; a path has 4 KiB at most.
const CGROUP_MAX_BYTES: u64 = 16 * 1024;
/// A UID with its hyphens.
const UID_BYTES: usize = 36;

/// The UID of the pod that a process runs in; `None` where it runs in none, or cannot be seen.
pub(super) fn pod_of(procfs: &Path, pid: u32) -> Option<String> {
    let mut text = String::new();
    let file = File::open(procfs.join(pid.to_string()).join("cgroup")).ok()?;
    file.take(CGROUP_MAX_BYTES).read_to_string(&mut text).ok()?;
    pod_in(&text)
}

/// Finds `…-pod1b2c…_….slice` (systemd's names, where `_` stands for `-`) or `/pod1b2c…-…/`.
fn pod_in(cgroups: &str) -> Option<String> {
    let names = cgroups.split(['/', '\n']);
    names.filter(|name| !name.is_empty()).find_map(|name| {
        let name = name.strip_suffix(".slice").unwrap_or(name);
        let (kind, uid) = name.rsplit_once("pod")?;
        let is_pod = kind.is_empty() || kind.starts_with("kubepods") && kind.ends_with('-');
        let uid = uid.replace('_', "-");
        let is_uid = uid.len() == UID_BYTES && uid.bytes().all(|b| b.is_ascii_hexdigit() || b == b'-');
        (is_pod && is_uid).then_some(uid)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const UID: &str = "0a1b2c3d-1111-2222-3333-444455556666";

    #[test]
    fn pods_are_found_in_the_paths_of_both_drivers() {
        let systemd = UID.replace('-', "_");
        for path in [
            format!(
                "0::/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod{systemd}.slice/cri-containerd-ff.scope\n"
            ),
            format!("0::/kubepods.slice/kubepods-pod{systemd}.slice/crio-ff.scope\n"),
            format!("0::/kubepods/besteffort/pod{UID}/ff\n"),
            format!("12:cpu:/\n1:name=systemd:/kubepods/pod{UID}/ff\n"),
            format!("0::/../../kubepods-burstable-pod{systemd}.slice/cri-containerd-ff.scope\n"),
        ] {
            assert_eq!(pod_in(&path).as_deref(), Some(UID), "{path}");
        }
    }

    #[test]
    fn what_is_no_pod_is_nobodys() {
        for path in [
            "",
            "0::/\n",
            "0::/system.slice/kubelet.service\n",
            "0::/kubepods/podx/ff\n",
            "0::/user.slice/tripod.slice\n",
        ] {
            assert_eq!(pod_in(path), None, "{path}");
        }
        assert_eq!(pod_of(Path::new("/nowhere"), 1), None);
    }
}
