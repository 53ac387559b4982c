//! What pods hold: does it exist, is it theirs alone, is it what they ask for.

use std::collections::{BTreeMap, BTreeSet};

use super::{Audit, Kind, Place, Severity};
use crate::gpu::{Gpu, Part};
use crate::plan::Plan;
use crate::share::ShareSize;

impl Audit<'_> {
    /// Each device exists, is held by one pod, and excludes no other device in use.
    pub(super) fn devices(&mut self) {
        let mut holders: BTreeMap<(String, String), BTreeSet<String>> = BTreeMap::new();
        let mut in_use: BTreeMap<Place, BTreeSet<String>> = BTreeMap::new();
        let mut leftovers: Vec<(String, &str)> = Vec::new();
        for held in &self.view.allocations {
            for id in &held.device_ids {
                let who = format!("{}/{}", held.namespace, held.pod);
                holders.entry((held.resource.to_string(), id.clone())).or_default().insert(who.clone());
                match self.device(&held.resource, id) {
                    Some(place) => {
                        if let Some(why) = self.view.gpus[place.0].why_not(place.1) {
                            let text =
                                format!("{who} holds {id} of {}, which is unhealthy: {why}", held.resource);
                            self.find(Severity::Notice, Kind::Unhealthy, text);
                        }
                        in_use.entry(place).or_default().insert(who);
                    }
                    None if self.is_leftover(id) => {
                        let text = format!(
                            "{who} holds {id} of {}, which is not offered any more: nobody else gets it until {who} ends",
                            held.resource
                        );
                        self.find(Severity::Notice, Kind::Leftover, text);
                        leftovers.push((who, id));
                    }
                    None => {
                        let text =
                            format!("{who} holds {id} of {}, which the node does not have", held.resource);
                        self.find(Severity::Error, Kind::UnknownDevice, text);
                    }
                }
            }
        }
        for ((resource, id), pods) in holders.iter().filter(|(_, pods)| pods.len() > 1) {
            self.find(
                Severity::Error,
                Kind::DoubleUse,
                format!("{id} of {resource} is held by {}", list(pods)),
            );
        }
        for (who, id) in leftovers {
            for ((g, offer), others) in &in_use {
                let gpu = &self.view.gpus[*g];
                let touches = gpu.uuid.as_str() == part_of(id) || gpu.part_uuids[*offer] == part_of(id);
                let both_share = id != part_of(id) && gpu.kind.offers()[*offer].replicas.is_some();
                if touches && !both_share {
                    let text = format!("{who} holds {id}, and {} a part of it", list(others));
                    self.find(Severity::Error, Kind::Overlap, text);
                }
            }
        }
        let places: Vec<_> = in_use.into_iter().collect();
        for (i, ((g, one), first)) in places.iter().enumerate() {
            for ((h, two), second) in &places[i + 1..] {
                let offers = self.view.gpus[*g].kind.offers();
                if g == h && offers[*one].part.conflicts(&offers[*two].part) {
                    let gpu = self.view.gpus[*g].uuid.clone();
                    let (first, second) = (list(first), list(second));
                    self.find(
                        Severity::Error,
                        Kind::Overlap,
                        format!("{first} and {second} overlap on {gpu}"),
                    );
                }
            }
        }
    }

    /// Whether a device that is not offered is of a GPU or MIG device that is here. A token is none while its GPU is cut on
    /// demand: it lacks its slice.
    fn is_leftover(&self, id: &str) -> bool {
        let uuid = part_of(id);
        let is_token = id.matches("::").count() == 2;
        let is_cut = |gpu: &Gpu| gpu.part_uuids.iter().any(|part| part.is_empty() || part.contains("::"));
        let has = |gpu: &Gpu| gpu.uuid.as_str() == uuid || gpu.part_uuids.iter().any(|part| part == uuid);
        self.view.gpus.iter().any(|gpu| has(gpu) && !(is_token && is_cut(gpu)))
    }

    /// Each holder is a pod of this node, and each running pod holds what it asks for.
    pub(super) fn holders(&mut self) {
        for held in &self.view.allocations {
            let known = self.view.pods.iter().any(|pod| {
                pod.namespace == held.namespace
                    && pod.name == held.pod
                    && (held.uid.is_empty() || pod.uid == held.uid)
            });
            if !known {
                let text = format!(
                    "{} are held for {}/{}, which is not on this node",
                    held.device_ids.join(", "),
                    held.namespace,
                    held.pod
                );
                self.find(Severity::Warning, Kind::Leak, text);
            }
        }
        for pod in self.view.pods.iter().filter(|pod| pod.running) {
            for (resource, asked) in pod.request.total() {
                let has = self.held_by(pod, &resource).len();
                if has < asked as usize {
                    let text =
                        format!("{}/{} runs with {has} of {asked} {resource}", pod.namespace, pod.name);
                    self.find(Severity::Warning, Kind::Missing, text);
                }
            }
        }
    }

    /// The shares of a GPU fit into its memory, if any pod says how much it needs.
    pub(super) fn memory(&mut self) {
        /// Who holds a share, and its size where the pod says it.
        type Share = (String, Option<ShareSize>);
        let mut shares: BTreeMap<Place, BTreeMap<&str, Share>> = BTreeMap::new();
        for held in &self.view.allocations {
            let pod =
                self.view.pods.iter().find(|pod| pod.namespace == held.namespace && pod.name == held.pod);
            let size = pod.and_then(|pod| Plan::share_of(pod.plan.as_ref(), &pod.request));
            for id in &held.device_ids {
                if let Some(place) = self.device(&held.resource, id) {
                    let who = format!("{}/{}", held.namespace, held.pod);
                    shares.entry(place).or_default().insert(id, (who, size));
                }
            }
        }
        for ((g, offer), shares) in shares {
            let (gpu, offer) = (&self.view.gpus[g], &self.view.gpus[g].kind.offers()[offer]);
            let (Some(replicas), memory) = (offer.replicas, gpu.kind.memory()) else { continue };
            if offer.part != Part::Whole || shares.values().all(|(_, size)| size.is_none()) {
                continue;
            }
            let equal = memory.0 / u64::from(replicas.max(1));
            let of = |size: &Option<ShareSize>| size.map_or(equal, |size| size.of(memory).0);
            let all = shares.values().fold(0_u64, |sum, (_, size)| sum.saturating_add(of(size)));
            if all > memory.0 {
                let who: BTreeSet<String> = shares.into_values().map(|(who, _)| who).collect();
                let text = format!("{all} MiB of the {memory} of {} are shares of {}", gpu.uuid, list(&who));
                self.find(Severity::Warning, Kind::Overcommit, text);
            }
        }
    }
}

/// The UUID that a device id begins with.
fn part_of(id: &str) -> &str {
    id.split_once("::").map_or(id, |(part, _)| part)
}

fn list(names: &BTreeSet<String>) -> String {
    names.iter().map(String::as_str).collect::<Vec<_>>().join(" and ")
}
