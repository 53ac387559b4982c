//! A world around the book, and what must hold in it: rule by rule, and for any sequence of events.

mod properties;
mod rules;
mod shares;
mod slices;
mod walk;

use std::collections::BTreeSet;

use stowage_shared::audit::{Kind, NodeView, PodView, audit};
use stowage_shared::contract::PLAN_ANNOTATION;
use stowage_shared::pod::{PodSpec, PodStatus};
use stowage_shared::reckon::{Held, NodePod, reckon};

use super::*;
use crate::config::MigStrategy;
use crate::fixture::inventory;

const NODE: &str = "n1";

fn resource(name: &str) -> ResourceName {
    format!("nvidia.com/{name}").parse().unwrap()
}

/// Containers such as `gpu=1`, `init gpu.shared=2` or `sidecar mig-1g.5gb=1`, with commas between.
fn spec(containers: &str) -> PodSpec {
    let (mut init, mut apps) = (Vec::new(), Vec::new());
    for (number, text) in containers.split(", ").enumerate() {
        let (role, devices) = text.rsplit_once(' ').unwrap_or(("", text));
        let (name, count) = devices.split_once('=').unwrap();
        let policy = if role == "sidecar" { "Always" } else { "" };
        let container = serde_json::json!({"name": format!("c{number}"), "restartPolicy": policy,
            "resources": {"limits": {format!("nvidia.com/{name}"): count}}});
        if role.is_empty() {
            apps.push(container)
        } else {
            init.push(container)
        };
    }
    serde_json::from_value(serde_json::json!({"initContainers": init, "containers": apps, "nodeName": NODE}))
        .unwrap()
}

/// A node with a kubelet that keeps the device manager's books, an extender that plans, and our book.
struct World {
    book: Book,
    pods: Vec<WorldPod>,
    held: Vec<Holding>,
    now: Duration,
    next: u32,
}

#[derive(Clone)]
struct WorldPod {
    name: String,
    spec: PodSpec,
    plan: Option<String>,
    admitted: bool,
    /// Devices that the kubelet keeps for it, init containers' among them.
    kept: BTreeSet<(ResourceName, String)>,
}

impl WorldPod {
    fn uid(&self) -> String {
        format!("uid-{}", self.name)
    }

    fn seen(&self) -> PodSeen {
        let key = ("default".into(), self.name.clone(), self.uid());
        PodSeen::of(key, 0, self.plan.clone(), &self.spec, &PodStatus::default())
    }
}

impl World {
    /// Two whole GPUs, two GPUs of slices; or, `shared`, three GPUs of three shares.
    fn new(shared: bool) -> Self {
        let inventory = if shared {
            inventory(&["whole"; 3], MigStrategy::None, "rename gpu=3")
        } else {
            let cut = "1g.5gb@0 1g.5gb@1 2g.10gb@2 3g.20gb@4";
            inventory(&["whole", "whole", cut, cut], MigStrategy::Mixed, "")
        };
        let book = Book::new(NODE, Arc::new(inventory.unwrap()));
        Self { book, pods: Vec::new(), held: Vec::new(), now: Duration::ZERO, next: 0 }
    }

    /// Binds a pod, with a plan if `planned` and if it fits. `None`: it does not fit.
    fn bind(&mut self, containers: &str, planned: bool) -> Option<usize> {
        let spec = spec(containers);
        let request = Request::of_standard(&spec).unwrap();
        let gpus = self.book.inventory().gpus().to_vec();
        let known: Vec<(String, Request, Option<Plan>)> = self
            .pods
            .iter()
            .map(|pod| {
                let request = Request::of_standard(&pod.spec).unwrap();
                let plan = pod.plan.as_ref().map(|text| Plan::parse(text).unwrap());
                (pod.uid(), request, plan)
            })
            .collect();
        let pods: Vec<NodePod<'_>> = known
            .iter()
            .map(|(uid, request, plan)| NodePod {
                uid,
                namespace: "",
                share_with: Default::default(),
                request,
                plan: plan.as_ref(),
            })
            .collect();
        let uids: Vec<String> = self.held.iter().map(|held| format!("uid-{}", held.pod)).collect();
        let held: Vec<Held<'_>> = self
            .held
            .iter()
            .zip(&uids)
            .map(|(held, uid)| Held {
                uid,
                namespace: "",
                resource: &held.resource,
                device_ids: &held.device_ids,
            })
            .collect();
        let states = reckon(&gpus, &held, &pods).gpus;
        let mix = stowage_shared::pack::Mix::prior(gpus.iter().map(|gpu| &**gpu));
        let placement = stowage_shared::pack::place(&states, &request.demand(), &mix).ok()?;
        let name = format!("p{}", self.next);
        self.next += 1;
        let plan = planned.then(|| {
            let containers = placement.to_plan(&states, &request);
            Plan { uid: format!("uid-{name}"), node: NODE.into(), containers }.to_annotation().unwrap()
        });
        self.pods.push(WorldPod { name, spec, plan, admitted: false, kept: BTreeSet::new() });
        Some(self.pods.len() - 1)
    }

