//! What a pod's author wants of its placement beyond what the resource names say.
//!
//! ```yaml
//! metadata:
//!   annotations:
//!     stowage.dev/placement: spread          # or binpack, the default
//!     stowage.dev/gpu-model: "*A100*|*H100*" # NVML's product name; * stands for any text
//!     stowage.dev/gpu-memory-min: 40Gi       # of the whole card
//!     stowage.dev/distinct-gpus: "true"      # each device of the pod on another GPU
//!     stowage.dev/share-with: namespace      # or anyone, the default
//! ```
//!
//! Annotations come from tenants: each is bounded before it is read, and one that cannot be read is an error with
//! the cure, never ignored: a pod that wanted a GPU of its own must not quietly share one.
//!
//! [`Policy::read`] reads them, [`Policy::allows`] judges one GPU, and [`place`] places a request by them. A
//! placement without policies is the packing core's, unchanged. [`Occupied`] is a node with who is on its GPUs, as the
//! extender and the command line judge it; what its owner keeps for large pods, by a label of the node, is a [`Reserve`].

mod allow;
mod company;
mod place;
mod reserve;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::fmt;

pub use self::allow::{NotAllowed, Occupant};
pub use self::company::{Company, Occupied, Want};
pub use self::place::{Node, Rank, WhyNot, place};
pub use self::reserve::Reserve;

use crate::contract::{
    DISTINCT_GPUS_ANNOTATION, GPU_MEMORY_MIN_ANNOTATION, GPU_MODEL_ANNOTATION, GPU_MODEL_PATTERNS_MAX,
    PLACEMENT_ANNOTATION, POLICY_MAX_BYTES, SHARE_WITH_ANNOTATION,
};
use crate::pod::Quantity;
use crate::units::MemoryMib;

/// What a pod wants. The default is what a pod without annotations wants.
///
/// Two pods of equal requests and equal policies are of one shape.
#[derive(Debug, Clone, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Policy {
    /// Fullest first or emptiest first.
    pub placement: Packing,
    /// GPU models that it may run on; empty for any.
    pub gpu_models: Vec<ModelPattern>,
    /// The least memory of a card.
    pub gpu_memory_min: MemoryMib,
    /// Whether each of its devices is of another GPU.
    pub distinct_gpus: bool,
    /// With whom it shares a GPU.
    pub share_with: ShareWith,
}

/// Where a pod would rather go.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Packing {
    /// Where it takes least away from pods to come: what serves the cluster.
    #[default]
    Binpack,
    /// On the node and the GPU of which least is in use: what serves the pod.
    Spread,
}

/// With whom a pod shares a GPU, be it in shares or in slices.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ShareWith {
    /// With any pod.
    #[default]
    Anyone,
    /// With pods of its own namespace only. It counts both ways: no other pod may join it either.
    Namespace,
}

/// A pattern of NVML's product name: the whole of it, in which `*` stands for any text. Case does not matter.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ModelPattern(String);

/// Why a pod's policy cannot be read. Nobody can serve such a pod.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PolicyError {
    /// Absurdly long.
    #[error("annotation {0} has more than {POLICY_MAX_BYTES} bytes")]
    TooLong(&'static str),
    /// Not one of the words.
    #[error("annotation {key} is {value:?}: use {words}")]
    Word {
        /// The annotation.
        key: &'static str,
        /// What it says, shortened.
        value: String,
        /// What it may say.
        words: &'static str,
    },
    /// No list of patterns.
    #[error(
        "annotation {GPU_MODEL_ANNOTATION} is {0:?}: use 1 to {GPU_MODEL_PATTERNS_MAX} product names or patterns such as *A100*|*H100*"
    )]
    Models(String),
    /// No amount of memory.
    #[error("annotation {GPU_MEMORY_MIN_ANNOTATION} is {0:?}: use an amount of memory such as 40Gi")]
    Memory(String),
}

