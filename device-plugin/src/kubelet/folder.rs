//! Seeing sockets come and go in the kubelet's folder.
//!
//! The kernel tells of changes at once; a look every second covers what it may miss: a folder that was replaced,
//! or a machine that has run out of inotify watches.

use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::time::Duration;

use notify::event::{EventKind, ModifyKind};
use notify::{RecommendedWatcher, RecursiveMode, Watcher};
use tokio::sync::watch;

/// How often somebody looks although the kernel said nothing.
const LOOK_AGAIN: Duration = Duration::from_secs(1);
/// The same where the kernel cannot be asked.
const LOOK_AGAIN_UNTOLD: Duration = Duration::from_millis(100);

/// Watches a folder while it lives.
pub struct Folder {
    changes: watch::Sender<u64>,
    watcher: Option<RecommendedWatcher>,
}

/// Waits for changes of a [`Folder`].
#[derive(Debug, Clone)]
pub struct Changes {
    changes: watch::Receiver<u64>,
    look_again: Duration,
}

impl Folder {
    /// Begins to watch. Where that is not possible, [`Changes`] look around more often instead.
    pub fn watch(path: &Path) -> Self {
        let changes = watch::Sender::new(0);
        let tell = changes.clone();
        let told = move |event: notify::Result<notify::Event>| {
            let matters = event.is_ok_and(|event| {
                matches!(
                    event.kind,
                    EventKind::Create(_) | EventKind::Remove(_) | EventKind::Modify(ModifyKind::Name(_))
                )
            });
            if matters {
                tell.send_modify(|count| *count += 1);
            }
        };
        let watcher = notify::recommended_watcher(told).and_then(|mut watcher| {
            watcher.watch(path, RecursiveMode::NonRecursive)?;
            Ok(watcher)
        });
        let watcher = watcher
            .inspect_err(|error| {
                tracing::warn!(
                    folder = %path.display(),
                    %error,
                    "The kernel does not tell of changes in the kubelet's folder: looking ten times a second instead. \
                     Raise fs.inotify.max_user_instances."
                );
            })
            .ok();
        Self { changes, watcher }
    }

    /// A way to wait for changes from now on.
    pub fn changes(&self) -> Changes {
        let look_again = if self.watcher.is_some() { LOOK_AGAIN } else { LOOK_AGAIN_UNTOLD };
        Changes { changes: self.changes.subscribe(), look_again }
    }
}

impl Changes {
    /// Waits until something may have changed.
    pub async fn next(&mut self) {
        // The sender lives as long as the process; were it gone, the clock would still tick.
        let _ = tokio::time::timeout(self.look_again, self.changes.changed()).await;
    }
}

/// What tells one socket from the next one of the same name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Identity {
    inode: u64,
    changed: (i64, i64),
}

/// Which file lies at a path now; `None` where there is none. File systems give inode numbers out again at once,
/// so the time counts too.
pub fn identity(path: &Path) -> Option<Identity> {
    let metadata = path.metadata().ok()?;
    Some(Identity { inode: metadata.ino(), changed: (metadata.ctime(), metadata.ctime_nsec()) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_new_file_wakes_whoever_waits_at_once() {
        let folder = tempfile::tempdir().unwrap();
        let watched = Folder::watch(folder.path());
        let mut changes = watched.changes();
        changes.look_again = Duration::from_secs(60);
        std::fs::write(folder.path().join("kubelet.sock"), "").unwrap();
        tokio::time::timeout(Duration::from_secs(20), changes.next()).await.expect("told by the kernel");
    }

    #[test]
    fn a_file_that_was_made_anew_is_another() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("kubelet.sock");
        assert_eq!(identity(&path), None);
        std::fs::write(&path, "").unwrap();
        let first = identity(&path);
        assert_eq!(identity(&path), first);
        std::fs::remove_file(&path).unwrap();
        std::fs::write(&path, "").unwrap();
        assert!(identity(&path).is_some() && identity(&path) != first);
    }
}