    fn tell(&mut self, pod: usize) {
        let seen = self.pods[pod].seen();
        self.book.apply(Event::Pod(seen));
    }

    /// Admits a pod as the device manager does: container by container, the reusable devices first, then the
    /// preferred ones that are free, then any. `pick` stands for the order of a Go map.
    fn admit(&mut self, pod: usize, pick: usize) {
        let request = Request::of_standard(&self.pods[pod].spec).unwrap();
        let mut reusable: BTreeSet<(ResourceName, String)> = BTreeSet::new();
        for container in request.containers() {
            for (resource, &count) in &container.devices {
                let count = count as usize;
                let mut got: BTreeSet<String> = reusable
                    .iter()
                    .filter(|(r, _)| r == resource)
                    .map(|(_, id)| id.clone())
                    .take(count)
                    .collect();
                if got.len() < count {
                    let all = self.book.inventory().devices();
                    let used = |id: &String| {
                        self.pods.iter().any(|pod| pod.kept.contains(&(resource.clone(), id.clone())))
                    };
                    let mut free: Vec<String> = all
                        .get(resource)
                        .into_iter()
                        .flatten()
                        .map(|d| d.id.clone())
                        .filter(|id| !used(id))
                        .collect();
                    if free.len() < count - got.len() {
                        // `UnexpectedAdmissionError`: the pod has failed, and what it got is free again.
                        return self.end(pod);
                    }
                    let must: Vec<String> = got.iter().cloned().collect();
                    let available: Vec<String> = free.iter().chain(&must).cloned().collect();
                    let choice = self.choose(resource, &available, &must, count);
                    let preferred: Vec<String> =
                        choice.ids.into_iter().filter(|id| free.contains(id)).collect();
                    let turn = pick % free.len().max(1);
                    free.rotate_left(turn);
                    for id in preferred.into_iter().chain(free) {
                        if got.len() < count {
                            got.insert(id);
                        }
                    }
                }
                for id in &got {
                    let device = (resource.clone(), id.clone());
                    self.pods[pod].kept.insert(device.clone());
                    let is_init = container.role == stowage_shared::request::Role::Init;
                    if is_init {
                        reusable.insert(device)
                    } else {
                        reusable.remove(&device)
                    };
                }
                let ids: Vec<String> = got.into_iter().collect();
                self.now += Duration::from_millis(1);
                self.book.apply(Event::Allocated {
                    resource: resource.clone(),
                    ids: ids.clone(),
                    at: self.now,
                });
                if container.role != stowage_shared::request::Role::Init {
                    let pod = self.pods[pod].name.clone();
                    let (namespace, container) = ("default".into(), container.name.clone());
                    self.held.push(Holding {
                        namespace,
                        pod,
                        container,
                        resource: resource.clone(),
                        device_ids: ids,
                    });
                }
            }
        }
        self.pods[pod].admitted = true;
    }

    /// Asks the book, and holds it to its contract.
    fn choose(&self, resource: &ResourceName, available: &[String], must: &[String], size: usize) -> Choice {
        let choice = self.book.choose(&Ask { resource, available, must_include: must, size });
        let unique: BTreeSet<&String> = choice.ids.iter().collect();
        assert_eq!(unique.len(), choice.ids.len(), "no device twice");
        assert!(choice.ids.iter().all(|id| available.contains(id)), "only what is available");
        if !choice.ids.is_empty() {
            assert_eq!(choice.ids.len(), size, "as many as asked for");
            assert!(must.iter().all(|id| choice.ids.contains(id)), "with what must be included");
        }
        choice
    }

    fn list(&mut self) {
        self.now += Duration::from_millis(1);
        let held = self.held.clone();
        self.book.apply(Event::PodResources { held, asked_at: self.now });
    }

    fn end(&mut self, pod: usize) {
        let pod = self.pods.remove(pod);
        self.held.retain(|held| held.pod != pod.name);
        self.book.apply(Event::PodGone { uid: pod.uid() });
    }

    /// What the independent judge says, by kind.
    fn findings(&mut self) -> Vec<Kind> {
        self.list();
        let view = NodeView {
            node: NODE.into(),
            gpus: self.book.inventory().gpus().iter().map(|gpu| (**gpu).clone()).collect(),
            allocations: self.book.allocations(),
            pods: self
                .pods
                .iter()
                .filter_map(|pod| {
                    let uid = pod.uid();
                    PodView::of(
                        ("default", &pod.name, &uid),
                        |key| pod.plan.as_deref().filter(|_| key == PLAN_ANNOTATION),
                        &pod.spec,
                        &PodStatus::default(),
                        NODE,
                    )
                })
                .collect(),
        };
        audit(&view).into_iter().map(|finding| finding.kind).collect()
    }

    /// The devices of a pod, e.g. `GPU-1::0`.
    fn devices(&self, pod: usize) -> String {
        self.pods[pod].kept.iter().map(|(_, id)| id.as_str()).collect::<Vec<_>>().join(" ")
    }
}
