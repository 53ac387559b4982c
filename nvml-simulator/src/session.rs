//! From `nvmlInit` to `nvmlShutdown`: the library's own state, and how one call sees the node.
//!
//! NVML counts initializations; between the first and the last shutdown there is a [`Session`]. Every call
//! takes the one lock, gets the state as it is now ([`Call`]), answers and lets go: calls take microseconds.
//! What has to wait (`nvmlEventSetWait`, calls that hang on purpose, changes that take time) waits outside of
//! it: a call that has to wait says so ([`Wait`]), and is made once more when it has.

use std::cell::{Cell, RefCell, RefMut};
use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use nvml_wrapper_sys::bindings::nvmlReturn_t;

use crate::changes::Changes;
use crate::ffi::Code;
use crate::handles::Handles;
use crate::hardware::Hardware;
use crate::state::{Node, Operation, Refusal, State};
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
    /// Whether the time that its change takes is over.
    has_waited: bool,
    wait: Cell<Option<Wait>>,
}

/// Why a call has to wait, and be made again.
#[derive(Debug, Clone, Copy)]
enum Wait {
    /// A GPU hangs.
    UntilReleased,
    /// The change takes so long.
    For(Duration),
}

/// Runs one call against the node as it is now, again where it has to wait.
pub(crate) fn call(body: impl Fn(&Call<'_>) -> Result<(), Code>) -> nvmlReturn_t {
    guarded(|| {
        let mut has_waited = false;
        let mut watched = None;
        loop {
            let (answer, wait) = call_once(&body, has_waited)?;
            match wait {
                None => return answer,
                Some(Wait::UntilReleased) => match &watched {
                    None => watched = Some(changes()),
                    Some(changes) => changes.wait(Duration::MAX),
                },
                Some(Wait::For(time)) => {
                    std::thread::sleep(time);
                    has_waited = true;
                }
            }
        }
    })
}

/// Watches the state from now on: the way to wait is to look, watch, look again, and only then to wait.
pub(crate) fn changes() -> Changes {
    let state = library().session.as_ref().map(|session| session.store.state_path().to_owned());
    Changes::of(&state.unwrap_or_default())
}

/// What the call answers, and what it waits for. The lock is held no longer than this.
fn call_once(
    body: impl Fn(&Call<'_>) -> Result<(), Code>,
    has_waited: bool,
) -> Result<(Result<(), Code>, Option<Wait>), Code> {
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
    let call = Call {
        hardware: &hardware,
        state: &state,
        handles: RefCell::new(handles),
        event_sets: RefCell::new(&mut session.event_sets),
        store: RefCell::new(Some(&mut session.store)),
        has_waited,
        wait: Cell::new(None),
    };
    let answer = body(&call);
    Ok((answer, call.wait.get()))
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

    /// For a call that concerns a hanging GPU: it is made again when the GPU is released. The code is never
    /// seen by a caller.
    pub(crate) fn hang(&self) -> Code {
        self.wait.set(Some(Wait::UntilReleased));
        Code::UNKNOWN
    }

    /// Changes the state, as [`Store::update`] does, once the time is over that such a change takes. At most
    /// once in a call.
    pub(crate) fn update<T>(
        &self,
        operation: Operation,
        change: impl Fn(&mut Node<'_>) -> Result<T, Refusal>,
    ) -> Result<T, Code> {
        let time = self.state.latency.of(operation);
        if !self.has_waited && !time.is_zero() {
            // What is refused is refused at once: tried on a copy.
            change(&mut Node { hardware: self.hardware, state: &mut self.state.clone() })?;
            self.wait.set(Some(Wait::For(time)));
            return Err(Code::UNKNOWN);
        }
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
