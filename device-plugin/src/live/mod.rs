//! Keeps the inventory true: looks at the GPUs every few seconds and whenever the driver tells something.
//!
//! ```text
//!   NVML events ──►┐                 ┌─known──► Reading ──rules──► Inventory ──►┐
//!   the clock   ──►├─► look at GPUs ─┤                                          ├──► the book ──► kubelet, GpuNode
//!   calls back  ──►┘                 └─health─► changes ──► log, metrics, events┘
//! ```
//!
//! MIG devices that somebody else creates or destroys, GPUs that fail and recover, and a driver that goes away and
//! comes back are all one thing here: the next look finds something else. NVML is opened again by itself. A reading
//! that the configuration cannot be applied to changes nothing but the health of what it is about.

mod known;
mod tell;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use futures::future::OptionFuture;
use stowage_shared::gpu::GpuUuid;
use tokio::time::{Instant, sleep_until};

use crate::cluster::NodeEvents;
use crate::config::Config;
use crate::health::{Change, Health, Seen};
use crate::inventory::{Inventory, Judge, OfferError, OfferRules};
use crate::nvml::{Listener, Look, NvmlFault, Reading, Session, Told};
use crate::plugin::Plugin;
use crate::run::answer_rules;
use crate::told::AtMostEvery;
use known::Known;

/// The first wait after NVML failed; it doubles up to the usual time between two looks.
const FIRST_RETRY: Duration = Duration::from_millis(500);

/// The least time between two looks: a storm of XIDs must not become one of NVML calls.
const LEAST: Duration = Duration::from_millis(50);
/// How often an XID of one GPU is logged; each is counted.
const LOG_XID_EVERY: Duration = Duration::from_secs(60);
/// XIDs from this number on are one, as far as that is concerned.
const XIDS_MAX: u64 = 256;

/// See the [module](self).
pub struct Live {
    config: Config,
    session: Arc<Session>,
    rules: OfferRules,
    known: Known,
    health: Health,
    /// The last inventory that the configuration could be applied to, and what it was made of.
    base: Inventory,
    made_of: Reading,
    /// What was handed to the book last.
    told: Option<Inventory>,
    listener: Option<Listener>,
    listening_to: Vec<(u32, GpuUuid)>,
    /// Why NVML does not work.
    fault: Option<String>,
    /// Why the configuration cannot be applied to what was read last.
    misfit: Option<String>,
    remarks: BTreeSet<String>,
    xids_said: BTreeMap<(Option<GpuUuid>, u64), AtMostEvery>,
    retry: Duration,
    events: NodeEvents,
}

impl Live {
    /// Nothing has been looked at yet.
    pub fn new(config: &Config, events: NodeEvents) -> Self {
        let session = Session::new(
            config.container_driver_root.clone(),
            config.sysfs.clone(),
            config.health.call_limit,
        );
        Self {
            session: Arc::new(session),
            rules: OfferRules::of(config),
            known: Known::default(),
            health: Health::new(config.health.rules.clone()),
            base: Inventory::default(),
            made_of: Reading::default(),
            told: None,
            listener: None,
            listening_to: Vec::new(),
            fault: None,
            misfit: None,
            remarks: BTreeSet::new(),
            xids_said: BTreeMap::new(),
            retry: FIRST_RETRY,
            events,
            config: config.clone(),
        }
    }

    /// Looks for the first time.
    ///
    /// # Errors
    /// [`NvmlFault`]. Whoever goes on in spite of it is [told](Live::follow) when NVML works.
    pub async fn first_look(&mut self) -> Result<(), NvmlFault> {
        let look = self.session.look().await.inspect_err(|fault| self.fault = Some(words(fault)))?;
        for (gpu, seen) in self.known.take(look, &BTreeSet::new()) {
            self.health.apply(&gpu, seen, Duration::ZERO);
        }
        Ok(())
    }

    /// Whether NVML worked when it was last asked.
    pub fn works(&self) -> bool {
        self.fault.is_none()
    }

