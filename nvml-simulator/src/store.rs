//! The state file: one state for all processes of a node.
//!
//! Readers never lock. They look at the file's inode (one `stat`, about a microsecond) and read again only
//! when it is another one; since a writer replaces the file whole and a reader keeps the old one open, no
//! inode number can come back unnoticed. Writers hold an exclusive lock on a file beside it; the kernel
//! drops the lock of a process that dies.
//!
//! The state belongs to one description. Where the description has changed, the next program that starts
//! begins a new state, as after a reboot with other hardware; programs that run on see an error until they
//! initialize again.

use std::fs::{File, OpenOptions, TryLockError};
use std::io::Read;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::description::{Boot, Description, DescriptionError};
use crate::hardware::Hardware;
use crate::state::{Node, Refusal, State, StateError};

/// The largest state file read or written, in bytes: 64 GPUs full of instances are a tenth of it.
pub const STATE_MAX_BYTES: usize = 1 << 20;
/// How long a writer waits for the lock before it gives up; a change takes well under a millisecond.
pub const LOCK_TIMEOUT: Duration = Duration::from_secs(10);
const LOCK_RETRY: Duration = Duration::from_millis(1);

/// A node's state file, and the description it comes from.
#[derive(Debug)]
pub struct Store {
    hardware: Arc<Hardware>,
    state_path: PathBuf,
    current: Current,
}

/// The state as last read, with the file it was read from: open, so that its inode is not used again.
#[derive(Debug)]
struct Current {
    _open: File,
    inode: (u64, u64),
    state: Arc<State>,
}

/// Why the state cannot be had or changed.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// No usable description.
    #[error(transparent)]
    Description(#[from] DescriptionError),
    /// A file cannot be read, written or locked.
    #[error("cannot {action} {}", .path.display())]
    File {
        /// What was tried.
        action: &'static str,
        /// On which file.
        path: PathBuf,
        /// Why it failed.
        source: std::io::Error,
    },
    /// The state file is not one of ours, or is damaged.
    #[error("{} is no usable state: {problem}; delete it to start anew", .path.display())]
    Damaged {
        /// The state file.
        path: PathBuf,
        /// What is wrong.
        problem: String,
    },
    /// The description has changed since this process read it.
    #[error("{} belongs to another description by now: initialize again", .0.display())]
    OtherDescription(PathBuf),
    /// Somebody holds the lock.
    #[error("{} has been locked by another process for {LOCK_TIMEOUT:?}", .0.display())]
    Locked(PathBuf),
}

/// Why a change was not made.
#[derive(Debug, thiserror::Error)]
pub enum UpdateError {
    /// The hardware does not allow it.
    #[error(transparent)]
    Refused(#[from] Refusal),
    /// The state cannot be had or written.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl Store {
    /// Opens a description's state beside it (`node.yaml`: `node.state.json`), and creates it if need be.
    ///
    /// # Errors
    /// [`StoreError`]; its sources are errors of the file system.
    pub fn open(description: &Path) -> Result<Self, StoreError> {
        Self::open_at(description, &description.with_extension("state.json"))
    }

    /// Opens a description's state in that file, and creates it if need be.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn open_at(description: &Path, state: &Path) -> Result<Self, StoreError> {
        let Boot { hardware, state: first } = Description::read(description)?.check()?;
        let current = match read(state, &hardware) {
            Ok(Some(current)) => current,
            Ok(None) | Err(StoreError::OtherDescription(_)) => begin(state, &hardware, &first)?,
            Err(error) => return Err(error),
        };
        Ok(Self { hardware: Arc::new(hardware), state_path: state.to_owned(), current })
    }

    /// What never changes.
    pub fn hardware(&self) -> &Hardware {
        &self.hardware
    }

    pub(crate) fn shared_hardware(&self) -> Arc<Hardware> {
        Arc::clone(&self.hardware)
    }

    /// Where the state lies.
    pub fn state_path(&self) -> &Path {
        &self.state_path
    }

