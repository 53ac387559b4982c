//! Nodes in numbered classes, so that what was found for one holds for all that are alike.

use std::collections::HashMap;
use std::sync::Arc;

use crate::gpu::GpuKind;
use crate::occupancy::{GpuState, Occupancy};
use crate::pack::{Chosen, Demand, Mix, Placement, place};

/// Classes that are remembered; beyond that everything is numbered anew.
const CLASSES_MAX: usize = 1 << 16;

/// A GPU as a class sees it: the number of its kind, what is not healthy, what is in use.
type Look = (usize, u64, Occupancy);

/// What was found for a class and a demand: nothing yet, that it does not fit, or where it goes.
type Judgement = Option<Option<Arc<Placement>>>;

/// The GPUs of all nodes, and what the packing core says of them.
#[derive(Debug, Clone)]
pub struct Cluster {
    mix: Mix,
    nodes: Vec<Vec<GpuState>>,
    kinds: Vec<Arc<GpuKind>>,
    /// The class of each node.
    classes: Vec<usize>,
    numbers: HashMap<Vec<Look>, usize>,
    /// What each class could still take.
    values: Vec<u64>,
    demands: Vec<Demand>,
    /// By demand, then by class.
    judgements: Vec<Vec<Judgement>>,
}

impl Cluster {
    /// These nodes, judged by the requests that are expected.
    pub fn new(nodes: Vec<Vec<GpuState>>, mix: Mix) -> Self {
        let mut cluster = Self {
            mix,
            classes: vec![0; nodes.len()],
            nodes,
            kinds: Vec::new(),
            numbers: HashMap::new(),
            values: Vec::new(),
            demands: Vec::new(),
            judgements: Vec::new(),
        };
        cluster.number_all();
        cluster
    }

    /// How many nodes there are.
    pub fn len(&self) -> usize {
        self.nodes.len()
    }

    /// Whether there is no node.
    pub fn is_empty(&self) -> bool {
        self.nodes.is_empty()
    }

    /// The GPUs of a node; none where there is no such node.
    pub fn gpus(&self, node: usize) -> &[GpuState] {
        self.nodes.get(node).map_or(&[], Vec::as_slice)
    }

    /// What all nodes could still take, each shape by itself, in thousandths of a GPU.
    pub fn value(&self) -> u64 {
        self.classes.iter().map(|&class| self.values[class]).sum()
    }

    /// What one node could still take.
    pub fn value_of(&self, node: usize) -> u64 {
        self.classes.get(node).map_or(0, |&class| self.values[class])
    }

    /// The number of a node's class: nodes with equal GPUs in equal use have the same one.
    pub fn class(&self, node: usize) -> Option<usize> {
        self.classes.get(node).copied()
    }

    /// Hands devices of a node out.
    pub fn take(&mut self, node: usize, devices: impl IntoIterator<Item = Chosen>) {
        self.change(node, devices, Occupancy::take);
    }

    /// Takes devices of a node back.
    pub fn give_back(&mut self, node: usize, devices: impl IntoIterator<Item = Chosen>) {
        self.change(node, devices, Occupancy::give_back);
    }

    fn change(
        &mut self,
        node: usize,
        devices: impl IntoIterator<Item = Chosen>,
        change: fn(&mut Occupancy, usize),
    ) {
        let Some(gpus) = self.nodes.get_mut(node) else { return };
        for Chosen { gpu, offer } in devices {
            if let Some(gpu) = gpus.get_mut(gpu) {
                change(&mut gpu.occupancy, offer);
            }
        }
        if self.values.len() >= CLASSES_MAX {
            self.number_all();
        } else {
            self.number(node);
        }
    }

    /// Where the packing core puts a request on a node; `None` where it does not fit.
    pub fn fit(&mut self, node: usize, demand: &Demand) -> Option<Arc<Placement>> {
        let demand = self.demand(demand);
        self.judge(node, demand)
    }

    /// The best node for a request of those that `may` serve it, and where it goes there. Ties go to the first node.
    pub fn best(&mut self, demand: &Demand, may: impl Fn(usize) -> bool) -> Option<(usize, Arc<Placement>)> {
        let demand = self.demand(demand);
        let mut best: Option<(usize, Arc<Placement>)> = None;
        for node in (0..self.nodes.len()).filter(|&node| may(node)) {
            if let Some(placement) = self.judge(node, demand)
                && best.as_ref().is_none_or(|(_, known)| placement.cost < known.cost)
            {
                best = Some((node, placement));
            }
        }
        best
    }

    fn judge(&mut self, node: usize, demand: usize) -> Option<Arc<Placement>> {
        let class = *self.classes.get(node)?;
        let row = &mut self.judgements[demand];
        if row.len() <= class {
            row.resize(class + 1, None);
        }
        let judgement = row[class].get_or_insert_with(|| {
            place(&self.nodes[node], &self.demands[demand], &self.mix).ok().map(Arc::new)
        });
        judgement.clone()
    }

    /// The number of a demand.
    pub(super) fn demand(&mut self, demand: &Demand) -> usize {
        self.demands.iter().position(|known| known == demand).unwrap_or_else(|| {
            self.demands.push(demand.clone());
            self.judgements.push(Vec::new());
            self.demands.len() - 1
        })
    }

    fn number_all(&mut self) {
        self.numbers.clear();
        self.values.clear();
        self.judgements.iter_mut().for_each(Vec::clear);
        (0..self.nodes.len()).for_each(|node| self.number(node));
    }

    fn number(&mut self, node: usize) {
        let mut looks = Vec::with_capacity(self.nodes[node].len());
        for state in &self.nodes[node] {
            let same = |known: &Arc<GpuKind>| Arc::ptr_eq(known, &state.gpu.kind) || *known == state.gpu.kind;
            let kind = self.kinds.iter().position(same).unwrap_or_else(|| {
                self.kinds.push(state.gpu.kind.clone());
                self.kinds.len() - 1
            });
            looks.push((kind, state.gpu.sick_offers(), state.occupancy.clone()));
        }
        self.classes[node] = match self.numbers.get(&looks) {
            Some(&class) => class,
            None => {
                self.values.push(self.mix.value(&self.nodes[node]));
                self.numbers.insert(looks, self.values.len() - 1);
                self.values.len() - 1
            }
        };
    }
}
