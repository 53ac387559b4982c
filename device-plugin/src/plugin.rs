//! What the tasks of the plugin share: the book, and what is known of the outside.
//!
//! The book is changed in short steps that never wait ([`Plugin::record`]); whoever wants to act on a change
//! subscribes. What an event means is logged and counted here, in one place, so that the two cannot drift apart.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::DescriptorEncoder;
use prometheus_client::registry::Registry;
use stowage_shared::resource::ResourceName;
use tokio::sync::{Notify, watch};

use crate::answer::AnswerRules;
use crate::book::{Book, Event, Notice, PodSeen};
use crate::config::{Config, GpuNames};
use crate::inventory::{Inventory, ListedDevice};
use crate::metrics::Metrics;

/// What the tasks share.
pub struct Plugin {
    /// The book; subscribe to see it change.
    pub book: watch::Sender<Book>,
    /// How devices are told to containers.
    answers: Mutex<Arc<AnswerRules>>,
    /// Whether a container may ask for one share only.
    pub fail_requests_greater_than_one: bool,
    /// Which resources are GPUs.
    pub gpu_names: GpuNames,
    /// What is counted.
    pub metrics: Metrics,
    /// Wakes the task that asks pod-resources: something was allocated, or a pod went.
    pub holders_changed: Notify,
    /// Why each resource is not offered to the kubelet just now; `None` while it is.
    offered: Mutex<BTreeMap<ResourceName, Option<String>>>,
    /// Why the GPUs cannot be read or offered.
    gpus_fault: Mutex<Option<String>>,
    started: Instant,
}

impl Plugin {
    /// Nothing has happened yet.
    pub fn new(book: Book, answers: AnswerRules, config: &Config) -> Self {
        let one_share = config.sharing.as_ref().is_some_and(|sharing| sharing.fail_requests_greater_than_one);
        let waits = Some("it is not registered with the kubelet yet".to_owned());
        let offered = book.inventory().resources().into_iter().map(|resource| (resource, waits.clone()));
        Self {
            offered: Mutex::new(offered.collect()),
            book: watch::Sender::new(book),
            answers: Mutex::new(Arc::new(answers)),
            fail_requests_greater_than_one: one_share,
            gpu_names: config.gpu_names(),
            metrics: Metrics::default(),
            holders_changed: Notify::new(),
            gpus_fault: Mutex::default(),
            started: Instant::now(),
        }
    }

    /// Makes what is counted readable.
    pub fn register(self: &Arc<Self>, registry: &mut Registry) {
        self.metrics.register(registry);
        // A registry asks its collectors before those below it, and the plugin's metrics are in one below.
        registry.register_collector(Box::new(Recount(self.clone())));
    }

    /// How devices are told to containers.
    pub fn answers(&self) -> Arc<AnswerRules> {
        self.answers.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Tells devices in another way from now on.
    pub fn set_answers(&self, answers: AnswerRules) {
        *self.answers.lock().unwrap_or_else(PoisonError::into_inner) = Arc::new(answers);
    }

    /// The resources that have devices.
    pub fn resources(&self, book: &Book) -> BTreeSet<ResourceName> {
        book.inventory().resources()
    }

    /// The devices of a resource, as the kubelet is told them.
    pub fn listed(&self, book: &Book, resource: &ResourceName) -> Vec<ListedDevice> {
        book.listed(resource)
    }

    /// Lets there be other GPUs, or other health, from now on.
    pub fn set_inventory(&self, inventory: Inventory) {
        self.record(Event::Inventory(Arc::new(inventory)));
    }

    fn count_devices(&self) {
        let book = self.book.borrow();
        for resource in self.resources(&book) {
            self.metrics.count_devices(&resource, &self.listed(&book, &resource));
        }
    }

    fn offered(&self) -> MutexGuard<'_, BTreeMap<ResourceName, Option<String>>> {
        self.offered.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Time since the start: the book's clock.
    pub fn now(&self) -> std::time::Duration {
        self.started.elapsed()
    }

    /// Lets the book take note of an event; logs and counts what it meant.
    pub fn record(&self, event: Event) {
        let frees = match &event {
            Event::PodGone { .. } | Event::Pods(_) | Event::Allocated { .. } => true,
            Event::Pod(pod) => pod.terminal,
            Event::FoundPod(_)
            | Event::PodResources { .. }
            | Event::Inventory(_)
            | Event::Refused { .. }
            | Event::Starts { .. }
            | Event::Restored(_) => false,
        };
        let mut notices = Vec::new();
        self.book.send_modify(|book| notices = book.apply(event));
        if frees {
            self.holders_changed.notify_one();
        }
        for notice in notices {
            self.tell(&notice);
        }
    }

    /// Takes note of a pod, unless it asks for no GPU and never did: most pods of a node are like that, and
    /// nobody need wake up for them.
    pub fn record_pod(&self, pod: PodSeen) {
        let is_known = self.book.borrow().knows_pod(&pod.uid);
        if is_known || pod.request.as_ref().is_ok_and(|request| !request.is_empty()) {
            self.record(Event::Pod(pod));
        }
    }

    fn tell(&self, notice: &Notice) {
        match notice {
            Notice::PlanIgnored { namespace, pod, uid, error } => {
                self.metrics.plan_ignored();
                tracing::warn!(
                    pod.namespace = namespace,
                    pod.name = pod,
                    pod.uid = uid,
                    %error,
                    "The pod's plan is ignored."
                );
            }
            Notice::Allocated(served) => self.metrics.allocated(*served),
        }
    }

    /// Says whether a resource is offered to the kubelet; `why_not` is a sentence's end.
    pub fn set_offered(&self, resource: &ResourceName, why_not: Option<String>) {
        self.offered().insert(resource.clone(), why_not);
    }

    /// A resource has no device left: that it is not offered is no fault.
    pub fn forget_offered(&self, resource: &ResourceName) {
        self.offered().remove(resource);
        self.metrics.count_devices(resource, &[]);
    }

    /// Says why the GPUs cannot be read or offered; `None` once they can.
    pub fn set_gpus_fault(&self, why: Option<String>) {
        *self.gpus_fault.lock().unwrap_or_else(PoisonError::into_inner) = why;
    }
}

impl ops::http::Health for Plugin {
    /// A task that ends takes the process with it, so a process that answers is one that a restart does not help.
    fn live(&self) -> Result<(), String> {
        Ok(())
    }

    fn ready(&self) -> Result<(), String> {
        if let Some(fault) = &*self.gpus_fault.lock().unwrap_or_else(PoisonError::into_inner) {
            return Err(fault.clone());
        }
        let missing: Vec<String> = self
            .offered()
            .iter()
            .filter_map(|(resource, why)| why.as_ref().map(|why| format!("{resource}: {why}")))
            .collect();
        if missing.is_empty() { Ok(()) } else { Err(missing.join("; ")) }
    }
}

/// Counts the devices whenever somebody reads the metrics: what the kubelet hears of them follows every pod that comes
/// or goes.
struct Recount(Arc<Plugin>);

impl fmt::Debug for Recount {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Recount")
    }
}

impl Collector for Recount {
    fn encode(&self, _: DescriptorEncoder<'_>) -> fmt::Result {
        self.0.count_devices();
        Ok(())
    }
}