    /// The state as it is now.
    ///
    /// # Errors
    /// [`StoreError`]: somebody removed or damaged the file, or the description has changed.
    pub fn state(&mut self) -> Result<Arc<State>, StoreError> {
        let path = &self.state_path;
        let found = std::fs::metadata(path).map_err(|source| file_error("find", path, source))?;
        if (found.dev(), found.ino()) != self.current.inode {
            self.current = read(path, &self.hardware)?
                .ok_or_else(|| file_error("find", path, std::io::ErrorKind::NotFound.into()))?;
        }
        Ok(Arc::clone(&self.current.state))
    }

    /// Changes the state, alone: no other process changes it at the same time. Where `change` refuses, the
    /// state stays as it was.
    ///
    /// # Errors
    /// [`UpdateError`].
    pub fn update<T>(
        &mut self,
        change: impl FnOnce(&mut Node<'_>) -> Result<T, Refusal>,
    ) -> Result<T, UpdateError> {
        let lock = lock(&self.state_path)?;
        let mut state = State::clone(&*self.state()?);
        let answer = change(&mut Node { hardware: &self.hardware, state: &mut state })?;
        replace(&self.state_path, &state)?;
        drop(lock);
        Ok(answer)
    }
}

/// Writes the first state, unless another process has just done so.
fn begin(path: &Path, hardware: &Hardware, first: &State) -> Result<Current, StoreError> {
    let lock = lock(path)?;
    if !matches!(read(path, hardware), Ok(Some(_))) {
        replace(path, first)?;
    }
    let current = read(path, hardware)?;
    drop(lock);
    current.ok_or_else(|| file_error("find", path, std::io::ErrorKind::NotFound.into()))
}

/// `None` where there is no file.
fn read(path: &Path, hardware: &Hardware) -> Result<Option<Current>, StoreError> {
    let mut file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(file_error("open", path, error)),
    };
    let found = file.metadata().map_err(|source| file_error("look at", path, source))?;
    let mut bytes = Vec::new();
    let limit = STATE_MAX_BYTES as u64 + 1;
    file.by_ref().take(limit).read_to_end(&mut bytes).map_err(|source| file_error("read", path, source))?;
    let damaged = |problem: String| StoreError::Damaged { path: path.to_owned(), problem };
    if bytes.len() > STATE_MAX_BYTES {
        return Err(damaged(format!("it is larger than {STATE_MAX_BYTES} bytes")));
    }
    let state: State = serde_json::from_slice(&bytes).map_err(|error| damaged(error.to_string()))?;
    match state.check(hardware) {
        Ok(()) => {
            Ok(Some(Current { _open: file, inode: (found.dev(), found.ino()), state: Arc::new(state) }))
        }
        Err(StateError::OtherDescription) => Err(StoreError::OtherDescription(path.to_owned())),
        Err(error) => Err(damaged(error.to_string())),
    }
}

/// Readers see the old state or the new one, never a part. Call it with the lock held.
fn replace(path: &Path, state: &State) -> Result<(), StoreError> {
    let text = serde_json::to_vec(state).map_err(|error| file_error("write", path, error.into()))?;
    if text.len() > STATE_MAX_BYTES {
        return Err(file_error("write", path, std::io::ErrorKind::FileTooLarge.into()));
    }
    let new = beside(path, "new");
    std::fs::write(&new, text).map_err(|source| file_error("write", &new, source))?;
    std::fs::rename(&new, path).map_err(|source| file_error("replace", path, source))
}

fn lock(state: &Path) -> Result<File, StoreError> {
    let path = beside(state, "lock");
    let file = OpenOptions::new().write(true).create(true).truncate(false).open(&path);
    let file = file.map_err(|source| file_error("create", &path, source))?;
    let deadline = Instant::now() + LOCK_TIMEOUT;
    loop {
        match file.try_lock() {
            Ok(()) => return Ok(file),
            Err(TryLockError::WouldBlock) if Instant::now() < deadline => std::thread::sleep(LOCK_RETRY),
            Err(TryLockError::WouldBlock) => return Err(StoreError::Locked(path)),
            Err(TryLockError::Error(source)) => return Err(file_error("lock", &path, source)),
        }
    }
}

fn beside(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".");
    name.push(suffix);
    name.into()
}

fn file_error(action: &'static str, path: &Path, source: std::io::Error) -> StoreError {
    StoreError::File { action, path: path.to_owned(), source }
}