    /// NVML, for others who ask it.
    pub fn session(&self) -> Arc<Session> {
        self.session.clone()
    }

    /// What was read.
    pub fn reading(&self) -> Reading {
        self.known.reading()
    }

    /// What the configuration makes of the first look; healthy but for what that has told already.
    ///
    /// # Errors
    /// [`OfferError`].
    pub fn first_inventory(&mut self) -> Result<Inventory, OfferError> {
        self.made_of = self.known.reading();
        self.base = Inventory::build(&self.made_of, &self.rules)?;
        self.remarks.extend(self.base.remarks().iter().cloned());
        let inventory = self.base.clone().judged(self);
        self.told = Some(inventory.clone());
        Ok(inventory)
    }

    /// Follows the GPUs until the process ends.
    pub async fn follow(mut self, plugin: Arc<Plugin>) {
        self.tell_fault(&plugin);
        self.listen();
        self.publish(&plugin);
        let mut looked_at = Instant::now();
        let mut due = looked_at + self.next_look();
        loop {
            let told = OptionFuture::from(self.listener.as_mut().map(Listener::next));
            tokio::select! {
                () = sleep_until(due) => {}
                () = self.session.returned() => tracing::info!("An NVML call has returned after all."),
                Some(told) = told => {
                    match told {
                        Some(told) => self.hear(told, &plugin),
                        // It has said why. What it listened to is kept in mind: no new one for the same GPUs.
                        None => self.listener = None,
                    }
                    due = due.min(looked_at + LEAST);
                    continue;
                }
            }
            self.look(&plugin).await;
            looked_at = Instant::now();
            due = looked_at + self.next_look();
        }
    }

    fn next_look(&self) -> Duration {
        if self.fault.is_some() { self.retry } else { self.config.health.period }
    }

    /// Takes note of what the driver tells. The devices' health follows at once, not after the next look: that may
    /// take long, above all now.
    fn hear(&mut self, told: Told, plugin: &Plugin) {
        let Told::Xid { gpu, xid, instances } = told else { return };
        let class = self.health.rules().class(xid);
        plugin.metrics.health.xid(gpu.as_ref().and_then(|gpu| self.known.index(gpu)), xid, class);
        let said = self
            .xids_said
            .entry((gpu.clone(), xid.min(XIDS_MAX)))
            .or_insert_with(|| AtMostEvery::new(LOG_XID_EVERY));
        if said.may() {
            tell::xid(&self.known, gpu.as_ref(), xid, instances, class);
        }
        let Some(gpu) = gpu else { return };
        let changes = self.health.apply(&gpu, Seen::Xid { xid, instances }, plugin.now());
        self.tell(&gpu, &changes, plugin);
        self.publish(plugin);
    }

    async fn look(&mut self, plugin: &Plugin) {
        let look = match self.session.look().await {
            Ok(look) => Ok(look),
            Err(first) => {
                // Opened anew, it may work: after a driver was loaded again, all handles are stale.
                tracing::debug!(error = words(&first), "NVML fails: opening it again.");
                self.listener = None;
                self.listening_to.clear();
                self.session.close().await;
                self.session.look().await
            }
        };
        match look {
            Ok(look) => self.take(look, plugin),
            Err(fault) => {
                self.session.close().await;
                self.retry = if self.fault.is_some() {
                    (self.retry * 2).min(self.config.health.period)
                } else {
                    FIRST_RETRY.min(self.config.health.period)
                };
                self.set_fault(Some(words(&fault)), plugin);
            }
        }
        self.publish(plugin);
    }

    fn take(&mut self, look: Look, plugin: &Plugin) {
        self.set_fault(None, plugin);
        let in_use = plugin.book.borrow().parts_in_use();
        for (gpu, seen) in self.known.take(look, &in_use) {
            let changes = self.health.apply(&gpu, seen, plugin.now());
            self.tell(&gpu, &changes, plugin);
        }
        self.listen();
    }

    fn tell(&self, gpu: &GpuUuid, changes: &[Change], plugin: &Plugin) {
        for change in changes {
            tell::change(plugin, &self.events, &self.known, gpu, change);
        }
    }

