//! Which shares a container gets where no plan says so and the configuration does.
//!
//! NVIDIA's plugin spreads shares over the GPUs (`distributed`) unless it is told to fill them up (`packed`), and so
//! does ours for pods that nobody planned: whoever comes from there must not find two pods on one GPU that had one
//! each. Where a GPU is offered in other forms as well, spreading would break into those, so there the packing core
//! chooses in any case. It also chooses where `packed` is asked for.

use std::cmp::Reverse;

use stowage_shared::pack::Chosen;

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

impl Book {
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
                    promised: promised.iter().filter(|other| **other == place).count(),
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
