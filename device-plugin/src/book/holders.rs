//! Who holds what, as pod-resources tells it: to whom that belongs, and how long what it does not show is believed.

use std::collections::BTreeMap;
use std::time::Duration;

use stowage_shared::gpu_node::AllocationStatus;

use super::{Book, Grant, Holding, Pod};

/// How long an allocation that pod-resources does not show is kept in mind: the kubelet stores it only after
/// `Allocate` has returned, and a pod that is refused afterwards never shows.
pub const GRANT_GRACE: Duration = Duration::from_secs(60);
/// The same where the pod that it was probably for is gone already: long enough for the kubelet to store it, were it
/// another's.
const GONE_GRACE: Duration = Duration::from_secs(1);
/// How long a pod that is still there keeps the devices that pod-resources no longer shows: a kubelet that has just
/// started shows nothing, and then some pods, before it shows all.
pub const MISSING_GRACE: Duration = Duration::from_secs(60);
/// The same where it is not known which pods there are.
const MISSING_GRACE_UNKNOWN: Duration = Duration::from_secs(10);

impl Book {
    /// Who holds which devices, with the pods' UIDs where they are known, in a fixed order.
    pub fn allocations(&self) -> Vec<AllocationStatus> {
        let status = |held: &Holding| AllocationStatus {
            namespace: held.namespace.clone(),
            pod: held.pod.clone(),
            uid: self.owner(held).unwrap_or_default().to_owned(),
            container: held.container.clone(),
            resource: held.resource.clone(),
            device_ids: held.device_ids.clone(),
        };
        self.held.iter().map(status).collect()
    }

    /// The UID of the pod that holds this, where it is known.
    pub(super) fn owner(&self, held: &Holding) -> Option<&str> {
        self.owners.get(held).map(String::as_str).or_else(|| self.pod_named(held))
    }

    /// The newest pod of the name that pod-resources tells.
    pub(super) fn pod_named(&self, held: &Holding) -> Option<&str> {
        let named =
            self.pods.iter().filter(|(_, pod)| pod.name == held.pod && pod.namespace == held.namespace);
        named.max_by_key(|(_, pod)| pod.order).map(|(uid, _)| uid.as_str())
    }

    /// What pod-resources no longer shows, and whose pod is gone, is free.
    pub(super) fn give_up_missing(&mut self) {
        let (owners, pods) = (&self.owners, &self.pods);
        let is_there = |old: &Holding| owners.get(old).is_none_or(|uid| pods.contains_key(uid));
        let gone: Vec<Holding> = self.missing.keys().filter(|old| !is_there(old)).cloned().collect();
        for old in &gone {
            self.missing.remove(old);
            self.owners.remove(old);
            self.held.retain(|held| held != old);
        }
        if !gone.is_empty() {
            self.drop_free_bookings();
        }
    }

    /// What pods had that are still there, and that this answer of pod-resources lacks: until it is sure that the
    /// kubelet has not only just started, or has given it to somebody else.
    fn keep_missing(&mut self, held: &mut Vec<Holding>, asked_at: Duration) {
        let grace = if self.knows_pods { MISSING_GRACE } else { MISSING_GRACE_UNKNOWN };
        let is_there = |old: &Holding| match self.owners.get(old) {
            Some(uid) => self.pods.contains_key(uid),
            None => !self.knows_pods,
        };
        let is_shown = |old: &Holding, id: &String| {
            let shown = held.iter().any(|new| new.resource == old.resource && new.device_ids.contains(id));
            shown || self.grants.iter().any(|grant| grant.resource == old.resource && grant.ids.contains(id))
        };
        let mut missing = BTreeMap::new();
        for old in self.held.iter().filter(|old| is_there(old)) {
            let since = self.missing.get(old).copied().unwrap_or(asked_at);
            let is_gone = old.device_ids.iter().any(|id| is_shown(old, id));
            if !is_gone && asked_at.saturating_sub(since) < grace {
                missing.insert(old.clone(), since);
            }
        }
        held.extend(missing.keys().cloned());
        self.missing = missing;
    }

    pub(super) fn holders(&mut self, mut held: Vec<Holding>, asked_at: Duration) {
        self.keep_missing(&mut held, asked_at);
        held.sort();
        // What was there before and was not handed out anew since is still its old owner's, even if a new pod has the
        // same name by now.
        let is_new = |held: &Holding| {
            let given = |grant: &Grant| {
                grant.at <= asked_at
                    && grant.resource == held.resource
                    && grant.ids.iter().any(|id| held.device_ids.contains(id))
            };
            !self.owners.contains_key(held) || self.grants.iter().any(given)
        };
        let owner = |held: &Holding| if is_new(held) { self.pod_named(held) } else { self.owner(held) };
        let owners = held.iter().filter_map(|held| Some((held.clone(), owner(held)?.to_owned()))).collect();
        let is_held = |grant: &Grant| {
            grant.ids.iter().all(|id| {
                held.iter().any(|held| held.resource == grant.resource && held.device_ids.contains(id))
            })
        };
        let mut unseen = Vec::new();
        self.grants.retain(|grant| {
            // An answer to a question from before the allocation says nothing of it.
            if asked_at < grant.at {
                return true;
            }
            if is_held(grant) {
                return false;
            }
            let is_gone = |(uid, _): &(String, String)| self.knows_pods && !self.pods.contains_key(uid);
            let grace = if grant.call.as_ref().is_some_and(is_gone) { GONE_GRACE } else { GRANT_GRACE };
            if asked_at - grant.at < grace {
                return true;
            }
            unseen.extend(grant.call.clone());
            false
        });
        for (uid, _) in unseen {
            if let Some(pod) = self.pods.get_mut(&uid) {
                pod.settled = true;
            }
        }
        self.held = held;
        self.owners = owners;
        self.knows_holders = true;
        // This process's clock began with it.
        if asked_at >= MISSING_GRACE || self.shows_all() {
            self.restored.clear();
        }
        self.drop_free_bookings();
    }

    /// Whether every pod that runs is shown to hold something: a kubelet that has just started shows some later. One that
    /// is being deleted is shown only until its containers have ended.
    fn shows_all(&self) -> bool {
        let is_shown = |(uid, pod): (&String, &Pod)| {
            !pod.settled || pod.ending || self.held.iter().any(|held| self.owner(held) == Some(uid))
        };
        self.knows_pods && self.pods.iter().all(is_shown)
    }
}
