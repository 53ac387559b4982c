//! Nodes, each as small as it can be: a cluster has thousands, of few makes.

use std::collections::BTreeMap;
use std::sync::Arc;

use stowage_shared::host::Host;
use stowage_shared::policy::Reserve;
use stowage_shared::resource::ResourceName;

use super::event;
use super::interned::Interned;

/// One copy of the counts that nodes of one make have alike.
pub(super) type Allocatables = Interned<BTreeMap<ResourceName, u64>>;

/// A Node as it was last told, without its name.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Node {
    pub(super) uid: Box<str>,
    pub(super) ready: bool,
    pub(super) allocatable: Arc<BTreeMap<ResourceName, u64>>,
    pub(super) reserve: Reserve,
    pub(super) host: Host,
}

impl Node {
    /// What was told, with its name.
    pub(super) fn of(told: event::Node, allocatables: &mut Allocatables) -> (Arc<str>, Self) {
        let event::Node { name, uid, ready, allocatable, reserve, host } = told;
        let allocatable = allocatables.of(allocatable);
        (name.into(), Self { uid: uid.into(), ready, allocatable, reserve, host })
    }
}
