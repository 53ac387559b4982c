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
mod look;
mod publish;
mod tell;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use futures::future::OptionFuture;
use ops::chain;
use stowage_shared::gpu::GpuUuid;
use tokio::sync::watch;
use tokio::time::{Instant, sleep_until};

use crate::cdi::passing_nodes;
use crate::cdi::spec::DeviceNode;
use crate::cluster::NodeEvents;
use crate::config::{Config, MigStrategy};
use crate::health::{Change, Health, Seen};
use crate::inventory::{Inventory, OfferError, OfferRules};
use crate::mps::{Daemons, Mps};
use crate::nvml::{Listener, NvmlFault, Reading, Session, Told};
use crate::plugin::Plugin;
use crate::slices::{OurInstance, Slices};
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
    /// Builds MIG slices, where that is done on demand, and what was ours before the last look.
    slices: Option<Arc<Slices>>,
    were_ours: Vec<OurInstance>,
    /// Keeps MPS's daemons, where there are any.
    mps: Option<Arc<Mps>>,
    mps_changes: Option<watch::Receiver<Daemons>>,
    rules: OfferRules,
    known: Known,
    health: Health,
    /// The last inventory that the configuration could be applied to, and what it was made of.
    base: Inventory,
    made_of: Reading,
    /// What was handed to the book last.
    told: Option<Inventory>,
    /// The device nodes with which CDI specs were written last.
    nodes: Vec<DeviceNode>,
    listener: Option<Listener>,
    listening_to: Vec<(u32, GpuUuid)>,
    /// The GPUs of which it was read how they are connected.
    connected: Vec<(u32, GpuUuid)>,
    /// Why NVML does not work.
    fault: Option<String>,
    /// Why the configuration cannot be applied to what was read last.
    misfit: Option<String>,
    /// Why containers cannot be told of every device.
    untold: Option<String>,
    /// The parts of which it was said that they are gone.
    gone: BTreeSet<String>,
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
        )
        .with_instances(config.mig_strategy == MigStrategy::OnDemand);
        let session = Arc::new(session);
        let slices =
            (config.mig_strategy == MigStrategy::OnDemand).then(|| Arc::new(Slices::of(config, &session)));
        let mps = Mps::of(config, &session);
        Self {
            session,
            slices,
            were_ours: Vec::new(),
            mps_changes: mps.as_ref().map(|mps| mps.changes()),
            mps,
            rules: OfferRules::of(config),
            known: Known::default(),
            health: Health::new(config.health.rules.clone()),
            base: Inventory::default(),
            made_of: Reading::default(),
            told: None,
            nodes: Vec::new(),
            listener: None,
            listening_to: Vec::new(),
            connected: Vec::new(),
            fault: None,
            misfit: None,
            untold: None,
            gone: BTreeSet::new(),
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
        let look = self.look_at_all(BTreeSet::new).await;
        for (gpu, seen) in look.inspect_err(|fault| self.fault = Some(chain(fault)))? {
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

    /// What builds MIG slices, where that is done on demand.
    pub fn slices(&self) -> Option<Arc<Slices>> {
        self.slices.clone()
    }

    /// What keeps MPS's daemons, where there are any.
    pub fn mps(&self) -> Option<Arc<Mps>> {
        self.mps.clone()
    }

    /// What was read, with those MIG instances that are others'.
    pub fn reading(&self) -> Reading {
        let mut reading = self.known.reading();
        if let Some(slices) = &self.slices {
            slices.disown(&self.were_ours, &mut reading);
        }
        reading
    }

    /// What the configuration makes of the first look; healthy but for what that has told already.
    ///
    /// # Errors
    /// [`OfferError`].
    pub async fn first_inventory(&mut self) -> Result<Inventory, OfferError> {
        self.made_of = self.reading();
        self.base = Inventory::build(&self.made_of, &self.rules)?;
        self.remarks.extend(self.base.remarks().iter().cloned());
        if let Some(mps) = &self.mps {
            mps.want(&self.base);
            mps.find_running().await;
        }
        let inventory = self.base.clone().judged(self);
        self.told = Some(inventory.clone());
        self.nodes = passing_nodes(&self.config);
        Ok(inventory)
    }

    /// Follows the GPUs until the process ends.
    pub async fn follow(mut self, plugin: Arc<Plugin>) {
        self.tell_fault(&plugin);
        self.listen();
        self.publish(&plugin);
        self.connect(&plugin).await;
        let mut looked_at = Instant::now();
        let mut due = looked_at + self.next_look();
        loop {
            let told = OptionFuture::from(self.listener.as_mut().map(Listener::next));
            let mps = OptionFuture::from(self.mps_changes.as_mut().map(watch::Receiver::changed));
            tokio::select! {
                () = sleep_until(due) => {}
                () = self.session.returned() => tracing::info!("An NVML call has returned after all."),
                Some(Ok(())) = mps => {
                    self.tell_fault(&plugin);
                    self.publish(&plugin);
                    continue;
                }
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
            self.connect(&plugin).await;
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

    fn tell(&self, gpu: &GpuUuid, changes: &[Change], plugin: &Plugin) {
        for change in changes {
            tell::change(plugin, &self.events, &self.known, gpu, change);
        }
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
        let mps = || self.mps.as_ref()?.why_not_ready();
        plugin.set_gpus_fault(
            nvml.or_else(|| self.misfit.clone()).or_else(|| self.untold.clone()).or_else(mps),
        );
    }
}
