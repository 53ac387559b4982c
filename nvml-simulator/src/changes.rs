//! Waiting for another process to change the state.
//!
//! Every change replaces the state file, and the kernel tells whoever watches its folder. So a program that waits
//! for events costs nothing while there are none, as with the real driver: what is measured of a program on the
//! simulator is the program's own.

use std::mem::MaybeUninit;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::inotify::{self, CreateFlags, Reader, WatchFlags};

/// The longest wait without a look. It bounds what the kernel cannot tell, such as an `nvmlShutdown` in another
/// thread.
const LOOK_ANYWAY: Duration = Duration::from_millis(500);
/// How often to look where the kernel does not tell: it gives each user a limited number of watches.
const LOOK_UNTOLD: Duration = Duration::from_millis(20);
/// Room for the names of some files; what does not fit is read in the next round.
const EVENTS_BYTES: usize = 4096;

/// Sees the state file replaced while it lives.
pub(crate) struct Changes(Option<OwnedFd>);

impl Changes {
    /// Begins to watch. What changes from now on ends the next wait, so look once more after this.
    pub(crate) fn of(state: &Path) -> Self {
        let folder = state.parent().filter(|folder| !folder.as_os_str().is_empty());
        let watched = inotify::init(CreateFlags::CLOEXEC | CreateFlags::NONBLOCK).and_then(|inotify| {
            let replaced = WatchFlags::MOVED_TO | WatchFlags::DELETE;
            inotify::add_watch(&inotify, folder.unwrap_or(Path::new(".")), replaced)?;
            Ok(inotify)
        });
        Self(watched.ok())
    }

    /// Waits until the state may have changed, for no longer than that.
    pub(crate) fn wait(&self, most: Duration) {
        let Some(inotify) = &self.0 else { return std::thread::sleep(most.min(LOOK_UNTOLD)) };
        let most = most.min(LOOK_ANYWAY);
        let timeout = Timespec { tv_sec: 0, tv_nsec: most.as_nanos().try_into().unwrap_or(0) };
        // Interrupted by a signal, or failed: the caller looks, and waits again.
        if poll(&mut [PollFd::new(inotify, PollFlags::IN)], Some(&timeout)).is_ok_and(|ready| ready > 0) {
            let mut buffer = [const { MaybeUninit::uninit() }; EVENTS_BYTES];
            let mut events = Reader::new(inotify, &mut buffer);
            while events.next().is_ok() {}
        }
    }
}
