//! A node with who is on its GPUs, and what a pod wants of it.

use std::sync::Arc;

use super::{Node, Occupant, Policy, PolicyError, Rank, Reserve, ShareWith, WhyNot, place};
use crate::occupancy::GpuState;
use crate::pack::{self, Demand, Mix, Placement};
use crate::request::Request;

/// What a pod wants of a node: devices, by its policy. Pods that want the same are of one shape.
#[derive(Debug, Clone, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Want {
    /// The devices.
    pub demand: Demand,
    /// What else it wants of them.
    pub policy: Policy,
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
        Ok(Some(Self { demand: request.demand(), policy: Policy::read(annotation)? }))
    }
}

/// Without a policy.
impl From<Demand> for Want {
    fn from(demand: Demand) -> Self {
        Self { demand, policy: Policy::default() }
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
}

impl Occupied {
    /// Places what a pod in `namespace` wants. Without a policy, its own, that of a pod there or of the node, this is the
    /// packing core's answer and costs no more.
    ///
    /// # Errors
    /// [`WhyNot`].
    pub fn place(&self, want: &Want, namespace: &str, mix: &Mix) -> Result<Placement, WhyNot> {
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
        let mut only = Self { gpus, ..Self::default() };
        for guest in &self.company.guests {
            if let Some(gpu) = some.iter().position(|&gpu| gpu == guest.gpu) {
                only.company.join(gpu, &guest.namespace, guest.share_with);
            }
        }
        only
    }

    /// How good this node is for the pod, if it fits.
    ///
    /// # Errors
    /// [`WhyNot`].
    pub fn rank(&self, want: &Want, namespace: &str, mix: &Mix) -> Result<Rank, WhyNot> {
        Ok(want.policy.rank(&self.gpus, self.place(want, namespace, mix)?.cost))
    }

    /// Counts a placement as in use.
    pub fn settle(&mut self, placement: &Placement, want: &Want, namespace: &str) {
        for chosen in placement.devices.values().flatten() {
            self.gpus[chosen.gpu].take(chosen.offer, want.demand.share);
            self.company.join(chosen.gpu, namespace, want.policy.share_with);
        }
    }

    /// Places what a pod wants and counts it as in use; where it does not fit, nothing changes.
    pub fn take(&mut self, want: &Want, namespace: &str, mix: &Mix) -> Option<Placement> {
        let placement = self.place(want, namespace, mix).ok()?;
        self.settle(&placement, want, namespace);
        Some(placement)
    }
}
