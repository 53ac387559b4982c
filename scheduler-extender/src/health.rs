//! May the extender be asked, and if not, what is missing?

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

use kube::runtime::watcher;
use ops::chain;
use ops::http::Health;
use stowage_shared::contract::{API_GROUP, API_VERSION};

use crate::lease::Held;
use crate::state::Synced;

/// The kinds that are watched.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Kind {
    /// Pods.
    Pods,
    /// Nodes.
    Nodes,
    /// GpuNodes.
    GpuNodes,
}

impl Kind {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Pods, Self::Nodes, Self::GpuNodes];

    /// The name in URLs.
    pub fn plural(self) -> &'static str {
        match self {
            Self::Pods => "pods",
            Self::Nodes => "nodes",
            Self::GpuNodes => "gpunodes",
        }
    }

    fn is_synced(self, synced: Synced) -> bool {
        match self {
            Self::Pods => synced.pods,
            Self::Nodes => synced.nodes,
            Self::GpuNodes => synced.gpu_nodes,
        }
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.plural())
    }
}

/// How far the watches have come.
#[derive(Debug, Default)]
pub struct Progress {
    inner: Mutex<Inner>,
}

#[derive(Debug, Default)]
struct Inner {
    synced: Synced,
    /// What is wrong with each kind's watch now.
    trouble: [Option<String>; Kind::ALL.len()],
}

impl Progress {
    /// What was listed completely so far.
    pub fn synced(&self, synced: Synced) {
        let mut inner = self.lock();
        if synced.all() && !inner.synced.all() {
            tracing::info!("Pods, nodes and GpuNodes are known: ready.");
        }
        inner.synced = synced;
    }

    /// A kind's watch told something.
    pub fn works(&self, kind: Kind) {
        if self.lock().trouble[kind as usize].take().is_some() {
            tracing::info!(%kind, "The watch works again.");
        }
    }

    /// A kind's watch failed; it is tried again. Logged once for each new reason, not for each try.
    pub fn failed(&self, kind: Kind, error: &watcher::Error) {
        let text = advice(kind, error);
        let mut inner = self.lock();
        let trouble = &mut inner.trouble[kind as usize];
        if trouble.as_ref() != Some(&text) {
            // A watch that breaks now and then is ordinary; what a person must mend is not.
            if status(error).is_some_and(|code| matches!(code, 401 | 403 | 404)) {
                tracing::error!(%kind, error = text, "The watch fails.");
            } else {
                tracing::warn!(%kind, error = text, "The watch fails: it is tried again.");
            }
            *trouble = Some(text);
        }
    }

