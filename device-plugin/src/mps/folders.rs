//! Where MPS's daemons and their clients meet: the folders that NVIDIA's plugin uses, by the same names.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};

use stowage_shared::resource::ResourceName;

/// The root of MPS's folders, as somebody sees it: this program, the host, or a container.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Folders(PathBuf);

impl Folders {
    /// Where containers see it, whatever the host calls it; NVIDIA's name.
    pub fn in_containers() -> Self {
        Self("/mps".into())
    }

    /// With this root.
    pub fn at(root: impl Into<PathBuf>) -> Self {
        Self(root.into())
    }

    /// All of a resource's files: `nvidia.com/gpu.shared` is two folders deep.
    pub fn of(&self, resource: &ResourceName) -> PathBuf {
        self.0.join(resource.as_str())
    }

    /// Where clients find the daemon.
    pub fn pipe(&self, resource: &ResourceName) -> PathBuf {
        self.of(resource).join("pipe")
    }

    /// Where the daemon writes its logs.
    pub fn log(&self, resource: &ResourceName) -> PathBuf {
        self.of(resource).join("log")
    }

    /// What all daemons and clients share as `/dev/shm`.
    pub fn shm(&self) -> PathBuf {
        self.0.join("shm")
    }

    /// Says that the daemon has been told its limits. With the UUIDs of its GPUs in it, it is ours.
    pub fn started(&self, resource: &ResourceName) -> PathBuf {
        self.of(resource).join(".started")
    }

    /// Says that all daemons run.
    pub fn ready(&self) -> PathBuf {
        self.0.join(".ready")
    }

    /// The resources whose daemon this program started and has not stopped, with the UUIDs of their GPUs.
    pub fn ours(&self) -> Vec<(ResourceName, Vec<String>)> {
        let of = |domain: &Path| -> Vec<_> {
            let resource = |name: PathBuf| {
                let name = format!("{}/{}", domain.file_name()?.to_str()?, name.file_name()?.to_str()?);
                let resource: ResourceName = name.parse().ok()?;
                let uuids = std::fs::read_to_string(self.started(&resource)).ok()?;
                let uuids: Vec<String> = uuids.lines().map(str::to_owned).collect();
                (!uuids.is_empty()).then_some((resource, uuids))
            };
            entries(domain).into_iter().filter_map(resource).collect()
        };
        let domains = entries(&self.0);
        domains
            .iter()
            .filter(|path| path.file_name() != Some(OsStr::new("shm")))
            .flat_map(|path| of(path))
            .collect()
    }
}

/// What is in a folder; nothing where there is none.
fn entries(folder: &Path) -> Vec<PathBuf> {
    std::fs::read_dir(folder).into_iter().flatten().filter_map(|entry| Some(entry.ok()?.path())).collect()
}
