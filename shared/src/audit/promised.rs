//! What pods were promised: does it exist, is it promised once, is it what they got.

use std::collections::BTreeMap;

use super::{Audit, Kind, Place, Severity};
use crate::plan::{Plan, PlannedDevice};
use crate::resource::ResourceName;
use crate::share::ShareSize;

/// Within which plans swap: the resource, how many, and the size of each share.
type Shape = (ResourceName, u32, Option<ShareSize>);

impl Audit<'_> {
    /// Each plan names devices that exist, and no device is promised beyond what it can hold. Where a pod holds
    /// what it asked for, its plan is history, and what it holds counts. Plans of one shape may be swapped: a pod
    /// that waits, and whose device another of its shape took, gets what that one left.
    pub(super) fn plans(&mut self) {
        let mut promised: BTreeMap<Place, Vec<String>> = BTreeMap::new();
        let mut left: BTreeMap<Shape, Vec<Place>> = BTreeMap::new();
        let mut held: Vec<(Shape, Place)> = Vec::new();
        let mut waiting: Vec<(Shape, &str, Vec<Place>, usize)> = Vec::new();
        for pod in &self.view.pods {
            let (asked, share) = (pod.request.total(), Plan::share_of(pod.plan.as_ref(), &pod.request));
            for (resource, devices) in pod.plan.iter().flat_map(|plan| plan.sets(&pod.request)) {
                let count = asked.get(&resource).copied().unwrap_or_default();
                let shape = (resource.clone(), count, share);
                let has = self.held_by(pod, &resource);
                let missing = (count as usize).saturating_sub(has.len());
                for place in has.into_iter().filter_map(|id| self.device(&resource, id)) {
                    promised.entry(place).or_default().push(pod.name.clone());
                    held.push((shape.clone(), place));
                }
                let mut own = Vec::new();
                for device in devices {
                    match device.locate(&self.view.gpus, &resource) {
                        Some(place) => {
                            let why = self.view.gpus[place.0].why_not(place.1).filter(|_| missing > 0);
                            if let Some(why) = why {
                                let text = format!(
                                    "{}/{} was promised {resource} on {}, which is unhealthy: {why}",
                                    pod.namespace, pod.name, device.gpu
                                );
                                self.find(Severity::Notice, Kind::Unhealthy, text);
                            }
                            own.push(place);
                        }
                        None if missing == 0 => {}
                        None => {
                            let text = format!(
                                "{}/{} was promised {resource} on {}, which is not offered there",
                                pod.namespace, pod.name, device.gpu
                            );
                            self.find(Severity::Warning, Kind::PlanWithoutDevice, text);
                        }
                    }
                }
                left.entry(shape.clone()).or_default().extend(&own);
                waiting.push((shape, &pod.name, own, missing));
            }
        }
        let mut take = |shape: &Shape, place: Place| {
            let left = left.get_mut(shape)?;
            let at = left.iter().position(|&other| other == place)?;
            Some(left.swap_remove(at))
        };
        for (shape, place) in &held {
            take(shape, *place);
        }
        // Each its own first, then whatever the others of its shape left.
        for (shape, pod, own, missing) in &mut waiting {
            let got: Vec<Place> = own.iter().filter_map(|&place| take(shape, place)).take(*missing).collect();
            *missing -= got.len();
            got.into_iter().for_each(|place| promised.entry(place).or_default().push((*pod).to_owned()));
        }
        for (shape, pod, _, missing) in waiting {
            let left = left.entry(shape).or_default();
            let swapped = left.split_off(left.len().saturating_sub(missing));
            swapped.into_iter().for_each(|place| promised.entry(place).or_default().push(pod.to_owned()));
        }
        for ((g, offer), pods) in promised {
            let gpu = &self.view.gpus[g];
            let most = gpu.kind.offers()[offer].device_count() as usize;
            if pods.len() > most {
                let text = format!(
                    "{} of {} can hold {most}, promised to {}",
                    gpu.kind.offers()[offer].resource,
                    gpu.uuid,
                    pods.join(", ")
                );
                self.find(Severity::Warning, Kind::DoublePlan, text);
            }
        }
    }

    /// What pods of one shape hold, taken together, is what their plans say. Pods that hold nothing yet may
    /// still get any of the rest, so what is held must be among what was planned.
    pub(super) fn drift(&mut self) {
        let mut planned: BTreeMap<Shape, Vec<PlannedDevice>> = BTreeMap::new();
        let mut held: BTreeMap<Shape, Vec<(String, PlannedDevice)>> = BTreeMap::new();
        for pod in &self.view.pods {
            let Some(plan) = &pod.plan else { continue };
            let mut sets = plan.sets(&pod.request);
            for (resource, asked) in pod.request.total() {
                let shape = (resource.clone(), asked, Plan::share_of(Some(plan), &pod.request));
                // Where it is, not how large: the size is its shape's.
                let set = sets.remove(&resource).unwrap_or_default().into_iter();
                let places = set.map(|device| PlannedDevice { memory: None, ..device });
                planned.entry(shape.clone()).or_default().extend(places);
                let devices =
                    self.held_by(pod, &resource).into_iter().filter_map(|id| self.device(&resource, id));
                let devices = devices.map(|(g, offer)| {
                    let gpu = &self.view.gpus[g];
                    (format!("{}/{}", pod.namespace, pod.name), PlannedDevice::of(gpu, offer, None))
                });
                held.entry(shape).or_default().extend(devices);
            }
        }
        for (shape, devices) in held {
            let mut left = planned.remove(&shape).unwrap_or_default();
            for (who, device) in devices {
                match left.iter().position(|other| other == &device) {
                    Some(at) => drop(left.swap_remove(at)),
                    None => {
                        let text = format!(
                            "{who} holds {} on {}, which no plan of its shape names (any more)",
                            shape.0, device.gpu
                        );
                        self.find(Severity::Notice, Kind::Drift, text);
                    }
                }
            }
        }
    }
}
