//! May a pod of this policy have something of this GPU?

use super::{Policy, ShareWith};
use crate::contract::{
    DISTINCT_GPUS_ANNOTATION, GPU_MEMORY_MIN_ANNOTATION, GPU_MODEL_ANNOTATION, GPUS_PER_NODE_MAX,
    RESERVE_LABEL, SHARE_WITH_ANNOTATION,
};
use crate::gpu::Gpu;
use crate::units::MemoryMib;

/// A pod that has something of a GPU, or was promised something.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Occupant<'a> {
    /// Its namespace.
    pub namespace: &'a str,
    /// With whom it shares; [`ShareWith::Anyone`] where its policy cannot be read or is not known.
    pub share_with: ShareWith,
}

/// Why a policy of the pod, of those there, or of the node keeps a pod off a GPU. The texts are few and without numbers, as those of
/// [`NoFit`](crate::pack::NoFit).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, thiserror::Error)]
pub enum NotAllowed {
    /// Another model.
    #[error("no GPU of a model that {GPU_MODEL_ANNOTATION} allows")]
    Model,
    /// A smaller card.
    #[error("no GPU with the memory that {GPU_MEMORY_MIN_ANNOTATION} asks for")]
    Memory,
    /// Another namespace is on it, and the pod wants none.
    #[error("no free placement on a GPU without other namespaces ({SHARE_WITH_ANNOTATION})")]
    OtherNamespace,
    /// A pod is on it that wants no other namespace.
    #[error("no free placement on a GPU whose pods share with other namespaces ({SHARE_WITH_ANNOTATION})")]
    Kept,
    /// Too few different GPUs.
    #[error("no free placement on as many different GPUs as {DISTINCT_GPUS_ANNOTATION} wants")]
    Distinct,
    /// What is idle is kept for pods that ask for more whole GPUs.
    #[error("no free placement beside the whole GPUs that the node keeps for large pods ({RESERVE_LABEL})")]
    Reserved,
    /// The node's label cannot be read, so it is not known what it keeps.
    #[error("node label {RESERVE_LABEL} is no number from 0 to {GPUS_PER_NODE_MAX}")]
    ReserveUnreadable,
}

impl NotAllowed {
    /// Whether it would still be so if every pod left the node.
    pub fn is_permanent(self) -> bool {
        matches!(self, Self::Model | Self::Memory | Self::ReserveUnreadable)
    }
}

impl Policy {
    /// Whether a pod of this policy, in `namespace`, may have something of `gpu` beside its occupants.
    ///
    /// Health and room are not looked at: that is the packing core's. The occupants' own wishes count as well.
    ///
    /// # Errors
    /// [`NotAllowed`], what cannot be mended first.
    pub fn allows(&self, namespace: &str, gpu: &Gpu, occupants: &[Occupant<'_>]) -> Result<(), NotAllowed> {
        self.allows_model(gpu.kind.model(), gpu.kind.memory())?;
        let mut others = occupants.iter().filter(|other| other.namespace != namespace).peekable();
        if self.share_with == ShareWith::Namespace && others.peek().is_some() {
            return Err(NotAllowed::OtherNamespace);
        }
        if others.any(|other| other.share_with == ShareWith::Namespace) {
            return Err(NotAllowed::Kept);
        }
        Ok(())
    }

    /// Whether a card of this model, with so much memory, may be used, whoever is on it.
    ///
    /// # Errors
    /// [`NotAllowed::Model`] or [`NotAllowed::Memory`].
    pub fn allows_model(&self, model: &str, memory: MemoryMib) -> Result<(), NotAllowed> {
        if !self.gpu_models.is_empty() && !self.gpu_models.iter().any(|pattern| pattern.matches(model)) {
            return Err(NotAllowed::Model);
        }
        if memory < self.gpu_memory_min { Err(NotAllowed::Memory) } else { Ok(()) }
    }
}
