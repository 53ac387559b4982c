//! Which resource names are GPUs.

use std::collections::BTreeSet;

use stowage_shared::resource::ResourceName;

/// NVIDIA's names, and whatever else a GpuNode offers its GPUs as.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct GpuNames {
    others: BTreeSet<String>,
}

impl GpuNames {
    /// The names that some node offers.
    pub fn of<'a>(offered: impl IntoIterator<Item = &'a ResourceName>) -> Self {
        let others = offered.into_iter().map(ResourceName::as_str);
        Self {
            others: others.filter(|name| !ResourceName::is_standard_gpu(name)).map(str::to_owned).collect(),
        }
    }

    /// Whether who asks for it asks for a GPU.
    pub fn is_gpu(&self, name: &str) -> bool {
        ResourceName::is_standard_gpu(name) || self.others.contains(name)
    }
}
