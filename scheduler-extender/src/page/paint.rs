//! Looks at the cluster and tells what looks different.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Instant;

use super::encode;
use super::kinds::Kinds;
use super::scene::Change;
use super::waiting;
use crate::state::{Broken, NodeView, Snapshot, Store, Unknown};
use crate::verbs::Memo;

/// Nodes that are looked at under the state's lock at once: some tens of microseconds.
const NODES_AT_ONCE: usize = 32;
/// Nodes that are told of at once, so that the first ones are seen while others are looked at.
const TELL_AT: usize = 256;

/// What was seen last.
#[derive(Debug, Default)]
pub(super) struct Painter {
    known: BTreeMap<Arc<str>, Known>,
    kinds: Kinds,
    memo: Memo,
}

#[derive(Debug)]
struct Known {
    view: Arc<NodeView>,
    stale: bool,
}

impl Painter {
    /// Looks at the nodes that changed, and at those that have become too old.
    ///
    /// # Errors
    /// [`Broken`].
    pub(super) fn nodes(
        &mut self,
        store: &Store,
        snapshot: &Snapshot,
        now: Instant,
        tell: &mut dyn FnMut(Change),
    ) -> Result<(), Broken> {
        let changed: Vec<Arc<str>> = snapshot
            .views()
            .filter(|view| self.looks_different(view, now))
            .map(|view| view.name.clone())
            .collect();
        let mut change = Change { gone: self.gone(snapshot), ..Change::default() };
        for some in changed.chunks(NODES_AT_ONCE) {
            let seated = store.change(|state| {
                some.iter().filter_map(|name| Some((name, state.seated(name)?))).collect::<Vec<_>>()
            })?;
            for (name, seated) in seated {
                if !seated.view.is_gpu_node() {
                    self.known.remove(name);
                    change.gone.push(name.clone());
                    continue;
                }
                let stale = is_stale(&seated.view, now);
                change.nodes.push((name.clone(), encode::node(&seated, stale, &mut self.kinds)));
                self.known.insert(name.clone(), Known { view: seated.view, stale });
            }
            if change.nodes.len() >= TELL_AT {
                change.kinds = self.kinds.take_new();
                tell(std::mem::take(&mut change));
            }
        }
        change.kinds = self.kinds.take_new();
        change.complete = true;
        tell(change);
        Ok(())
    }

    /// Looks at the pods that wait, and counts.
    ///
    /// # Errors
    /// [`Broken`].
    pub(super) fn cluster(
        &mut self,
        store: &Store,
        snapshot: &Snapshot,
        now: Instant,
    ) -> Result<Change, Broken> {
        let cluster = waiting::cluster(store, snapshot, &self.memo, now)?;
        Ok(Change { cluster: Some(cluster), ..Change::default() })
    }

    fn looks_different(&self, view: &Arc<NodeView>, now: Instant) -> bool {
        match self.known.get(&view.name) {
            Some(known) => !Arc::ptr_eq(&known.view, view) || known.stale != is_stale(view, now),
            None => view.is_gpu_node(),
        }
    }

    fn gone(&mut self, snapshot: &Snapshot) -> Vec<Arc<str>> {
        let gone = self.known.keys().filter(|name| snapshot.node(name).is_none());
        let gone: Vec<Arc<str>> = gone.cloned().collect();
        gone.iter().for_each(|name| drop(self.known.remove(name)));
        gone
    }
}

fn is_stale(view: &NodeView, now: Instant) -> bool {
    matches!(view.usable(now), Err(Some(Unknown::Old)))
}

#[cfg(test)]
mod tests {
    use serde_json::Value;
    use stowage_shared::contract::GPU_NODE_STALE;

    use super::*;
    use crate::clock::Now;
    use crate::state::event::{Change as Seen, Event};
    use crate::synthetic;

    /// The nodes of a look, as the browser reads them.
    fn look(painter: &mut Painter, store: &Store, now: Instant) -> (Vec<Value>, Vec<Change>) {
        let mut changes = Vec::new();
        painter.nodes(store, &store.snapshot(), now, &mut |change| changes.push(change)).unwrap();
        let nodes = changes.iter().flat_map(|change| &change.nodes).map(|(_, text)| {
            let mut json = String::new();
            text.write(true, &mut json);
            serde_json::from_str(&json).unwrap()
        });
        (nodes.collect(), changes)
    }

