//! Whose pods are ours: those that name a scheduler which asks us.
//!
//! Beside a kube-scheduler of its own that is one name. Behind a Service it is that of each profile of the cluster's
//! kube-scheduler, since an extender belongs to all of them: it is asked to bind every pod that they place.
//!
//! What a pod says is read deep in a parser that keeps of it only what matters, so this is said once, before the first
//! watch begins, and never changes after.

use std::sync::OnceLock;

use stowage_shared::contract::SCHEDULER_NAME;

static NAMES: OnceLock<Vec<String>> = OnceLock::new();

/// Says it. Only the first call counts.
pub fn serve(names: &[String]) {
    // A second call, as in a test, leaves the first one's names in place.
    let _ = NAMES.set(names.to_vec());
}

/// Whether pods that name this scheduler are ours.
pub fn is_ours(name: &str) -> bool {
    match NAMES.get() {
        Some(names) => names.iter().any(|known| known == name),
        None => name == SCHEDULER_NAME,
    }
}
