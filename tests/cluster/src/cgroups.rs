//! The cgroups below which the nodes' pods live, and taking them away again.
//!
//! cgroups outlive processes and namespaces: they are the one thing that the kernel does not tidy up by
//! itself. So each run has one group of its own per hierarchy, named after the outer process, which removes it
//! when everything inside is gone, and which removes those of runs that were killed before they could.
//!
//! Both layouts are served: version 1 (a hierarchy per controller) and version 2 (one for all).

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use rustix::process::{Pid, test_kill_process};

const ROOT: &str = "/sys/fs/cgroup";
/// Followed by the id of the outer process.
const PREFIX: &str = "stowage-cluster-";
/// Killed processes take a moment to leave their group.
const REMOVE_LIMIT: Duration = Duration::from_secs(3);
/// What a kubelet wants to see, of version 2.
const CONTROLLERS: [&str; 6] = ["cpuset", "cpu", "io", "memory", "hugetlb", "pids"];

/// The group of the run whose outer process is `pid`, relative to each hierarchy.
pub(crate) fn group_of(pid: u32) -> String {
    format!("{PREFIX}{pid}")
}

/// Creates `group/node` in each hierarchy, so that a kubelet with that `cgroupRoot` starts.
pub(crate) fn create(group: &str, node: &str) -> Result<()> {
    for hierarchy in hierarchies() {
        let mut parent = hierarchy.clone();
        for name in [group, node] {
            hand_down_controllers(&parent);
            let child = parent.join(name);
            match fs::create_dir(&child) {
                Err(error) if error.kind() != io::ErrorKind::AlreadyExists => {
                    return Err(error).with_context(|| format!("cannot create cgroup {}", child.display()));
                }
                _ => {}
            }
            hand_down_cpusets(&parent, &child);
            parent = child;
        }
        hand_down_controllers(&parent);
    }
    Ok(())
}

/// Removes `group` and everything below it. What cannot be removed is left: an empty group harms nobody, and
/// the next run tries again.
pub(crate) fn remove(group: &str) {
    let deadline = Instant::now() + REMOVE_LIMIT;
    for hierarchy in hierarchies() {
        let folder = hierarchy.join(group);
        while folder.exists() && remove_tree(&folder).is_err() && Instant::now() < deadline {
            thread::sleep(Duration::from_millis(20));
        }
    }
}

/// Removes the groups of runs whose outer process is gone.
pub(crate) fn remove_stale() {
    let mut stale: Vec<String> = hierarchies().iter().flat_map(|hierarchy| names_in(hierarchy)).collect();
    stale.retain(|name| {
        let pid = name.strip_prefix(PREFIX).and_then(|pid| pid.parse().ok()).and_then(Pid::from_raw);
        pid.is_some_and(|pid| test_kill_process(pid) == Err(rustix::io::Errno::SRCH))
    });
    stale.sort_unstable();
    stale.dedup();
    stale.iter().for_each(|group| remove(group));
}

fn names_in(folder: &Path) -> Vec<String> {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    entries.filter(|entry| entry.path().is_dir()).filter_map(|e| e.file_name().into_string().ok()).collect()
}

fn hierarchies() -> Vec<PathBuf> {
    let root = Path::new(ROOT);
    if root.join("cgroup.procs").exists() {
        return vec![root.to_owned()];
    }
    let each = names_in(root).into_iter().map(|name| root.join(name));
    each.filter(|path| path.join("cgroup.procs").exists()).collect()
}

/// Version 2: children get only the controllers that their parent hands down. One write each, since the
/// kernel refuses the whole list for one controller that it lacks.
fn hand_down_controllers(parent: &Path) {
    let control = parent.join("cgroup.subtree_control");
    if control.exists() {
        for controller in CONTROLLERS {
            let _ = fs::write(&control, format!("+{controller}"));
        }
    }
}

/// Version 1: a new cpuset is empty, and nothing can run in it.
fn hand_down_cpusets(parent: &Path, child: &Path) {
    if child.join("cgroup.subtree_control").exists() {
        return;
    }
    for file in ["cpuset.cpus", "cpuset.mems"] {
        if let Ok(value) = fs::read(parent.join(file)) {
            let _ = fs::write(child.join(file), value);
        }
    }
}

/// `fs::remove_dir_all` fails on the control files; `rmdir` takes them along.
fn remove_tree(folder: &Path) -> io::Result<()> {
    for child in names_in(folder) {
        remove_tree(&folder.join(child))?;
    }
    fs::remove_dir(folder)
}
