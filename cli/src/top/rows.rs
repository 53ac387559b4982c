//! What a line of the screen says: one GPU node in numbers.

use std::cmp::{Ordering, Reverse};

use crate::nodes::{self, Line};
use crate::page::printable;
use crate::world::{NodeState, World};

/// A GPU node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Row {
    /// Its name, harmless to a terminal.
    pub node: String,
    /// Its GPU models.
    pub models: String,
    /// Its GPUs.
    pub gpus: u32,
    /// What of them is in use, free and stranded, in thousandths of a GPU; absent where that is not known.
    pub usage: Option<[u64; 3]>,
    /// How busy the GPUs are that tell it, on the mean, in per cent.
    pub busy: Option<u8>,
    /// GPUs and parts that are unhealthy.
    pub unhealthy: u32,
    /// Pods that hold something, of the namespace that is asked about.
    pub pods: usize,
    /// Why it takes no new GPU pods.
    pub note: String,
}

/// What rows are sorted by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sort {
    /// Its name.
    Node,
    /// What is in use.
    InUse,
    /// What is free.
    Free,
    /// What is stranded.
    Stranded,
    /// How busy the GPUs are.
    Busy,
    /// What is unhealthy.
    Unhealthy,
}

impl Sort {
    /// Two rows, that with more first; by name the other way round. Equals go by name.
    pub fn compare(self, one: &Row, two: &Row) -> Ordering {
        let amount = |at: usize| move |row: &Row| row.usage.map(|usage| usage[at]);
        let most = |key: &dyn Fn(&Row) -> Option<u64>| Reverse(key(one)).cmp(&Reverse(key(two)));
        let order = match self {
            Self::Node => Ordering::Equal,
            Self::InUse => most(&amount(0)),
            Self::Free => most(&amount(1)),
            Self::Stranded => most(&amount(2)),
            Self::Busy => most(&|row| row.busy.map(u64::from)),
            Self::Unhealthy => most(&|row| Some(u64::from(row.unhealthy))),
        };
        order.then_with(|| one.node.cmp(&two.node))
    }
}

/// The GPU nodes; with a namespace those where pods of it hold something.
pub fn rows(world: &World, namespace: Option<&str>) -> Vec<Row> {
    let row = |node: &NodeState| {
        let line = nodes::line(node, world)?;
        let row = Row::of(node, &line, namespace);
        (namespace.is_none() || row.pods > 0).then_some(row)
    };
    world.nodes.iter().filter_map(row).collect()
}

impl Row {
    fn of(node: &NodeState, line: &Line, namespace: Option<&str>) -> Self {
        let models: Vec<&str> = line.models.keys().map(String::as_str).collect();
        let holders = node.holders().iter().flatten();
        let wanted = holders.filter(|holder| namespace.is_none_or(|namespace| holder.namespace == namespace));
        let mut pods: Vec<(&str, &str)> = wanted.map(|holder| (&*holder.namespace, &*holder.pod)).collect();
        pods.sort_unstable();
        pods.dedup();
        Self {
            node: printable(&line.node),
            models: printable(&models.join(", ")),
            gpus: line.models.values().sum(),
            usage: line
                .usage
                .as_ref()
                .map(|usage| [usage.in_use_milli, usage.free_milli, usage.stranded_milli]),
            busy: busy(node),
            unhealthy: line.unhealthy_gpus + line.unhealthy_parts,
            pods: pods.len(),
            note: printable(line.closed.as_deref().unwrap_or_default()),
        }
    }
}

/// The mean of what the GPUs tell; those in MIG mode tell nothing.
fn busy(node: &NodeState) -> Option<u8> {
    let told = node.published.as_ref()?;
    let busy: Vec<u32> = told
        .utilization
        .values()
        .filter_map(|of| of.gpu_percent)
        .map(|percent| percent.min(100).into())
        .collect();
    let sum: u32 = busy.iter().sum();
    u8::try_from(sum.checked_div(u32::try_from(busy.len()).ok()?)?).ok()
}

/// The GPUs of a node and who is on them, a line for each.
pub fn details(node: &NodeState) -> Vec<String> {
    let mut lines = Vec::new();
    for (state, holders) in node.states().iter().zip(node.holders()) {
        let gpu = &state.gpu;
        let ill = gpu.unhealthy.as_ref().map(|why| format!("  unhealthy: {why}")).unwrap_or_default();
        let head = format!("GPU {} {}  {}{ill}", gpu.index, gpu.kind.model(), gpu.kind.memory());
        lines.push(printable(&head));
        for holder in holders {
            let part = crate::describe::device(gpu, holder.offer);
            let times = if holder.count > 1 { format!(" x {}", holder.count) } else { String::new() };
            lines.push(printable(&format!("  {part}{times}  {}/{}", holder.namespace, holder.pod)));
        }
    }
    lines
}
