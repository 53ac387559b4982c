//! Who did what: the log by which a test proves which rights a program uses.

use std::collections::VecDeque;
use std::sync::{Mutex, PoisonError};

/// How many requests are remembered; the oldest go first.
const BOUND: usize = 100_000;

/// One request, named as RBAC names it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Attributes {
    /// The name that belongs to the request's token; empty where no tokens are asked for.
    pub user: String,
    /// `get`, `list`, `watch`, `create`, `update`, `patch`, `delete` or `deletecollection`; for a path
    /// that is no resource, the HTTP method in lower case.
    pub verb: String,
    /// The API group; empty for the core group.
    pub group: String,
    /// The plural name; empty for a path that is no resource.
    pub resource: String,
    /// `status` or `binding`; empty for the resource itself.
    pub subresource: String,
    /// Empty for all namespaces and for cluster-scoped resources.
    pub namespace: String,
    /// Empty for a list, a watch and a create.
    pub name: String,
    /// The URL's path.
    pub path: String,
}

/// One request and what was answered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AuditRecord {
    /// What was asked, and by whom.
    pub attributes: Attributes,
    /// The HTTP status; 0 if a fault kept the answer back.
    pub code: u16,
}

#[derive(Default)]
pub(super) struct AuditLog {
    records: Mutex<VecDeque<AuditRecord>>,
}

impl AuditLog {
    pub(super) fn add(&self, attributes: Attributes, code: u16) {
        let mut records = self.records.lock().unwrap_or_else(PoisonError::into_inner);
        if records.len() == BOUND {
            records.pop_front();
        }
        records.push_back(AuditRecord { attributes, code });
    }

    pub(super) fn records(&self) -> Vec<AuditRecord> {
        self.records.lock().unwrap_or_else(PoisonError::into_inner).iter().cloned().collect()
    }

    pub(super) fn clear(&self) {
        self.records.lock().unwrap_or_else(PoisonError::into_inner).clear();
    }
}
