//! Which nodes are alike.
//!
//! A cluster of a thousand nodes has some dozens of different ones, counted by what their GPUs are, how they are in use,
//! and what the node keeps for large pods. A request is placed once on each class instead of once on each node.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Instant;

use stowage_shared::gpu::GpuKind;
use stowage_shared::occupancy::{GpuState, Occupancy};
use stowage_shared::pack::{Stands, fleet};
use stowage_shared::policy::{Occupied, Reserve};

use super::snapshot::{Class, Idle, KnownGpus};

/// Kinds and classes that nobody has any more are swept out when there are so many.
const SWEEP_AT: usize = 4096;
/// The same for what nodes have idle, which differs from node to node.
const IDLE_SWEEP_AT: usize = 16_384;

/// One GPU as a class sees it: its kind, which offers are not healthy, and what is in use.
type Look = (u64, u64, Occupancy);

/// Numbers kinds and classes. A number is never given twice, so that whoever remembers one is never misled.
#[derive(Debug, Default)]
pub(super) struct Classes {
    kinds: HashMap<Arc<GpuKind>, u64>,
    classes: HashMap<(Reserve, Vec<Look>), Class>,
    stands: Stands,
    idle: HashMap<Arc<[fleet::Node]>, u64>,
    next: u64,
}

impl Classes {
    /// The one copy of a kind that all GPUs of it share.
    pub(super) fn kind(&mut self, kind: &Arc<GpuKind>) -> Arc<GpuKind> {
        if let Some((known, _)) = self.kinds.get_key_value(kind) {
            return known.clone();
        }
        if self.kinds.len() >= SWEEP_AT {
            self.kinds.retain(|kind, _| Arc::strong_count(kind) > 1);
        }
        self.next += 1;
        self.kinds.insert(kind.clone(), self.next);
        kind.clone()
    }

    /// What is known of a node with these GPUs. Its class does not depend on their order.
    pub(super) fn known(&mut self, now: Occupied, fresh_until: Instant) -> KnownGpus {
        let mut looks: Vec<(Look, u8)> = now.gpus.iter().map(|gpu| self.look(gpu)).zip(0..).collect();
        looks.sort_unstable();
        let mut order = vec![0; looks.len()].into_boxed_slice();
        (0..).zip(&looks).for_each(|(place, (_, gpu))| order[usize::from(*gpu)] = place);
        let looks = looks.into_iter().map(|(look, _)| look).collect();
        let class = self.of((now.reserve, looks));
        let idle = self.idle(&now);
        KnownGpus { now, class, order, idle, fresh_until }
    }

    /// By which stands what is idle is sorted from now on; `false` where what was sorted before is wrong now.
    pub(super) fn sort_by(&mut self, stands: &Stands) -> bool {
        let same = self.stands.numbers_as(stands);
        self.stands = stands.clone();
        if !same {
            self.idle.clear();
        }
        same
    }

    fn idle(&mut self, now: &Occupied) -> Idle {
        let lots = now.lots(&self.stands).into_iter().map(|lot| {
            let mut node = lot.node;
            node.idle.sort_unstable();
            node
        });
        let lots: Arc<[fleet::Node]> = lots.collect();
        if let Some((lots, &number)) = self.idle.get_key_value(&lots) {
            return Idle { number, lots: lots.clone() };
        }
        if self.idle.len() >= IDLE_SWEEP_AT {
            self.idle.retain(|lots, _| Arc::strong_count(lots) > 1);
        }
        self.next += 1;
        self.idle.insert(lots.clone(), self.next);
        Idle { number: self.next, lots }
    }

    fn of(&mut self, alike: (Reserve, Vec<Look>)) -> Class {
        if let Some(class) = self.classes.get(&alike) {
            return *class;
        }
        if self.classes.len() >= SWEEP_AT {
            self.classes.clear();
        }
        self.next += 1;
        let class = Class(self.next);
        self.classes.insert(alike, class);
        class
    }

    fn look(&mut self, state: &GpuState) -> Look {
        let kind = self.kind(&state.gpu.kind);
        let number = self.kinds.get(&kind).copied().unwrap_or_default();
        (number, state.gpu.sick_offers(), state.occupancy.clone())
    }
}
