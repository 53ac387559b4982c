//! From `nvmlInit` to `nvmlShutdown`: the library's own state, and how one call sees the node.
//!
//! NVML counts initializations; between the first and the last shutdown there is a [`Session`]. Every call
//! takes the one lock, gets the state as it is now ([`Call`]), answers and lets go: calls take microseconds.
//! What has to wait (`nvmlEventSetWait`; later, calls that hang on purpose) waits outside of it.

use std::cell::{RefCell, RefMut};
use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use nvml_wrapper_sys::bindings::nvmlReturn_t;

use crate::ffi::Code;
use crate::handles::Handles;
use crate::hardware::Hardware;
use crate::state::{Node, Refusal, State};
use crate::store::{Store, StoreError, UpdateError};
use crate::{CONFIG_ENV, STATE_ENV};

static LIBRARY: Mutex<Library> =
    Mutex::new(Library { references: 0, session: None, handles: Handles::new() });

/// The last complaint printed: a program that retries every second gets it once.
static COMPLAINT: Mutex<String> = Mutex::new(String::new());

struct Library {
    references: u32,
    session: Option<Session>,
    /// Outlives a shutdown, so that a handle from before it means the same GPU after the next init.
    handles: Handles,
}

struct Session {
    store: Store,
    seen: Arc<State>,
    event_sets: EventSets,
}

/// The event sets of this process.
#[derive(Debug, Default)]
pub(crate) struct EventSets {
    pub(crate) created: u64,
    pub(crate) by_number: BTreeMap<u64, EventSet>,
}

/// What one event set listens to.
#[derive(Debug, Default)]
pub(crate) struct EventSet {
    /// By GPU: the kinds of events.
    pub(crate) registered: BTreeMap<u32, u64>,
    /// The number of the next event that it has not seen.
    pub(crate) next: u64,
}

/// One call's view of the node.
pub(crate) struct Call<'a> {
    pub(crate) hardware: &'a Hardware,
    pub(crate) state: &'a State,
    handles: RefCell<&'a mut Handles>,
    event_sets: RefCell<&'a mut EventSets>,
    store: RefCell<Option<&'a mut Store>>,
}

/// Runs one call against the node as it is now.
pub(crate) fn call(body: impl FnOnce(&Call<'_>) -> Result<(), Code>) -> nvmlReturn_t {
    guarded(|| {
        let mut library = library();
        let Library { session, handles, .. } = &mut *library;
        let session = session.as_mut().ok_or(Code::UNINITIALIZED)?;
        let state = session.store.state().map_err(|error| complain(&error, Code::UNKNOWN))?;
        if !Arc::ptr_eq(&state, &session.seen) {
            handles.keep_only(&state);
            session.seen = Arc::clone(&state);
        }
        // Shared, not borrowed: a call may also write through the store that owns it.
        let hardware = session.store.shared_hardware();
        body(&Call {
            hardware: &hardware,
            state: &state,
            handles: RefCell::new(handles),
            event_sets: RefCell::new(&mut session.event_sets),
            store: RefCell::new(Some(&mut session.store)),
        })
    })
}

/// `nvmlInit`: opens the node at the first call, counts the others.
pub(crate) fn init() -> nvmlReturn_t {
    guarded(|| {
        let mut library = library();
        if library.session.is_none() {
            let mut store = open().map_err(|error| complain(&error, Code::DRIVER_NOT_LOADED))?;
            let seen = store.state().map_err(|error| complain(&error, Code::DRIVER_NOT_LOADED))?;
            library.handles.keep_only(&seen);
            library.session = Some(Session { store, seen, event_sets: EventSets::default() });
        }
        library.references = library.references.saturating_add(1);
        Ok(())
    })
}

/// `nvmlShutdown`: undoes one `nvmlInit`.
pub(crate) fn shutdown() -> nvmlReturn_t {
    guarded(|| {
        let mut library = library();
        if library.references == 0 {
            return Err(Code::UNINITIALIZED);
        }
        library.references -= 1;
        if library.references == 0 {
            library.session = None;
        }
        Ok(())
    })
}

impl<'a> Call<'a> {
    pub(crate) fn handles(&self) -> RefMut<'_, &'a mut Handles> {
        self.handles.borrow_mut()
    }

    pub(crate) fn event_sets(&self) -> RefMut<'_, &'a mut EventSets> {
        self.event_sets.borrow_mut()
    }

    /// Changes the state, as [`Store::update`] does. At most once in a call.
    pub(crate) fn update<T>(
        &self,
        change: impl FnOnce(&mut Node<'_>) -> Result<T, Refusal>,
    ) -> Result<T, Code> {
        let store = self.store.borrow_mut().take().ok_or(Code::UNKNOWN)?;
        store.update(change).map_err(|error| match error {
            UpdateError::Refused(refusal) => refusal.into(),
            UpdateError::Store(error) => complain(&error, Code::OPERATING_SYSTEM),
        })
    }
}

/// Why `nvmlInit` finds no node.
#[derive(Debug, thiserror::Error)]
enum OpenError {
    #[error("{CONFIG_ENV} is not set: it names the YAML file that describes the GPUs")]
    NoConfig,
    #[error(transparent)]
    Store(#[from] StoreError),
}

fn open() -> Result<Store, OpenError> {
    let path = |name| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    let description = path(CONFIG_ENV).ok_or(OpenError::NoConfig)?;
    Ok(match path(STATE_ENV) {
        Some(state) => Store::open_at(&description, &state)?,
        None => Store::open(&description)?,
    })
}

fn library() -> MutexGuard<'static, Library> {
    // A call that panicked left nothing half done that the next would trip over: it only reads, and the
    // state file is replaced whole.
    LIBRARY.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A panic must not cross into C. There is none to be expected; should one come, it is NVML's UNKNOWN.
fn guarded(body: impl FnOnce() -> Result<(), Code>) -> nvmlReturn_t {
    match catch_unwind(AssertUnwindSafe(body)) {
        Ok(Ok(())) => Code::SUCCESS.0,
        Ok(Err(code)) => code.0,
        Err(_) => Code::UNKNOWN.0,
    }
}

/// Prints an error with its causes, once; NVML itself can only say a number.
fn complain(error: &dyn std::error::Error, code: Code) -> Code {
    let mut text = format!("nvml-simulator: {error}");
    let mut cause = error.source();
    while let Some(error) = cause {
        text = format!("{text}: {error}");
        cause = error.source();
    }
    let mut last = COMPLAINT.lock().unwrap_or_else(PoisonError::into_inner);
    if *last != text {
        eprintln!("{text}");
        *last = text;
    }
    code
}
