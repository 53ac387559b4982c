//! Where would a pod go? kube-scheduler's own filters first, then the extender's answer, node by node.

use stowage_shared::belief::{KEPT_FOR_GPU_PODS, NO_GPUS};
use stowage_shared::pack::Placement;
use stowage_shared::policy::{Rank, Want, WhyNot};
use stowage_shared::topology::draw_together;

use super::{Holder, NodeGpus, NodeState, PodFacts, World, in_tree};

/// What there is to say of a node to a pod.
#[derive(Debug, Clone, PartialEq)]
pub enum Verdict {
    /// It fits.
    Fits(Fit),
    /// It does not.
    Not(Not),
}

/// Where a pod would be placed on a node.
#[derive(Debug, Clone, PartialEq)]
pub struct Fit {
    /// How good the node is for it.
    pub rank: Rank,
    /// About what becomes of no use to the pods of this cluster, in thousandths of a GPU; `None` for pods without GPUs and
    /// with slices, for which the market does not rank.
    pub wastes: Option<i64>,
    /// The devices; nothing for a pod that asks for none.
    pub placement: Option<Placement>,
}

/// Why a pod does not fit a node.
#[derive(Debug, Clone, PartialEq)]
pub struct Not {
    /// Who says so.
    pub who: Who,
    /// The sentence in the pod's event.
    pub text: String,
    /// What the packing core or the policy said, where one of them did.
    pub why: Option<WhyNot>,
}

/// Who keeps a pod off a node.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Who {
    /// One of its own filters, before the extender is asked.
    KubeScheduler,
    /// Stowage.
    Stowage,
}

impl World {
    /// What each node says, in the order of the nodes.
    pub fn judge(&self, pod: &PodFacts) -> Vec<Verdict> {
        // A pod of a file may name a node that it is to be bound to; one that is bound does so for sure.
        let mut spec = pod.spec().clone();
        if !pod.uid().is_empty() {
            spec.node_name = None;
        }
        let own: Vec<Vec<String>> =
            self.nodes.iter().map(|node| in_tree::keeps_off(&spec, &pod.amounts, &node.facts)).collect();
        let elsewhere = || {
            let mut nodes = self.nodes.iter().zip(&own);
            nodes.any(|(node, own)| own.is_empty() && matches!(node.gpus, NodeGpus::None))
        };
        let verdict = |(node, own): (&NodeState, &Vec<String>)| match (&own[..], &pod.request, &pod.policy) {
            ([_, ..], ..) => Verdict::not(Who::KubeScheduler, own.join(", ")),
            (_, Err(error), _) => Verdict::not(Who::Stowage, error.to_string()),
            (_, Ok(request), _) if request.is_empty() => match node.gpus {
                NodeGpus::None => Verdict::Fits(Fit { rank: Rank::default(), wastes: None, placement: None }),
                _ if elsewhere() => Verdict::not(Who::Stowage, KEPT_FOR_GPU_PODS.into()),
                _ => Verdict::Fits(Fit { rank: Rank::default(), wastes: None, placement: None }),
            },
            (_, _, Err(error)) => Verdict::not(Who::Stowage, error.to_string()),
            (_, Ok(request), Ok(policy)) => self.fit(node, pod, &pod.want_of(request, policy)),
        };
        self.nodes.iter().zip(&own).map(verdict).collect()
    }

    /// What Stowage alone says of a node to a pod that asks for GPUs.
    pub fn fit_of(&self, node: &NodeState, pod: &PodFacts) -> Option<Verdict> {
        pod.want().map(|want| self.fit(node, pod, &want))
    }

    fn fit(&self, node: &NodeState, pod: &PodFacts, want: &Want) -> Verdict {
        let now = match &node.gpus {
            NodeGpus::None => return Verdict::not(Who::Stowage, NO_GPUS.into()),
            NodeGpus::Unknown(why) => return Verdict::not(Who::Stowage, why.text().into()),
            NodeGpus::Known { now, .. } => now,
        };
        match now.place(want, pod.namespace(), &self.mix) {
            Ok(mut placement) => {
                draw_together(&mut placement, &now.gpus, &[]);
                let cost = now.market_cost(want, &self.mix);
                let rank = Rank { market: cost, ..want.policy.rank(&now.gpus, placement.cost) };
                let market = self.mix.market().filter(|market| want.ranked_shape(market.stands()).is_some());
                let wastes = market.map(|_| cost);
                Verdict::Fits(Fit { rank, wastes, placement: Some(placement) })
            }
            Err(why) => Verdict::Not(Not { who: Who::Stowage, text: why.to_string(), why: Some(why) }),
        }
    }

    /// The best of these verdicts: the place of its node. Equals go by name, as the extender's do.
    pub fn best(verdicts: &[Verdict]) -> Option<usize> {
        let fits = verdicts.iter().enumerate().filter_map(|(at, verdict)| match verdict {
            Verdict::Fits(fit) => Some((fit.rank, at)),
            Verdict::Not(_) => None,
        });
        fits.min().map(|(_, at)| at)
    }

    /// Takes for a pod what it would get on a node.
    pub fn settle(&mut self, pod: &PodFacts, at: usize, fit: &Fit) {
        let node = &mut self.nodes[at];
        node.facts.free.take(&pod.amounts);
        let left = node.facts.free.host();
        let (NodeGpus::Known { now, holders }, Some(placement)) = (&mut node.gpus, &fit.placement) else {
            return;
        };
        now.host = left;
        for (resource, devices) in &placement.devices {
            for chosen in devices {
                now.gpus[chosen.gpu].take(chosen.offer, pod.share());
                now.company.join(chosen.gpu, pod.namespace(), pod.share_with());
                holders[chosen.gpu].push(Holder {
                    namespace: pod.namespace().into(),
                    pod: pod.name().into(),
                    resource: resource.clone(),
                    offer: chosen.offer,
                    count: 1,
                    share_with: pod.share_with(),
                });
            }
        }
    }
}

impl Verdict {
    fn not(who: Who, text: String) -> Self {
        Self::Not(Not { who, text, why: None })
    }
}
