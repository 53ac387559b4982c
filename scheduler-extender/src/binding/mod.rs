//! bind: devices are chosen and held, the Binding is posted with the plan in it, and it is found out what became
//! of it.
//!
//! One write to the API server per pod, and no read where the pod is in the cache: the Binding carries the UID
//! as a precondition, and the API server refuses pods that are bound or being deleted. An answer may be lost
//! although the pod was bound; then the pod is read, and what it says counts. While nobody knows, its devices
//! stay held.

pub(crate) mod post;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use kube::Client;
use stowage_shared::contract::BIND_TIMEOUT;
use tokio::sync::Semaphore;

pub use self::post::PostError;
use self::post::{get_pod, post_binding};
use crate::clock::Now;
use crate::metrics::{BindOutcome, Metrics};
use crate::state::{AssumptionId, Broken, Choice, Refusal, Store, event, may_be_bound};
use crate::verbs::NOT_SYNCED;
use crate::wire::ExtenderBindingArgs;

/// Bindings at once; kube-scheduler sends as many as it has pods in their binding cycle.
const BINDINGS_MAX: usize = 256;
/// The longest name of an object, in bytes.
const NAME_MAX: usize = 253;
/// The longest UID that we take; the API server's have 36 bytes.
const UID_MAX: usize = 128;

