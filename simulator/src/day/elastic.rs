//! Every GPU offered in every form, and the packing core deciding at each arrival.

use std::collections::VecDeque;
use std::sync::Arc;

use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use stowage_shared::gpu::{GpuKind, GpuKindError, Offer, Part};
use stowage_shared::mig::ProfileName;
use stowage_shared::models::Model;
use stowage_shared::moves::Cluster;
use stowage_shared::occupancy::GpuState;
use stowage_shared::pack::{Chosen, Demand, Mix};
use stowage_shared::resource::ResourceName;

use super::demand::{Form, STEPS, Week};
use super::{SERVED, ScaleDown};
use crate::gpu::on_demand;

/// The model of all GPUs, and its slices that pods ask for.
const MODEL: &str = "a100-40gb";
const PROFILES: [&str; 3] = ["1g.5gb", "2g.10gb", "3g.20gb"];
const SHARES: u32 = 4;

/// The least number of GPUs that serves every class, and how much of them is occupied then.
pub(super) fn least(week: &Week, scale_down: ScaleDown, seed: u64) -> Result<(usize, f64), GpuKindError> {
    let kind = Arc::new(kind()?);
    let try_out = |gpus: usize| Run::new(week, &kind, gpus, scale_down, seed).week();
    // What is wanted on average is not enough; twice as much surely is, or twice that.
    let mut most = Form::ALL
        .map(|form| week.of(form).iter().sum::<u64>() as f64 * form.gpus() / STEPS as f64)
        .iter()
        .sum::<f64>()
        .ceil() as usize;
    let mut fewest = most.max(1);
    let mut best = loop {
        most = (most + most / 3).max(1);
        match try_out(most) {
            Some(occupied) => break (most, occupied),
            None => fewest = most + 1,
        }
    };
    while fewest < best.0 {
        let middle = usize::midpoint(fewest, best.0);
        match try_out(middle) {
            Some(occupied) => best = (middle, occupied),
            None => fewest = middle + 1,
        }
    }
    Ok(best)
}

/// A GPU that may be whole, shared or cut, as its first user wants it.
fn kind() -> Result<GpuKind, GpuKindError> {
    let model = Model::by_key(MODEL).expect("the table of models has it");
    let whole = Offer {
        resource: ResourceName::gpu(),
        part: Part::Whole,
        replicas: None,
        distinct: false,
        capped: false,
    };
    let shares = Offer { resource: ResourceName::gpu().shared(), replicas: Some(SHARES), ..whole.clone() };
    let slices = model.geometry().map(|geometry| Offer::on_demand(geometry.slices(), &[]));
    let offers = [whole, shares].into_iter().chain(slices.into_iter().flatten()).collect();
    GpuKind::new(model.product, model.memory, offers)
}

fn demand(form: Form) -> Demand {
    let resource = match form {
        Form::Whole => ResourceName::gpu(),
        Form::Slice(profile) => {
            let name: ProfileName = PROFILES[profile].parse().expect("NVIDIA's own profile names");
            ResourceName::mig(&name)
        }
        Form::Share => ResourceName::gpu().shared(),
    };
    Demand::from([(resource, 1)])
}

/// A running pod: its GPU and what it has there. There is one GPU to a node.
type Pod = (usize, Vec<Chosen>);

struct Run<'a> {
    week: &'a Week,
    cluster: Cluster,
    demands: [Demand; 5],
    scale_down: ScaleDown,
    random: ChaCha8Rng,
    /// By service.
    running: Vec<Vec<Pod>>,
    /// Services by the arrival of their pods.
    waiting: VecDeque<usize>,
}

