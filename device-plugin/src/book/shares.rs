//! Which shares a container gets where no plan says so and the configuration does.
//!
//! NVIDIA's plugin spreads shares over the GPUs (`distributed`) unless it is told to fill them up (`packed`), and so
//! does ours for pods that nobody planned: whoever comes from there must not find two pods on one GPU that had one
//! each. Where a GPU is offered in other forms as well, spreading would break into those, so there the packing core
//! chooses in any case. It also chooses where `packed` is asked for.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};

use stowage_shared::pack::Chosen;
use stowage_shared::resource::ResourceName;
use stowage_shared::units::MemoryMib;

use super::choose::{Ask, Free};
use super::{Asker, Book, promised};
use crate::config::AllocationPolicy;
use crate::inventory::ShareRules;

/// A shared GPU or MIG device that has shares left.
struct Shared<'a> {
    place: Chosen,
    /// Free shares, the least first.
    free: Vec<&'a String>,
    /// How many are in use.
    used: usize,
    /// How many of the free ones were promised to other pods.
    promised: usize,
    /// How many this container gets.
    picked: usize,
}

/// How much of a GPU the container may take that was given shares of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ShareLimit {
    /// Its shares together.
    pub memory: MemoryMib,
    /// All of the GPU.
    pub of: MemoryMib,
    /// Whether what keeps shares apart holds nobody to an equal part by itself.
    pub is_free: bool,
}

/// A pod that holds shares of a GPU.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ShareHolder {
    /// The pod's UID.
    pub uid: String,
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub pod: String,
    /// The GPU's UUID.
    pub gpu: String,
    /// NVML's index of it.
    pub index: u32,
    /// How much of its memory the shares are together.
    pub memory: MemoryMib,
}

impl Book {
    /// The pods that hold shares of whole GPUs.
    pub fn share_holders(&self) -> Vec<ShareHolder> {
        let mut holders: BTreeMap<(&str, usize), ShareHolder> = BTreeMap::new();
        let mut seen = BTreeSet::new();
        for held in &self.held {
            let Some(uid) = self.owner(held) else { continue };
            let size = self.share_of(Some(uid));
            for id in held.device_ids.iter().filter(|id| seen.insert((&held.resource, *id))) {
                for place in self.places(&held.resource, [id]) {
                    let gpu = &self.gpus[place.gpu];
                    let Some(equal) = gpu.kind.equal_share(place.offer) else { continue };
                    let holder = holders.entry((uid, place.gpu)).or_insert_with(|| ShareHolder {
                        uid: uid.to_owned(),
                        namespace: held.namespace.clone(),
                        pod: held.pod.clone(),
                        gpu: gpu.uuid.to_string(),
                        index: gpu.index,
                        memory: MemoryMib(0),
                    });
                    holder.memory.0 +=
                        size.map_or(equal, |size| size.of(gpu.kind.memory())).0.min(gpu.kind.memory().0);
                }
            }
        }
        holders.into_values().collect()
    }

    /// The limits of the container that was given these shares a moment ago, in the GPUs' order: what its pod says it
    /// needs, else equal parts. Nothing where those are the limits anyhow.
    pub fn share_limits(&self, resource: &ResourceName, ids: &[String]) -> Vec<ShareLimit> {
        let grant = self.grants.iter().rev().find(|grant| &grant.resource == resource && grant.ids == ids);
        let call = grant.and_then(|grant| grant.call.as_ref());
        let size = self.share_of(call.map(|(uid, _)| uid.as_str()));
        let mut limits: BTreeMap<usize, ShareLimit> = BTreeMap::new();
        for place in self.places(resource, ids) {
            let kind = &self.gpus[place.gpu].kind;
            let Some(equal) = kind.equal_share(place.offer) else { continue };
            let is_free = !kind.offers()[place.offer].capped;
            if size.is_none() && !is_free {
                continue;
            }
            let nothing = ShareLimit { memory: MemoryMib(0), of: kind.memory(), is_free };
            let limit = limits.entry(place.gpu).or_insert(nothing);
            limit.memory.0 += size.map_or(equal, |size| size.of(kind.memory())).0.min(kind.memory().0);
        }
        limits.into_values().collect()
    }

    /// Shares by the configured policy; `None` where it says nothing, and `Some` of too few where they must be of
    /// different GPUs and there are not as many.
    pub(super) fn by_policy(
        &self,
        ask: &Ask<'_>,
        askers: &[Asker<'_>],
        free: &[Free<'_>],
        missing: usize,
    ) -> Option<Vec<String>> {
        let rules = self.inventory.share_rules();
        // Where pods say how much they need, counting shares does not tell what fits.
        if askers.iter().any(|asker| asker.shape.share.is_some()) {
            return None;
        }
        let mut parts = self.shared(ask, askers, free)?;
        let sole_form = |part: &Shared<'_>| self.gpus[part.place.gpu].kind.conflicts(part.place.offer) == 0;
        let spreads = rules.policy == AllocationPolicy::Distributed && parts.iter().all(sole_form);
        if !(rules.distinct_gpus || spreads) {
            return None;
        }
        let mut ids = Vec::new();
        while ids.len() < missing {
            let may = |part: &&mut Shared<'_>| {
                part.picked < part.free.len() && !(rules.distinct_gpus && part.picked > 0)
            };
            let Some(part) = parts.iter_mut().filter(may).min_by_key(|part| order(part, rules)) else {
                break;
            };
            ids.push(part.free[part.picked].clone());
            part.picked += 1;
        }
        Some(ids)
    }

    /// The parts that have shares left; `None` where the resource is not shared.
    fn shared<'a>(&self, ask: &Ask<'_>, askers: &[Asker<'_>], free: &[Free<'a>]) -> Option<Vec<Shared<'a>>> {
        let promised = promised(askers);
        let given = self.places(ask.resource, ask.must_include);
        let mut parts: Vec<Shared<'a>> = Vec::new();
        for share in free {
            let place = Chosen { gpu: share.gpu, offer: share.offer? };
            let replicas = self.gpus[place.gpu].kind.offers()[place.offer].replicas? as usize;
            match parts.iter_mut().find(|part| part.place == place) {
                Some(part) => part.free.push(share.id),
                None => parts.push(Shared {
                    promised: promised.iter().filter(|other| other.place == place).count(),
                    place,
                    free: vec![share.id],
                    used: replicas,
                    picked: 0,
                }),
            }
        }
        for part in &mut parts {
            part.used = part.used.saturating_sub(part.free.len());
        }
        if self.inventory.share_rules().distinct_gpus {
            parts.retain(|part| !given.contains(&part.place));
        }
        Some(parts)
    }
}

/// What comes first: parts that were not promised to others, then by policy as NVIDIA's plugin does, then the lowest.
fn order(part: &Shared<'_>, rules: ShareRules) -> (bool, usize, Reverse<usize>, usize, usize, usize) {
    let is_promised = part.free.len() <= part.picked + part.promised;
    let used = part.used + part.promised + part.picked;
    let (spread, fill) = match rules.policy {
        AllocationPolicy::Distributed => (used, Reverse(0)),
        AllocationPolicy::Packed => (0, Reverse(used)),
    };
    (is_promised, spread, fill, part.picked, part.place.gpu, part.place.offer)
}