    /// Whether requests can be answered.
    ///
    /// # Errors
    /// What is missing, and what to do.
    pub fn ready(&self) -> Result<(), String> {
        let inner = self.lock();
        // Once everything is known, a broken watch is no reason to answer nothing: the cache still holds.
        let missing: Vec<String> = Kind::ALL
            .into_iter()
            .filter(|kind| !kind.is_synced(inner.synced))
            .map(|kind| match &inner.trouble[kind as usize] {
                Some(trouble) => trouble.clone(),
                None => format!("{kind} are not listed yet"),
            })
            .collect();
        if missing.is_empty() { Ok(()) } else { Err(missing.join("; ")) }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Inner> {
        // Each change is one assignment, so a panic leaves nothing half-done.
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What `/livez` and `/readyz` say.
#[derive(Debug)]
pub struct Readiness {
    /// How far the watches have come.
    pub progress: Arc<Progress>,
    /// The Lease, where its holder alone is to be asked.
    pub leads: Option<Held>,
}

impl Health for Readiness {
    /// A task that ends ends the process, so whoever answers is alive.
    fn live(&self) -> Result<(), String> {
        Ok(())
    }

    fn ready(&self) -> Result<(), String> {
        self.progress.ready()?;
        match &self.leads {
            Some(held) if !held.now() => Err(FOLLOWS.to_owned()),
            _ => Ok(()),
        }
    }
}

/// Why one that could answer is not asked.
const FOLLOWS: &str =
    "another replica holds the Lease and is asked, or none could take it yet: this one waits for it";

fn status(error: &watcher::Error) -> Option<u16> {
    match error {
        watcher::Error::InitialListFailed(error)
        | watcher::Error::WatchStartFailed(error)
        | watcher::Error::WatchFailed(error) => match error {
            kube::Error::Api(status) => Some(status.code),
            _ => None,
        },
        watcher::Error::WatchError(status) => Some(status.code),
        watcher::Error::NoResourceVersion => None,
    }
}

/// What failed, on what, and the next step.
fn advice(kind: Kind, error: &watcher::Error) -> String {
    let code = status(error);
    let error = reason(error);
    match (code, kind) {
        (Some(404), Kind::GpuNodes) => format!(
            "the API server does not know gpunodes.{API_GROUP}/{API_VERSION}: apply deploy/crds/gpunodes.yaml"
        ),
        (Some(403), _) => {
            format!(
                "not allowed to list and watch {kind}: apply deploy/manifests/scheduler-rbac.yaml ({error})"
            )
        }
        (Some(401), _) => {
            format!(
                "the API server does not accept our credentials for {kind}: check the ServiceAccount token ({error})"
            )
        }
        _ => format!("cannot list and watch {kind}: {error}"),
    }
}

/// What the API server says, or why it could not be asked.
fn reason(error: &watcher::Error) -> String {
    let kube = match error {
        watcher::Error::InitialListFailed(error)
        | watcher::Error::WatchStartFailed(error)
        | watcher::Error::WatchFailed(error) => error,
        watcher::Error::WatchError(status) => return status.message.clone(),
        watcher::Error::NoResourceVersion => return error.to_string(),
    };
    match kube {
        kube::Error::Api(status) => status.message.clone(),
        other => chain(other),
    }
}

#[cfg(test)]
mod tests {
    use kube::core::Status;

    use super::*;

    fn refused(code: u16) -> watcher::Error {
        let status = Status { code, message: "no".into(), ..Status::default() };
        watcher::Error::InitialListFailed(kube::Error::Api(status.boxed()))
    }

    #[test]
    fn readiness_says_what_is_missing_and_what_to_do() {
        let progress = Progress::default();
        assert!(progress.ready().unwrap_err().contains("nodes are not listed yet"));
        progress.failed(Kind::GpuNodes, &refused(404));
        progress.failed(Kind::Pods, &refused(403));
        let why = progress.ready().unwrap_err();
        assert!(why.contains("apply deploy/crds/gpunodes.yaml"), "{why}");
        assert!(why.contains("apply deploy/manifests/scheduler-rbac.yaml"), "{why}");
    }

    #[test]
    fn once_synced_a_broken_watch_leaves_it_ready() {
        let progress = Progress::default();
        progress.synced(Synced { pods: true, nodes: true, gpu_nodes: true });
        progress.failed(Kind::Pods, &refused(500));
        assert_eq!(progress.ready(), Ok(()));
    }

    #[test]
    fn behind_a_service_only_the_holder_of_the_lease_is_ready() {
        let progress = Arc::new(Progress::default());
        let ready = |leads| Readiness { progress: progress.clone(), leads }.ready();
        assert!(ready(Some(Held::always())).unwrap_err().contains("not listed yet"));
        progress.synced(Synced { pods: true, nodes: true, gpu_nodes: true });
        assert_eq!((ready(None), ready(Some(Held::always()))), (Ok(()), Ok(())));
        assert!(ready(Some(Held::default())).unwrap_err().contains("another replica"));
        let follower = Readiness { progress: progress.clone(), leads: Some(Held::default()) };
        assert_eq!(follower.live(), Ok(()), "a restart would not help it");
    }
}