impl<'a> Run<'a> {
    fn new(week: &'a Week, kind: &Arc<GpuKind>, gpus: usize, scale_down: ScaleDown, seed: u64) -> Self {
        let nodes: Vec<Vec<GpuState>> =
            (0..gpus).map(|index| vec![GpuState::idle(Arc::new(on_demand(kind, index)))]).collect();
        let mix = Mix::prior(nodes.iter().flatten().map(|state| &*state.gpu));
        Self {
            week,
            cluster: Cluster::new(nodes, mix),
            demands: Form::ALL.map(demand),
            scale_down,
            random: ChaCha8Rng::seed_from_u64(seed),
            running: vec![Vec::new(); week.services.len()],
            waiting: VecDeque::new(),
        }
    }

    /// The mean share of the GPUs that is occupied; `None` where a class is not served.
    fn week(mut self) -> Option<f64> {
        let (mut wanted, mut served) = ([0_u64; 3], [0_u64; 3]);
        let mut occupied = 0.0;
        for step in 0..STEPS {
            self.shrink(step);
            self.grow(step);
            for (service, running) in self.week.services.iter().zip(&self.running) {
                let class = service.form.class();
                wanted[class] += u64::from(service.wanted[step]);
                served[class] += running.len() as u64;
                occupied += running.len() as f64 * service.form.gpus();
            }
        }
        let is_served = |(served, wanted): (&u64, &u64)| *served as f64 >= SERVED * *wanted as f64;
        let gpus = (self.cluster.len() * STEPS) as f64;
        served.iter().zip(&wanted).all(is_served).then_some(occupied / gpus)
    }

    /// Ends the pods that are not wanted any more: the waiting ones first, as a ReplicaSet does.
    fn shrink(&mut self, step: usize) {
        for service in 0..self.week.services.len() {
            let wanted = self.week.services[service].wanted[step] as usize;
            let queued = self.waiting.iter().filter(|&&waiting| waiting == service).count();
            let mut surplus = (self.running[service].len() + queued).saturating_sub(wanted);
            while surplus > 0
                && let Some(last) = self.waiting.iter().rposition(|&waiting| waiting == service)
            {
                self.waiting.remove(last);
                surplus -= 1;
            }
            for _ in 0..surplus {
                let victim = self.victim(service);
                let (node, devices) = self.running[service].swap_remove(victim);
                self.cluster.give_back(node, devices);
            }
        }
    }

    /// Which running pod of a service goes.
    fn victim(&mut self, service: usize) -> usize {
        let pods = &self.running[service];
        if self.scale_down == ScaleDown::Random {
            return self.random.random_range(0..pods.len());
        }
        let mut best = (0, None);
        for (at, (node, devices)) in pods.iter().enumerate() {
            let before = self.cluster.value_of(*node);
            self.cluster.give_back(*node, devices.iter().copied());
            // Where as much comes free, the pod with the fewest beside it goes.
            let after = self.cluster.value_of(*node);
            let frees = (after.saturating_sub(before), after);
            self.cluster.take(*node, devices.iter().copied());
            if best.1.is_none_or(|most| frees > most) {
                best = (at, Some(frees));
            }
        }
        best.0
    }

    /// Starts what is wanted, in the order of arrival, as far as there is room.
    fn grow(&mut self, step: usize) {
        for (service, of) in self.week.services.iter().enumerate() {
            let queued = self.waiting.iter().filter(|&&waiting| waiting == service).count();
            let missing = (of.wanted[step] as usize).saturating_sub(self.running[service].len() + queued);
            self.waiting.extend(std::iter::repeat_n(service, missing));
        }
        // What did not fit once does not fit later in this step: nobody leaves.
        let mut full = [false; 5];
        for service in std::mem::take(&mut self.waiting) {
            let form = self.week.services[service].form.index();
            let found = if full[form] { None } else { self.cluster.best(&self.demands[form], |_| true) };
            match found {
                Some((node, placement)) => {
                    let devices: Vec<Chosen> = placement.devices.values().flatten().copied().collect();
                    self.cluster.take(node, devices.iter().copied());
                    self.running[service].push((node, devices));
                }
                None => {
                    full[form] = true;
                    self.waiting.push_back(service);
                }
            }
        }
    }
}