impl Policy {
    /// Reads a pod's annotations; `get` looks one up by its key.
    ///
    /// # Errors
    /// [`PolicyError`] for the first annotation that cannot be read, with what it should say.
    pub fn read<'a>(get: impl Fn(&str) -> Option<&'a str>) -> Result<Self, PolicyError> {
        let text = |key: &'static str| match get(key) {
            Some(text) if text.len() > POLICY_MAX_BYTES => Err(PolicyError::TooLong(key)),
            text => Ok(text.map(str::trim)),
        };
        let placement = text(PLACEMENT_ANNOTATION)?.map(|value| match value {
            "binpack" => Ok(Packing::Binpack),
            "spread" => Ok(Packing::Spread),
            _ => Err(word(PLACEMENT_ANNOTATION, value, "binpack or spread")),
        });
        let distinct_gpus = text(DISTINCT_GPUS_ANNOTATION)?.map(|value| match value {
            "true" => Ok(true),
            "false" => Ok(false),
            _ => Err(word(DISTINCT_GPUS_ANNOTATION, value, "\"true\" or \"false\"")),
        });
        let share_with = text(SHARE_WITH_ANNOTATION)?.map(|value| match value {
            "namespace" => Ok(ShareWith::Namespace),
            "anyone" => Ok(ShareWith::Anyone),
            _ => Err(word(SHARE_WITH_ANNOTATION, value, "namespace or anyone")),
        });
        Ok(Self {
            placement: placement.transpose()?.unwrap_or_default(),
            gpu_models: text(GPU_MODEL_ANNOTATION)?.map(models).transpose()?.unwrap_or_default(),
            gpu_memory_min: text(GPU_MEMORY_MIN_ANNOTATION)?.map(memory).transpose()?.unwrap_or_default(),
            distinct_gpus: distinct_gpus.transpose()?.unwrap_or_default(),
            share_with: share_with.transpose()?.unwrap_or_default(),
        })
    }

    /// The same from a map, as API objects carry them.
    ///
    /// # Errors
    /// As [`Policy::read`].
    pub fn of(annotations: Option<&BTreeMap<String, String>>) -> Result<Self, PolicyError> {
        Self::read(|key| annotations?.get(key).map(String::as_str))
    }

    /// Whether it wants nothing that the packing core does not do anyway.
    pub fn is_default(&self) -> bool {
        *self == Self::default()
    }
}

/// The annotations that say the same, for people; nothing where it is the default.
impl fmt::Display for Policy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let models: Vec<&str> = self.gpu_models.iter().map(|pattern| pattern.0.as_str()).collect();
        let spread = self.placement == Packing::Spread;
        let memory = self.gpu_memory_min != MemoryMib::default();
        let alone = self.share_with == ShareWith::Namespace;
        let wishes = [
            spread.then(|| format!("{PLACEMENT_ANNOTATION}: spread")),
            (!models.is_empty()).then(|| format!("{GPU_MODEL_ANNOTATION}: {}", models.join("|"))),
            memory.then(|| format!("{GPU_MEMORY_MIN_ANNOTATION}: {}Mi", self.gpu_memory_min.0)),
            self.distinct_gpus.then(|| format!("{DISTINCT_GPUS_ANNOTATION}: true")),
            alone.then(|| format!("{SHARE_WITH_ANNOTATION}: namespace")),
        ];
        f.write_str(&wishes.into_iter().flatten().collect::<Vec<_>>().join(", "))
    }
}

impl ModelPattern {
    /// Whether a product name is what it says.
    pub fn matches(&self, model: &str) -> bool {
        let (pattern, model) = (self.0.to_lowercase(), model.to_lowercase());
        let Some((begin, rest)) = pattern.split_once('*') else { return pattern == model };
        let Some(mut text) = model.strip_prefix(begin) else { return false };
        let mut pieces: Vec<&str> = rest.split('*').collect();
        let end = pieces.pop().unwrap_or_default();
        // Each piece where it comes first leaves the most for those behind it.
        for piece in pieces {
            let Some(at) = text.find(piece) else { return false };
            text = &text[at + piece.len()..];
        }
        text.ends_with(end)
    }
}

fn word(key: &'static str, value: &str, words: &'static str) -> PolicyError {
    PolicyError::Word { key, value: excerpt(value), words }
}

fn models(text: &str) -> Result<Vec<ModelPattern>, PolicyError> {
    let patterns: Vec<&str> = text.split('|').map(str::trim).collect();
    if patterns.len() > GPU_MODEL_PATTERNS_MAX || patterns.iter().any(|pattern| pattern.is_empty()) {
        return Err(PolicyError::Models(excerpt(text)));
    }
    Ok(patterns.into_iter().map(|pattern| ModelPattern(pattern.to_owned())).collect())
}

/// An amount without a unit would be bytes, and is surely meant as something else.
fn memory(text: &str) -> Result<MemoryMib, PolicyError> {
    let bytes = Quantity::Text(text.to_owned()).as_count();
    let memory = bytes.map(MemoryMib::from_bytes).filter(|memory| memory.0 > 0);
    memory.ok_or_else(|| PolicyError::Memory(excerpt(text)))
}

fn excerpt(text: &str) -> String {
    text.chars().take(80).collect()
}
