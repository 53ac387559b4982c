//! CPU and memory of every bound pod, whatever else it asks for: a hundred thousand pods in a few megabytes.
//!
//! Whether they suffice is kube-scheduler's question. What is left of them says what idle GPUs are worth.

use std::collections::HashMap;
use std::sync::Arc;

use foldhash::fast::FixedState;
use stowage_shared::host::Host;

use super::event::Pod;

/// What each pod takes of its node, and what that sums up to.
#[derive(Debug, Default)]
pub(super) struct Ledger {
    pods: HashMap<Key, Entry, FixedState>,
    accounts: Vec<Account>,
    by_name: HashMap<Arc<str>, u32>,
    /// Accounts of nodes that have no pods any more.
    closed: Vec<u32>,
    lists: u32,
}

/// A pod's UID, which is a UUID; what is none is hashed.
type Key = u128;

/// What a pod takes. Sixteen bytes, for there are very many.
#[derive(Debug)]
struct Entry {
    account: u32,
    cpu_milli: u32,
    memory_mib: u32,
    /// The last list that it was in.
    list: u32,
}

/// What the pods of a node take together.
#[derive(Debug)]
struct Account {
    node: Arc<str>,
    pods: u32,
    used: Host,
}

impl Entry {
    fn host(&self) -> Host {
        Host { cpu_milli: self.cpu_milli.into(), memory_mib: self.memory_mib.into() }
    }
}

impl Ledger {
    /// Takes in a pod as it is now. Answers with its node, where that has more or less left than before.
    pub(super) fn see(&mut self, pod: &Pod) -> Option<Arc<str>> {
        if pod.terminal {
            return self.forget(&pod.uid);
        }
        if pod.node.is_empty() {
            // A pod is never unbound: where it is known, this is an older version.
            return None;
        }
        let small = |amount: u64| u32::try_from(amount).unwrap_or(u32::MAX);
        let (cpu_milli, memory_mib) = (small(pod.host.cpu_milli), small(pod.host.memory_mib));
        let (key, list) = (key(&pod.uid), self.lists);
        let account = self.account(&pod.node);
        if let Some(known) = self.pods.get_mut(&key)
            && (known.account, known.cpu_milli, known.memory_mib) == (account, cpu_milli, memory_mib)
        {
            known.list = list;
            return None;
        }
        let entry = Entry { account, cpu_milli, memory_mib, list };
        let to = self.accounts.get_mut(usize::try_from(account).ok()?)?;
        to.pods += 1;
        to.used.add(entry.host());
        let node = to.node.clone();
        if let Some(before) = self.pods.insert(key, entry) {
            self.give_back(&before);
        }
        Some(node)
    }

    /// A pod is gone. Answers with its node.
    pub(super) fn forget(&mut self, uid: &str) -> Option<Arc<str>> {
        let entry = self.pods.remove(&key(uid))?;
        self.give_back(&entry)
    }

    pub(super) fn list_begins(&mut self) {
        self.lists += 1;
    }

    /// Forgets what the list lacked. Answers with the nodes.
    pub(super) fn list_ends(&mut self) -> Vec<Arc<str>> {
        let lists = self.lists;
        let gone: Vec<Entry> =
            self.pods.extract_if(|_, entry| entry.list != lists).map(|(_, entry)| entry).collect();
        gone.iter().filter_map(|entry| self.give_back(entry)).collect()
    }

    /// What the pods on a node take of it.
    pub(super) fn used(&self, node: &str) -> Host {
        let account = self.by_name.get(node).and_then(|&at| self.accounts.get(usize::try_from(at).ok()?));
        account.map(|account| account.used).unwrap_or_default()
    }

    fn account(&mut self, node: &str) -> u32 {
        if let Some(&known) = self.by_name.get(node) {
            return known;
        }
        let account = Account { node: node.into(), pods: 0, used: Host::default() };
        let name = account.node.clone();
        let at = match self.closed.pop() {
            Some(at) => at,
            None => u32::try_from(self.accounts.len()).unwrap_or(u32::MAX),
        };
        match self.accounts.get_mut(usize::try_from(at).unwrap_or(usize::MAX)) {
            Some(closed) => *closed = account,
            None => self.accounts.push(account),
        }
        self.by_name.insert(name, at);
        at
    }

    /// Answers with the node.
    fn give_back(&mut self, entry: &Entry) -> Option<Arc<str>> {
        let account = self.accounts.get_mut(usize::try_from(entry.account).ok()?)?;
        // Sums of numbers far below their type's bound: exact.
        account.used.take(entry.host());
        account.pods -= 1;
        let node = account.node.clone();
        if account.pods == 0 {
            self.by_name.remove(&node);
            self.closed.push(entry.account);
        }
        Some(node)
    }
}

fn key(uid: &str) -> Key {
    let digit = |key: Key, c: u8| Some(key << 4 | Key::from(char::from(c).to_digit(16)?));
    let digits = || uid.bytes().filter(|&c| c != b'-');
    let uuid = || digits().try_fold(0, digit).filter(|_| digits().count() == 32);
    uuid().unwrap_or_else(|| {
        use std::hash::BuildHasher;
        let hash = |of: &[u8]| Key::from(FixedState::default().hash_one(of));
        hash(uid.as_bytes()) << 64 | hash(&[uid.as_bytes(), b"2"].concat())
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn pod(uid: u8, node: &str, cpu_milli: u64) -> Pod {
        Pod {
            uid: format!("{uid:08x}-0000-4000-8000-000000000000"),
            node: node.into(),
            host: Host { cpu_milli, memory_mib: cpu_milli * 2 },
            ..Pod::default()
        }
    }

    #[test]
    fn uids_that_are_no_uuids_are_told_apart() {
        assert_ne!(key("a"), key("b"));
        assert_eq!(key("00000000-0000-0000-0000-0000000000ff"), 255);
        assert_ne!(key("ff"), 255);
    }

    #[test]
    fn a_list_forgets_what_it_lacks() {
        let mut ledger = Ledger::default();
        assert_eq!(ledger.see(&pod(1, "a", 5)).as_deref(), Some("a"));
        assert_eq!(ledger.see(&pod(1, "a", 5)), None, "nothing is new");
        assert!(ledger.see(&pod(2, "a", 7)).is_some());
        ledger.list_begins();
        ledger.see(&pod(2, "a", 7));
        assert_eq!(ledger.list_ends().len(), 1);
        assert_eq!(ledger.used("a"), Host { cpu_milli: 7, memory_mib: 14 });
    }

    proptest! {
        #[test]
        fn the_sums_are_those_of_the_pods(told in prop::collection::vec((0_u8..6, 0_u8..4, 0_u64..9), 1..60)) {
            let mut ledger = Ledger::default();
            let mut known = std::collections::BTreeMap::new();
            for (uid, node, cpu) in told {
                let name = ["", "a", "b", "c"][usize::from(node)];
                ledger.see(&pod(uid, name, cpu));
                if !name.is_empty() {
                    known.insert(uid, (name, cpu));
                }
                prop_assert!(ledger.accounts.len() <= 4, "accounts are used again");
                for node in ["a", "b", "c"] {
                    let sum = known.values().filter(|(on, _)| *on == node).map(|(_, cpu)| cpu).sum::<u64>();
                    prop_assert_eq!(ledger.used(node).cpu_milli, sum);
                }
            }
        }
    }
}