    #[test]
    fn who_is_on_a_gpu_is_told_with_what_is_left_of_it() {
        let now = Now::read();
        let store = Store::new(synthetic::state(1, 4, now));
        let (nodes, changes) = look(&mut Painter::default(), &store, now.monotonic);
        let node = &nodes[0];
        assert_eq!(
            (&node[0], &node[1], node[2].as_array().unwrap().len()),
            (&"gpu-node-0".into(), &0.into(), 8)
        );
        let kinds: Vec<Value> =
            changes[0].kinds.iter().map(|kind| serde_json::from_str(kind).unwrap()).collect();
        assert_eq!(kinds.len(), 3, "whole, slices, shares");
        let gpu = |index: usize| &node[2][index];
        // The first pod has GPU 0, the second a slice of GPU 4, the third a share of GPU 6.
        assert_eq!((&gpu(0)[3], &gpu(0)[4]), (&".".into(), &serde_json::json!([0, 0, 0, 0])));
        assert_eq!(gpu(4)[3], ".ffffff");
        assert_eq!(gpu(6)[3], "f");
        assert_eq!(gpu(7)[4], serde_json::json!([]));
        assert_eq!(node[3][0], serde_json::json!(["models", "pod-0-0"]));
        assert_eq!(kinds[1]["offers"][1], serde_json::json!(["nvidia.com/mig-1g.5gb", "1g.5gb", 1, 1, 0]));
    }

    #[test]
    fn only_what_changed_is_looked_at_again() {
        let now = Now::read();
        let store = Store::new(synthetic::state(300, 2, now));
        let mut painter = Painter::default();
        let (nodes, changes) = look(&mut painter, &store, now.monotonic);
        assert_eq!((nodes.len(), changes.len(), changes[1].complete), (300, 2, true));
        assert_eq!(look(&mut painter, &store, now.monotonic).0, [Value::Null; 0]);
        let mut pod = synthetic::pod("new", "uid-new", synthetic::WHOLE, 1);
        pod.node = "gpu-node-7".into();
        store.change(|state| state.apply(Event::Pod(Seen::Applied(pod)), now)).unwrap();
        let (nodes, _) = look(&mut painter, &store, now.monotonic);
        assert_eq!((nodes.len(), &nodes[0][0]), (1, &"gpu-node-7".into()));
        assert!(nodes[0].to_string().contains(r#"["models","new"]"#), "{}", nodes[0]);
    }

    /// A node whose plugin had stopped was once shown with its last GPUs, and what was free of them counted as free.
    #[test]
    fn a_node_that_went_or_grew_old_is_told_so_and_no_gpus_of_it() {
        let now = Now::read();
        let store = Store::new(synthetic::state(2, 3, now));
        let mut painter = Painter::default();
        look(&mut painter, &store, now.monotonic);
        store.change(|state| state.apply(Event::Node(Seen::Deleted("gpu-node-0".into())), now)).unwrap();
        let late = now.monotonic + GPU_NODE_STALE;
        let (nodes, changes) = look(&mut painter, &store, late);
        assert_eq!(&*changes[0].gone[0], "gpu-node-0");
        assert!(nodes[0][1].as_str().unwrap().contains("older than 10 minutes"), "{}", nodes[0]);
        assert_eq!((&nodes[0][2], &nodes[0][3]), (&serde_json::json!([]), &serde_json::json!([])));
    }

    #[test]
    fn a_pod_that_is_being_bound_is_told_apart() {
        let now = Now::read();
        let store = Store::new(synthetic::state(1, 0, now));
        let pod = synthetic::pod("new", "uid-new", synthetic::SHARE, 1);
        store.change(|state| state.apply(Event::Pod(Seen::Applied(pod.clone())), now)).unwrap();
        store.change(|state| state.choose(&pod, "gpu-node-0", now)).unwrap().unwrap();
        let (nodes, _) = look(&mut Painter::default(), &store, now.monotonic);
        assert_eq!(nodes[0][3], serde_json::json!([["models", "new"]]));
        let uses: Vec<&Value> = nodes[0][2].as_array().unwrap().iter().map(|gpu| &gpu[4]).collect();
        assert!(uses.contains(&&serde_json::json!([0, 2, 0, 0])), "{uses:?}");
    }

    #[test]
    fn room_that_is_kept_is_shown_where_it_would_be() {
        let now = Now::read();
        let store = Store::new(synthetic::state(1, 0, now));
        let mut pod = synthetic::pod("hopes", "uid-hopes", synthetic::SLICE, 1);
        pod.nominated = "gpu-node-0".into();
        store.change(|state| state.apply(Event::Pod(Seen::Applied(pod)), now)).unwrap();
        let (nodes, _) = look(&mut Painter::default(), &store, now.monotonic);
        assert!(nodes[0][2].to_string().contains(",3,0,0]"), "{}", nodes[0]);
    }
}