/// Why a pod was not bound. What it reads is in the pod's event.
#[derive(Debug, thiserror::Error)]
pub enum BindError {
    /// It is not known yet what is in use.
    #[error("{NOT_SYNCED}")]
    NotSynced,
    /// Something is no name.
    #[error("{0} is not a name that the API server could have given")]
    Name(&'static str),
    /// More than we carry.
    #[error("more than {BINDINGS_MAX} bindings are under way")]
    TooMany,
    /// We do not want to.
    #[error(transparent)]
    Refused(#[from] Refusal),
    /// The pod is not there.
    #[error("the pod does not exist any more")]
    Gone,
    /// The pod could not be read.
    #[error("the pod cannot be read: {0}")]
    Read(PostError),
    /// The API server refused the Binding.
    #[error("the API server refused the binding: {0}")]
    Rejected(PostError),
    /// The pod is bound, but not by this Binding.
    #[error("the pod is bound to node {0} by somebody else")]
    BoundElsewhere(String),
    /// Nobody knows.
    #[error("it is not known whether the pod was bound ({0}): its devices stay held for it")]
    InDoubt(PostError),
    /// The process must end.
    #[error(transparent)]
    Broken(#[from] Broken),
}

impl BindError {
    fn outcome(&self) -> BindOutcome {
        match self {
            Self::Rejected(_) | Self::BoundElsewhere(_) => BindOutcome::Rejected,
            Self::InDoubt(_) => BindOutcome::InDoubt,
            _ => BindOutcome::Refused,
        }
    }
}

/// Binds pods as kube-scheduler asks.
#[derive(Clone)]
pub struct Binder {
    client: Client,
    store: Arc<Store>,
    metrics: Arc<Metrics>,
    slots: Arc<Semaphore>,
}

impl Binder {
    /// Binds pods of this store's cluster.
    pub fn new(client: Client, store: Arc<Store>, metrics: Arc<Metrics>) -> Self {
        Self { client, store, metrics, slots: Arc::new(Semaphore::new(BINDINGS_MAX)) }
    }

    /// Binds a pod; when this returns, it is bound.
    ///
    /// # Errors
    /// [`BindError`]; what it means for the devices is said there.
    pub async fn bind(&self, args: &ExtenderBindingArgs) -> Result<(), BindError> {
        let result = self.try_bind(args).await;
        self.done(args, &result);
        result.map(drop)
    }

    async fn try_bind(&self, args: &ExtenderBindingArgs) -> Result<BindOutcome, BindError> {
        let _slot = self.slots.try_acquire().map_err(|_| BindError::TooMany)?;
        check_names(args)?;
        if !self.store.snapshot().synced {
            return Err(BindError::NotSynced);
        }
        let uid = &args.pod_uid;
        let known = self.store.change(|state| state.pod(uid))?;
        let pod = match known {
            // Its UID is the one we were asked about, and what it asks for of devices never changes. If it was
            // bound or is going meanwhile, the API server refuses the Binding.
            Some(pod) => pod,
            None => self.read_pod(args).await?,
        };
        match may_be_bound(&pod, &args.pod_namespace, &args.pod_name) {
            // kube-scheduler asks again after an answer that it did not get.
            Err(Refusal::AlreadyBound(node)) if node == args.node => return Ok(BindOutcome::FoundBound),
            checked => checked?,
        }
        match self.store.change(|state| state.choose(&pod, &args.node, Now::read()))?? {
            Choice::Plain => match self.post(args, None).await {
                Ok(()) => Ok(BindOutcome::Bound),
                Err(error) => self.settle(args, None, error).await,
            },
            Choice::Planned(id, annotation) => match self.post(args, Some(&annotation)).await {
                Ok(()) => {
                    self.store.change(|state| state.bound(uid, id))?;
                    Ok(BindOutcome::Bound)
                }
                Err(error) => self.settle(args, Some(id), error).await,
            },
        }
    }

    async fn post(&self, args: &ExtenderBindingArgs, plan: Option<&str>) -> Result<(), PostError> {
        let posted = tokio::time::timeout(BIND_TIMEOUT, post_binding(&self.client, args, plan));
        posted.await.unwrap_or(Err(PostError::Timeout(BIND_TIMEOUT)))
    }

    async fn read_pod(&self, args: &ExtenderBindingArgs) -> Result<event::Pod, BindError> {
        let pod =
            get_pod(&self.client, &args.pod_namespace, &args.pod_name).await.map_err(BindError::Read)?;
        pod.filter(|pod| pod.uid == args.pod_uid).ok_or(BindError::Gone)
    }

    /// Finds out what became of a Binding that was not answered with a success.
    async fn settle(
        &self,
        args: &ExtenderBindingArgs,
        held: Option<AssumptionId>,
        error: PostError,
    ) -> Result<BindOutcome, BindError> {
        let uid = &args.pod_uid;
        let give_back = || held.map_or(Ok(()), |id| self.store.change(|state| state.failed(uid, id)));
        if error.is_final() && !error.is_conflict() {
            give_back()?;
            return Err(BindError::Rejected(error));
        }
        match self.read_pod(args).await {
            // It is where it should be. If that was another extender with another plan, then what we hold counts
            // for it until the watch shows its own.
            Ok(pod) if pod.node == args.node => {
                if let Some(id) = held {
                    self.store.change(|state| state.bound(uid, id))?;
                }
                Ok(BindOutcome::FoundBound)
            }
            Ok(pod) if !pod.node.is_empty() => {
                give_back()?;
                Err(BindError::BoundElsewhere(pod.node))
            }
            // It is not bound now. A final refusal means that it will not be by this Binding; else it may be yet.
            Ok(_) if error.is_final() => {
                give_back()?;
                Err(BindError::Rejected(error))
            }
            Err(gone @ BindError::Gone) => {
                give_back()?;
                Err(gone)
            }
            Ok(_) | Err(_) => Err(BindError::InDoubt(error)),
        }
    }

    /// One function, so that what is logged and what is counted cannot drift apart.
    fn done(&self, args: &ExtenderBindingArgs, result: &Result<BindOutcome, BindError>) {
        let ExtenderBindingArgs { pod_name, pod_namespace, pod_uid, node } = args;
        match result {
            Ok(outcome) => {
                self.metrics.bind(*outcome);
                tracing::info!(
                    pod.namespace = pod_namespace,
                    pod.name = pod_name,
                    pod.uid = pod_uid,
                    node,
                    "Pod bound."
                );
            }
            Err(error) => {
                self.metrics.bind(error.outcome());
                tracing::warn!(
                    pod.namespace = pod_namespace,
                    pod.name = pod_name,
                    pod.uid = pod_uid,
                    node,
                    %error,
                    "Pod not bound."
                );
            }
        }
    }
}

/// Names go into URLs, so they are checked before.
fn check_names(args: &ExtenderBindingArgs) -> Result<(), BindError> {
    let subdomain = |text: &str| {
        !text.is_empty()
            && text.len() <= NAME_MAX
            && text.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || matches!(b, b'-' | b'.'))
            && text.bytes().any(|b| b != b'.')
    };
    let uid = &args.pod_uid;
    let names = [
        ("PodNamespace", subdomain(&args.pod_namespace)),
        ("PodName", subdomain(&args.pod_name)),
        ("PodUID", !uid.is_empty() && uid.len() <= UID_MAX && uid.bytes().all(|b| b.is_ascii_graphic())),
        ("Node", subdomain(&args.node)),
    ];
    names.into_iter().find(|(_, good)| !good).map_or(Ok(()), |(name, _)| Err(BindError::Name(name)))
}
