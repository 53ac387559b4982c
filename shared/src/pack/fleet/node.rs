//! Nodes and requests, as far as packing needs to know them.

/// A whole GPU, in thousandths.
pub const GPU_MILLI: u16 = 1000;

/// A set of GPU models: bit `n` is the caller's model `n`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Models(u64);

impl Models {
    /// So many models can be told apart; a caller with more lets the rarest share the last number.
    pub const MAX: u8 = 64;

    /// Every model.
    pub const ANY: Self = Self(u64::MAX);

    /// These models only. Numbers from [`Models::MAX`] on are left out.
    pub fn only(models: impl IntoIterator<Item = u8>) -> Self {
        Self(models.into_iter().filter(|&model| model < Self::MAX).fold(0, |bits, model| bits | 1 << model))
    }

    /// Whether this model is one of them.
    pub fn contains(self, model: u8) -> bool {
        model < Self::MAX && self.0 & (1 << model) != 0
    }
}

/// One kind of request: what a pod asks of a node. Requests of equal shape are interchangeable.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Shape {
    /// CPU, in thousandths of a core.
    pub cpu_milli: u64,
    /// Memory of the node, in MiB.
    pub memory_mib: u64,
    /// What it asks of each of its GPUs, in thousandths: 1000 is the GPU whole.
    pub gpu_milli: u16,
    /// How many GPUs, each another one. None for a pod without a GPU.
    pub gpus: u16,
    /// Whether it is a slice, which is cut from a GPU that is neither whole nor shared. Which slices are left of one that
    /// is cut already, and so where such a request goes, is not known here.
    pub slice: bool,
    /// The GPU models that it may use.
    pub models: Models,
}

impl Shape {
    /// All that it asks of GPUs, in thousandths.
    pub fn total_gpu_milli(&self) -> u64 {
        u64::from(self.gpu_milli) * u64::from(self.gpus)
    }

    /// Whether it asks for GPUs at all.
    pub fn wants_gpu(&self) -> bool {
        self.total_gpu_milli() > 0
    }
}

/// What is idle on one node.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Node {
    /// CPU, in thousandths of a core.
    pub cpu_milli: u64,
    /// Memory, in MiB.
    pub memory_mib: u64,
    /// The model of its GPUs.
    pub model: u8,
    /// Each GPU's idle thousandths, by GPU index.
    pub idle: Vec<u16>,
}

impl Node {
    /// The GPUs that have `milli` idle, the fullest first, `count` of them; the lowest index first among equals.
    /// `None` where there are fewer.
    pub fn tightest(&self, milli: u16, count: u16) -> Option<Vec<u16>> {
        let mut fit: Vec<u16> =
            (0..).zip(&self.idle).filter(|&(_, &idle)| idle >= milli).map(|(gpu, _)| gpu).collect();
        fit.sort_by_key(|&gpu| self.idle[usize::from(gpu)]);
        fit.truncate(usize::from(count));
        (fit.len() == usize::from(count)).then_some(fit)
    }

    /// Takes what a pod of this shape uses, its GPUs being those. The caller has seen that it fits; what would be less
    /// than nothing is nothing.
    pub fn take(&mut self, shape: &Shape, gpus: &[u16]) {
        self.cpu_milli = self.cpu_milli.saturating_sub(shape.cpu_milli);
        self.memory_mib = self.memory_mib.saturating_sub(shape.memory_mib);
        for &gpu in gpus {
            if let Some(idle) = self.idle.get_mut(usize::from(gpu)) {
                *idle = idle.saturating_sub(shape.gpu_milli);
            }
        }
    }

    /// Gives back what [`Node::take`] took.
    pub fn give_back(&mut self, shape: &Shape, gpus: &[u16]) {
        self.cpu_milli = self.cpu_milli.saturating_add(shape.cpu_milli);
        self.memory_mib = self.memory_mib.saturating_add(shape.memory_mib);
        for &gpu in gpus {
            if let Some(idle) = self.idle.get_mut(usize::from(gpu)) {
                *idle = idle.saturating_add(shape.gpu_milli).min(GPU_MILLI);
            }
        }
    }
}
