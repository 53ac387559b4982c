//! The nodes and pods of a trace.

use std::collections::HashMap;

use stowage_shared::pack::fleet::{GPU_MILLI, Mix, Models, Node, Shape, Supply};

use super::csv::{Row, Table, TraceError, numbers};

/// A node or pod has at most so much CPU: a million cores.
const CPU_MILLI_MAX: u64 = 1_000_000_000;
/// And so much memory: a pebibyte.
const MEMORY_MIB_MAX: u64 = 1 << 30;
/// And so many GPUs.
const GPUS_MAX: u64 = 64;

/// A file: its name, for errors, and what is in it.
#[derive(Debug, Clone, Copy)]
pub struct Source<'a> {
    /// Its name.
    pub file: &'a str,
    /// Its text.
    pub text: &'a str,
}

/// One node of the trace.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NodeRow {
    /// Its name.
    pub name: String,
    /// What it has when nobody is on it.
    pub empty: Node,
}

/// Pods that ask for the same.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct PodKind {
    /// What they ask for.
    pub shape: Shape,
    /// The GPU models that they may use, as the trace says it: `A|B`, or nothing for any.
    pub gpu_spec: String,
}

/// A trace: nodes, and pods that may arrive in any order.
#[derive(Debug, Clone, Default)]
pub struct Trace {
    /// The nodes, in the order of the file.
    pub nodes: Vec<NodeRow>,
    /// The different kinds of pods.
    pub kinds: Vec<PodKind>,
    /// By row of the file: the pod's kind.
    pub pods: Vec<usize>,
}

impl Trace {
    /// Reads nodes (`sn,cpu_milli,memory_mib,gpu,model`) and pods (`cpu_milli,memory_mib,num_gpu,gpu_milli` and, where pods are
    /// constrained, `gpu_spec`); more columns, and any order of them, are fine.
    ///
    /// # Errors
    /// For the first cell that is wrong.
    pub fn read(nodes: Source<'_>, pods: Source<'_>) -> Result<Self, TraceError> {
        let mut trace = Self::default();
        let mut models = HashMap::new();
        trace.read_nodes(nodes, &mut models)?;
        trace.read_pods(pods, &models)?;
        Ok(trace)
    }

    /// Reads an order of arrivals: in each line a row of the pods, from 0.
    ///
    /// # Errors
    /// For the first line that is none.
    pub fn read_order(&self, order: Source<'_>) -> Result<Vec<usize>, TraceError> {
        numbers(order.file, order.text, "row", self.pods.len())
    }

    /// Reads the ranks of the nodes: for each node, sorted by name, a number; of equal nodes the lowest wins. They are
    /// returned in the order of the nodes' file.
    ///
    /// # Errors
    /// For the first line that is no number, and where there is not one for each node.
    pub fn read_ranks(&self, ranks: Source<'_>) -> Result<Vec<usize>, TraceError> {
        let by_name = numbers(ranks.file, ranks.text, "rank", usize::MAX)?;
        if by_name.len() != self.nodes.len() {
            let expect = format!("{} nodes want a rank each", self.nodes.len());
            return Err(TraceError::Count { file: ranks.file.to_owned(), found: by_name.len(), expect });
        }
        Ok(self.ranks_by_name().into_iter().map(|place| by_name[place]).collect())
    }

    /// The place of each node among all, sorted by name; in the order of the nodes' file.
    pub fn ranks_by_name(&self) -> Vec<usize> {
        let mut sorted: Vec<usize> = (0..self.nodes.len()).collect();
        sorted.sort_by_key(|&node| &self.nodes[node].name);
        let mut ranks = vec![0; self.nodes.len()];
        sorted.into_iter().enumerate().for_each(|(rank, node)| ranks[node] = rank);
        ranks
    }

    /// All GPUs, in thousandths.
    pub fn capacity_milli(&self) -> u64 {
        self.nodes.iter().map(|node| node.empty.idle.len() as u64 * u64::from(GPU_MILLI)).sum()
    }

