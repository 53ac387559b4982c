//! A node with who is on its GPUs, and what a pod wants of it.

use std::sync::Arc;

use super::{Node, Occupant, Packing, Policy, PolicyError, Rank, Reserve, ShareWith, WhyNot, place};
use crate::host::Host;
use crate::occupancy::GpuState;
use crate::pack::fleet::Shape;
use crate::pack::{self, Demand, Lot, Mix, Placement, Stands};
use crate::request::Request;

/// What a pod wants of a node: devices, by its policy. Pods that want the same are of one shape.
#[derive(Debug, Clone, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Want {
    /// The devices.
    pub demand: Demand,
    /// What else it wants of them.
    pub policy: Policy,
    /// What it asks for beside them. Whether that is there is kube-scheduler's question.
    pub host: Host,
}

impl Want {
    /// What a pod of this request wants; `None` where it asks for no GPU. `annotation` looks up what it says.
    ///
    /// # Errors
    /// [`PolicyError`]; whatever a pod says that asks for no GPU is not read.
    pub fn of<'a>(
        request: &Request,
        annotation: impl Fn(&str) -> Option<&'a str>,
    ) -> Result<Option<Self>, PolicyError> {
        if request.is_empty() {
            return Ok(None);
        }
        Ok(Some(Self { demand: request.demand(), policy: Policy::read(annotation)?, host: Host::default() }))
    }

    /// What a pod to come that wants the same is to the [`Market`](pack::Market); `None` where that knows nothing of such
    /// requests.
    pub fn shape(&self, stands: &Stands) -> Option<Shape> {
        stands.shape(&self.demand, self.host, |model, memory| self.policy.allows_model(model, memory).is_ok())
    }

    /// The same where the market says what it costs: not for slices, of which the packing core knows better where
    /// they are missed least.
    pub fn ranked_shape(&self, stands: &Stands) -> Option<Shape> {
        self.shape(stands).filter(|shape| !shape.slice)
    }
}

/// Without a policy.
impl From<Demand> for Want {
    fn from(demand: Demand) -> Self {
        Self { demand, ..Self::default() }
    }
}

/// Who is on the GPUs of a node: namespaces, each once on a GPU.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Company {
    /// In order.
    guests: Vec<Guest>,
    keeps: bool,
}

#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Guest {
    gpu: usize,
    namespace: Arc<str>,
    share_with: ShareWith,
}

impl Company {
    /// A pod of a namespace has something of a GPU, given by its place among the node's.
    pub fn join(&mut self, gpu: usize, namespace: &str, share_with: ShareWith) {
        let known = self.guests.iter().find(|guest| &*guest.namespace == namespace);
        let namespace = known.map_or_else(|| namespace.into(), |guest| guest.namespace.clone());
        let guest = Guest { gpu, namespace, share_with };
        if let Err(at) = self.guests.binary_search(&guest) {
            self.keeps |= share_with == ShareWith::Namespace;
            self.guests.insert(at, guest);
        }
    }

    /// Whether any pod there wants no other namespace beside it. If none does, and a pod shares with anyone, it does
    /// not matter to it who is there.
    pub fn keeps(&self) -> bool {
        self.keeps
    }

    /// The GPUs that a pod of this policy, in `namespace`, may not join because of who is there; some more than once.
    pub fn barred<'a>(
        &'a self,
        policy: &'a Policy,
        namespace: &'a str,
    ) -> impl Iterator<Item = usize> + use<'a> {
        let alone = policy.share_with == ShareWith::Namespace;
        let bars = move |guest: &&Guest| {
            &*guest.namespace != namespace && (alone || guest.share_with == ShareWith::Namespace)
        };
        let guests = if alone || self.keeps { &self.guests[..] } else { &[] };
        guests.iter().filter(bars).map(|guest| guest.gpu)
    }

    /// Who is on each of so many GPUs.
    pub fn occupants(&self, gpus: usize) -> Vec<Vec<Occupant<'_>>> {
        let mut occupants = vec![Vec::new(); gpus];
        for guest in &self.guests {
            if let Some(on_gpu) = occupants.get_mut(guest.gpu) {
                on_gpu.push(Occupant { namespace: &guest.namespace, share_with: guest.share_with });
            }
        }
        occupants
    }
}

/// The GPUs of a node, what of them is in use or promised, and who is there.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Occupied {
    /// The GPUs.
    pub gpus: Vec<GpuState>,
    /// Who is on them.
    pub company: Company,
    /// What the node keeps for large pods.
    pub reserve: Reserve,
    /// What else it has left.
    pub host: Host,
}

