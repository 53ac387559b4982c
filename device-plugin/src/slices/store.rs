//! Which MIG instances are ours, and what each token stands for, on disk: a restart of this program must neither lose an
//! instance nor take another's for ours, and what it had promised to a container that has not started yet stays promised.
//!
//! The file lies beside the kubelet's sockets, on the host. Instances do not survive a reboot (NVIDIA MIG User Guide,
//! "Device Persistence"), so what an earlier boot wrote says nothing. For the same reason nothing is synced: the file
//! must outlive this process, not the machine.

use std::collections::BTreeMap;
use std::fs;
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use serde::{Deserialize, Serialize};
use stowage_shared::gpu::GpuUuid;

use super::OurInstance;
use crate::book::Booking;

/// The file's name.
pub const FILE: &str = "stowage-slices.json";
/// Longer than the instances and tokens of [`GPUS_PER_NODE_MAX`](stowage_shared::contract::GPUS_PER_NODE_MAX) GPUs ever are.
const FILE_MAX_BYTES: u64 = 1 << 20;

/// What the file holds.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Content {
    version: u32,
    boot_id: String,
    #[serde(default)]
    bookings: BTreeMap<String, Booking>,
    instances: Vec<OurInstance>,
}

/// The file, and what it holds.
#[derive(Clone)]
pub(super) struct Store {
    path: PathBuf,
    content: Arc<Mutex<Content>>,
}

impl Store {
    /// What an earlier process of this boot wrote into `folder`. What cannot be read is told and left: the instances are
    /// not ours then, and nothing is done to them.
    pub(super) fn open(folder: &Path, procfs: &Path) -> Self {
        let path = folder.join(FILE);
        let boot_id = fs::read_to_string(procfs.join("sys/kernel/random/boot_id")).unwrap_or_default();
        let boot_id = boot_id.trim().to_owned();
        let nothing = Content { version: 1, boot_id, bookings: BTreeMap::new(), instances: Vec::new() };
        let content = match read(&path) {
            Ok(Some(content)) if content.boot_id == nothing.boot_id => content,
            Ok(_) => nothing,
            Err(error) => {
                tracing::error!(
                    path = %path.display(),
                    %error,
                    "It is not known which MIG instances are Stowage's, so those that exist are left alone: free them \
                     with nvidia-smi mig -dci and -dgi once no pod uses them."
                );
                nothing
            }
        };
        Self { path, content: Arc::new(Mutex::new(content)) }
    }

    fn lock(&self) -> MutexGuard<'_, Content> {
        self.content.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What each token stands for.
    pub(super) fn bookings(&self) -> BTreeMap<String, Booking> {
        self.lock().bookings.clone()
    }

    /// All instances.
    pub(super) fn all(&self) -> Vec<OurInstance> {
        self.lock().instances.clone()
    }

    /// Those of one GPU.
    pub(super) fn of(&self, gpu: &GpuUuid) -> Vec<OurInstance> {
        self.lock().instances.iter().filter(|ours| &ours.gpu == gpu).cloned().collect()
    }

    /// Replaces those of one GPU, and writes all of them down. Blocks.
    ///
    /// # Errors
    /// The file system's; what is known and what is written are then as they were.
    pub(super) fn set(&self, gpu: &GpuUuid, instances: &[OurInstance]) -> io::Result<()> {
        self.change(|content| {
            content.instances.retain(|ours| &ours.gpu != gpu);
            content.instances.extend(instances.iter().cloned());
        })
    }

    /// Leaves out those that are gone, and writes the rest down; how many they were. One step, so that nothing is lost
    /// that somebody else writes meanwhile. Blocks.
    ///
    /// # Errors
    /// As of [`Store::set`].
    pub(super) fn forget(&self, is_gone: impl Fn(&OurInstance) -> bool) -> io::Result<usize> {
        let mut gone = 0;
        self.change(|content| {
            let before = content.instances.len();
            content.instances.retain(|ours| !is_gone(ours));
            gone = before - content.instances.len();
        })?;
        Ok(gone)
    }

    /// Replaces the bookings by what they are when nobody else writes. Blocks.
    ///
    /// # Errors
    /// As of [`Store::set`].
    pub(super) fn set_bookings(&self, now: impl FnOnce() -> BTreeMap<String, Booking>) -> io::Result<()> {
        self.change(|content| content.bookings = now())
    }

