//! Every node's view, cheap to take a picture of.
//!
//! A snapshot is made after each batch of events, and an event touches a node or two of thousands. So the views are
//! kept in blocks which snapshots share: a picture costs a pointer a block, and a change copies one block.

use std::sync::Arc;

use super::snapshot::NodeView;

/// Views a block has: about as many as there are blocks in a cluster of 5,000 nodes.
const BLOCK: usize = 64;

/// The views, each at the place of its node among all.
#[derive(Debug, Clone, Default)]
pub(super) struct Views {
    blocks: Vec<Arc<Vec<Arc<NodeView>>>>,
}

impl Views {
    pub(super) fn get(&self, at: usize) -> Option<&Arc<NodeView>> {
        self.blocks.get(at / BLOCK)?.get(at % BLOCK)
    }

    /// Puts another view in the place of one.
    pub(super) fn set(&mut self, at: usize, view: Arc<NodeView>) {
        let block = self.blocks.get_mut(at / BLOCK).map(Arc::make_mut);
        if let Some(place) = block.and_then(|block| block.get_mut(at % BLOCK)) {
            *place = view;
        }
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &Arc<NodeView>> {
        self.blocks.iter().flat_map(|block| block.iter())
    }
}

impl FromIterator<Arc<NodeView>> for Views {
    fn from_iter<I: IntoIterator<Item = Arc<NodeView>>>(views: I) -> Self {
        let views: Vec<Arc<NodeView>> = views.into_iter().collect();
        Self { blocks: views.chunks(BLOCK).map(|block| Arc::new(block.to_vec())).collect() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::state::NodeGpus;

    fn view(name: &str) -> Arc<NodeView> {
        Arc::new(NodeView { name: name.into(), gpus: NodeGpus::None, nominated: None })
    }

    fn names(views: &Views) -> Vec<String> {
        views.iter().map(|view| view.name.to_string()).collect()
    }

    #[test]
    fn a_picture_does_not_see_what_changes_later() {
        let all: Vec<String> = (0..3 * BLOCK + 1).map(|n| n.to_string()).collect();
        let mut views: Views = all.iter().map(|name| view(name)).collect();
        let picture = views.clone();
        views.set(3 * BLOCK, view("last"));
        views.set(BLOCK, view("middle"));
        views.set(4 * BLOCK, view("nowhere"));
        assert_eq!(names(&picture), all);
        let mut changed = all.clone();
        changed[3 * BLOCK] = "last".into();
        changed[BLOCK] = "middle".into();
        assert_eq!(names(&views), changed);
        assert_eq!(views.get(BLOCK).map(|view| &*view.name), Some("middle"));
        assert!(views.get(3 * BLOCK + 1).is_none());
        assert!(Arc::ptr_eq(&views.blocks[0], &picture.blocks[0]), "what did not change is shared");
    }
}