    /// Listens to the GPUs that answer, if it does not yet. One that was away is listened to anew.
    fn listen(&mut self) {
        let gpus = self.known.reading().gpus.into_iter().map(|gpu| (gpu.index, gpu.uuid));
        let answering: Vec<_> = gpus.filter(|(_, uuid)| self.health.answers(uuid)).collect();
        let Some(nvml) = self.session.gpus() else { return };
        if answering.is_empty() || self.listening_to == answering {
            return;
        }
        self.listening_to.clone_from(&answering);
        self.listener = Listener::start(nvml, answering)
            .inspect_err(|error| tracing::warn!(%error, "There is no thread to hear NVML's events on."))
            .ok();
    }

    fn set_fault(&mut self, fault: Option<String>, plugin: &Plugin) {
        if self.fault.is_some() != fault.is_some() {
            tell::nvml(&self.events, fault.as_deref());
        }
        self.fault = fault;
        self.tell_fault(plugin);
    }

    fn tell_fault(&self, plugin: &Plugin) {
        let nvml = self.fault.as_ref().map(|fault| format!("NVML does not work: {fault}"));
        plugin.metrics.health.set_nvml(nvml.is_none());
        plugin.set_gpus_fault(nvml.or_else(|| self.misfit.clone()));
    }

    /// Hands the book what is known now, if that differs from the last time.
    fn publish(&mut self, plugin: &Plugin) {
        let reading = self.known.reading();
        if reading != self.made_of || self.misfit.is_some() {
            match Inventory::build(&reading, &self.rules) {
                Ok(base) => (self.base, self.made_of, self.misfit) = (base, reading, None),
                Err(error) => {
                    let why = words(&error);
                    if self.misfit.as_ref() != Some(&why) {
                        tracing::error!(
                            error = why,
                            "The GPUs changed, and cannot be offered as configured."
                        );
                    }
                    self.misfit = Some(why);
                }
            }
            self.tell_fault(plugin);
            let remarks: BTreeSet<String> = self.base.remarks().iter().cloned().collect();
            remarks.difference(&self.remarks).for_each(|remark| tracing::warn!("{remark}."));
            self.remarks = remarks;
        }
        for gpu in &self.made_of.gpus {
            plugin.metrics.health.set_healthy(gpu.index, self.health.is_well(&gpu.uuid));
        }
        let inventory = self.base.clone().judged(self);
        if self.told.as_ref() == Some(&inventory) {
            return;
        }
        match answer_rules(&self.config, &self.made_of, &inventory) {
            Ok(answers) => plugin.set_answers(answers),
            Err(fault) => {
                tracing::error!(error = %fault, "New devices cannot be told to containers in full.")
            }
        }
        tell::offered(plugin, &inventory);
        self.told = Some(inventory.clone());
        plugin.set_inventory(inventory);
    }
}

impl Judge for Live {
    fn why_none(&self, gpu: &GpuUuid) -> Option<String> {
        if let Some(why) = self.health.why_none(gpu) {
            return Some(why.to_owned());
        }
        // What cannot be offered as configured is not what it was.
        let why = self.misfit.as_ref()?;
        let of = |reading: &Reading| reading.gpus.iter().find(|other| other.uuid == *gpu).cloned();
        (of(&self.made_of) != of(&self.known.reading())).then(|| why.clone())
    }

    fn why_not(&self, gpu: &GpuUuid, part: &str, instances: Option<(u32, u32)>) -> Option<String> {
        let why = self.known.why_gone(part).or_else(|| self.health.why_not(gpu, instances));
        why.map(str::to_owned)
    }

    fn why_unknown(&self) -> Option<String> {
        self.fault.as_ref().map(|fault| format!("NVML does not work: {fault}"))
    }
}

/// An error with its causes.
fn words(error: &(dyn std::error::Error + 'static)) -> String {
    let causes = std::iter::successors(Some(error), |error| error.source());
    causes.map(ToString::to_string).collect::<Vec<_>>().join(": ")
}