    fn change(&self, change: impl FnOnce(&mut Content)) -> io::Result<()> {
        let mut known = self.lock();
        let mut next = known.clone();
        change(&mut next);
        if *known != next {
            write(&self.path, &next)?;
            *known = next;
        }
        Ok(())
    }
}

fn read(path: &Path) -> io::Result<Option<Content>> {
    match fs::metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Ok(data) if data.len() > FILE_MAX_BYTES => {
            return Err(io::Error::other(format!(
                "it has {} bytes: at most {FILE_MAX_BYTES} are read",
                data.len()
            )));
        }
        _ => {}
    }
    let content: Content = serde_json::from_slice(&fs::read(path)?)?;
    if content.version == 1 {
        Ok(Some(content))
    } else {
        Err(io::Error::other(format!("it is of version {}, and this program reads 1", content.version)))
    }
}

fn write(path: &Path, content: &Content) -> io::Result<()> {
    let draft = path.with_extension("json.new");
    match fs::remove_file(&draft) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let mut file = fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(&draft)?;
    let written = file.write_all(&serde_json::to_vec(content)?);
    let written = written.and_then(|()| fs::rename(&draft, path));
    if written.is_err() {
        let _ = fs::remove_file(&draft);
    }
    written
}

#[cfg(test)]
mod tests {
    use stowage_shared::models::Model;

    use super::*;

    fn machine(boot: &str) -> (tempfile::TempDir, Store) {
        let folder = tempfile::tempdir().unwrap();
        let store = boot_up(folder.path(), boot);
        (folder, store)
    }

    fn boot_up(folder: &Path, boot: &str) -> Store {
        fs::create_dir_all(folder.join("sys/kernel/random")).unwrap();
        fs::write(folder.join("sys/kernel/random/boot_id"), format!("{boot}\n")).unwrap();
        Store::open(folder, folder)
    }

    fn instance(gpu: &str) -> OurInstance {
        let geometry = Model::by_key("a30").and_then(Model::geometry).unwrap();
        let slice = geometry.slices().next().unwrap();
        OurInstance { gpu: gpu.parse().unwrap(), slice, token: Some("t".into()), built: None }
    }

    #[test]
    fn what_was_written_is_read_by_the_next_process_and_not_after_a_reboot() {
        let (folder, store) = machine("one");
        let [a, b] = ["GPU-a", "GPU-b"].map(instance);
        store.set(&a.gpu, std::slice::from_ref(&a)).unwrap();
        store.set(&b.gpu, std::slice::from_ref(&b)).unwrap();
        assert_eq!(boot_up(folder.path(), "one").all(), [a.clone(), b]);
        store.set(&a.gpu, &[]).unwrap();
        assert_eq!(boot_up(folder.path(), "one").of(&a.gpu), []);
        assert_eq!(boot_up(folder.path(), "two").all(), []);
    }

    #[test]
    fn what_a_token_stands_for_is_kept_apart_from_what_is_built() {
        let (folder, store) = machine("one");
        let OurInstance { gpu, slice, .. } = instance("GPU-a");
        let bookings = BTreeMap::from([("t".to_owned(), Booking { gpu, slice })]);
        store.set_bookings(|| bookings.clone()).unwrap();
        let next = boot_up(folder.path(), "one");
        assert_eq!((next.bookings(), next.all()), (bookings, vec![]));
        assert!(boot_up(folder.path(), "two").bookings().is_empty());
    }

    #[test]
    fn what_cannot_be_read_makes_nothing_ours() {
        for text in ["", "{", r#"{"version":2,"bootId":"one","instances":[]}"#] {
            let (folder, _) = machine("one");
            fs::write(folder.path().join(FILE), text).unwrap();
            assert_eq!(boot_up(folder.path(), "one").all(), [], "{text}");
        }
    }

    #[test]
    fn what_cannot_be_written_changes_nothing() {
        let (folder, store) = machine("one");
        let a = instance("GPU-a");
        fs::create_dir(folder.path().join("stowage-slices.json.new")).unwrap();
        store.set(&a.gpu, std::slice::from_ref(&a)).unwrap_err();
        assert_eq!(store.all(), []);
    }
}