impl Occupied {
    /// Places what a pod in `namespace` wants: where the [`Market`](pack::Market) would, if that knows such requests, else
    /// where the packing core and the policies would.
    ///
    /// # Errors
    /// [`WhyNot`]: whether it fits, and why not, depends on the packing core and the policies alone.
    pub fn place(&self, want: &Want, namespace: &str, mix: &Mix) -> Result<Placement, WhyNot> {
        let placement = self.place_without_market(want, namespace, mix)?;
        Ok(self.place_by_market(want, namespace, mix, &placement).unwrap_or(placement))
    }

    /// A placement on the GPU that costs least, where the one at hand is not there.
    fn place_by_market(
        &self,
        want: &Want,
        namespace: &str,
        mix: &Mix,
        at_hand: &Placement,
    ) -> Option<Placement> {
        let market = mix.market().filter(|_| want.policy.placement == Packing::Binpack)?;
        let shape = want.ranked_shape(market.stands())?;
        let best = market.best_gpus(&market.stands().lots(&self.gpus, self.host), &shape)?;
        let mut chosen = at_hand.devices.values().flatten();
        if chosen.all(|chosen| best.contains(&chosen.gpu)) || self.to_leave_idle(want) != Ok(0) {
            return None;
        }
        let mut placement = self.only(&best).place_anywhere(want, namespace, mix).ok()?;
        placement.devices.values_mut().flatten().for_each(|chosen| chosen.gpu = best[chosen.gpu]);
        Some(Placement { cost: at_hand.cost, ..placement })
    }

    /// Without a policy, the pod's own, that of a pod there or of the node, this is the packing core's answer and costs
    /// no more.
    fn place_without_market(&self, want: &Want, namespace: &str, mix: &Mix) -> Result<Placement, WhyNot> {
        match self.reserve {
            Reserve::None => self.place_anywhere(want, namespace, mix),
            _ => self.place_beside_kept(want, namespace, mix),
        }
    }

    /// The same, whatever the node keeps for large pods.
    pub(super) fn place_anywhere(
        &self,
        want: &Want,
        namespace: &str,
        mix: &Mix,
    ) -> Result<Placement, WhyNot> {
        if want.policy.is_default() && !self.company.keeps {
            return Ok(pack::place(&self.gpus, &want.demand, mix)?);
        }
        let occupants = self.company.occupants(self.gpus.len());
        let node = Node { gpus: &self.gpus, occupants: &occupants };
        place(node, &want.demand, mix, &want.policy, namespace)
    }

    /// Some of its GPUs, with who is there.
    pub(super) fn only(&self, some: &[usize]) -> Self {
        let gpus = some.iter().map(|&gpu| self.gpus[gpu].clone()).collect();
        let mut only = Self { gpus, host: self.host, ..Self::default() };
        for guest in &self.company.guests {
            if let Some(gpu) = some.iter().position(|&gpu| gpu == guest.gpu) {
                only.company.join(gpu, &guest.namespace, guest.share_with);
            }
        }
        only
    }

    /// How good the GPUs of this node are for the pod, if it fits, whatever the market says of the node.
    ///
    /// # Errors
    /// [`WhyNot`].
    pub fn rank(&self, want: &Want, namespace: &str, mix: &Mix) -> Result<Rank, WhyNot> {
        Ok(want.policy.rank(&self.gpus, self.place_without_market(want, namespace, mix)?.cost))
    }

    /// What the node has left, as the market sees it.
    pub fn lots(&self, stands: &Stands) -> Vec<Lot> {
        stands.lots(&self.gpus, self.host)
    }

    /// What a pod costs the pods to come on this node: [`Rank::market`].
    pub fn market_cost(&self, want: &Want, mix: &Mix) -> i64 {
        let Some(market) = mix.market() else { return 0 };
        let Some(shape) = want.ranked_shape(market.stands()) else { return 0 };
        market.cost(self.lots(market.stands()).iter().map(|lot| &lot.node), &shape)
    }

    /// Counts a placement as in use.
    pub fn settle(&mut self, placement: &Placement, want: &Want, namespace: &str) {
        for chosen in placement.devices.values().flatten() {
            self.gpus[chosen.gpu].take(chosen.offer, want.demand.share);
            self.company.join(chosen.gpu, namespace, want.policy.share_with);
        }
        self.host.take(want.host);
    }

    /// Places what a pod wants and counts it as in use; where it does not fit, nothing changes.
    pub fn take(&mut self, want: &Want, namespace: &str, mix: &Mix) -> Option<Placement> {
        let placement = self.place(want, namespace, mix).ok()?;
        self.settle(&placement, want, namespace);
        Some(placement)
    }
}