    /// The mix of all pods of the trace.
    pub fn mix(&self) -> Mix {
        Mix::new(self.pods.iter().map(|&kind| (self.kinds[kind].shape, 1)))
    }

    /// The GPUs of each model.
    pub fn supply(&self) -> Supply {
        Supply::new(self.nodes.iter().map(|node| (node.empty.model, node.empty.idle.len() as u64)))
    }

    fn read_nodes(&mut self, nodes: Source<'_>, models: &mut HashMap<String, u8>) -> Result<(), TraceError> {
        let table = Table::new(nodes.file, nodes.text);
        let [name, cpu, memory, gpu] = [
            table.column("sn")?,
            table.column("cpu_milli")?,
            table.column("memory_mib")?,
            table.column("gpu")?,
        ];
        let model = table.column("model")?;
        for row in table.rows() {
            let text = row.text(model)?;
            let number = u8::try_from(models.len()).unwrap_or(u8::MAX);
            let number = *models.entry(text.to_owned()).or_insert(number);
            if number >= Models::MAX {
                return Err(row.wrong(model, text, format!("one of the first {} models", Models::MAX)));
            }
            let gpus = usize::try_from(row.number(gpu, GPUS_MAX)?).unwrap_or_default();
            self.nodes.push(NodeRow {
                name: row.text(name)?.to_owned(),
                empty: Node {
                    cpu_milli: row.number(cpu, CPU_MILLI_MAX)?,
                    memory_mib: row.number(memory, MEMORY_MIB_MAX)?,
                    model: number,
                    idle: vec![GPU_MILLI; gpus],
                },
            });
        }
        let none = || TraceError::Empty { file: nodes.file.to_owned(), what: "GPUs" };
        if self.capacity_milli() == 0 { Err(none()) } else { Ok(()) }
    }

    fn read_pods(&mut self, pods: Source<'_>, models: &HashMap<String, u8>) -> Result<(), TraceError> {
        let table = Table::new(pods.file, pods.text);
        let [cpu, memory] = [table.column("cpu_milli")?, table.column("memory_mib")?];
        let [gpus, milli] = [table.column("num_gpu")?, table.column("gpu_milli")?];
        // Traces without constraints have no column for them.
        let spec = table.column("gpu_spec").ok();
        let read = |row: &Row<'_>| {
            let gpus = row.number(gpus, GPUS_MAX)?;
            // The published runs take what is over a whole GPU as one.
            let milli = row.number(milli, u64::from(u32::MAX))?.min(u64::from(GPU_MILLI));
            let text = spec.map_or(Ok(""), |spec| row.text(spec))?;
            let names: Vec<&str> = text.split('|').filter(|name| !name.is_empty()).collect();
            let known = names.iter().filter_map(|&name| models.get(name).copied());
            let models = if names.is_empty() || gpus == 0 { Models::ANY } else { Models::only(known) };
            let shape = Shape {
                cpu_milli: row.number(cpu, CPU_MILLI_MAX)?,
                memory_mib: row.number(memory, MEMORY_MIB_MAX)?,
                gpu_milli: if gpus == 0 { 0 } else { u16::try_from(milli).unwrap_or(GPU_MILLI) },
                gpus: if milli == 0 { 0 } else { u16::try_from(gpus).unwrap_or_default() },
                slice: false,
                models,
            };
            Ok(PodKind { shape, gpu_spec: if gpus == 0 { String::new() } else { names.join("|") } })
        };
        let mut known = HashMap::new();
        for row in table.rows() {
            let kind = read(&row)?;
            let next = self.kinds.len();
            let place = *known.entry(kind.clone()).or_insert(next);
            if place == next {
                self.kinds.push(kind);
            }
            self.pods.push(place);
        }
        let none = || TraceError::Empty { file: pods.file.to_owned(), what: "pods" };
        if self.pods.is_empty() { Err(none()) } else { Ok(()) }
    }
}
