//! MIG slices that are built when somebody has got them.
//!
//! ```text
//!   Allocate ──► the book books a slice for each token
//!                      │ with CDI: PreStartContainer, at every start of a container; else Allocate itself
//!                      ▼
//!               provide: take down what is idle and in the way, build ──► written down, CDI spec ──► container
//! ```
//!
//! The kubelet admits pods one after another, so what takes seconds is better done in `PreStartContainer`: that holds up one
//! pod only, is tried again without the pod failing, and comes again when a container is started anew, so that slices
//! which a reset of the GPU took come back. Only with CDI can a container be told then what it holds.

mod bookings;
mod cut;
mod ours;
mod provide;
mod store;

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use stowage_shared::gpu::GpuUuid;
use stowage_shared::mig::MigSlice;
use stowage_shared::resource::ResourceName;
use tokio::time::{Instant, timeout, timeout_at};

use crate::answer::token_name;
use crate::book::{Book, Booking, Event};
use crate::cdi::{CdiError, Specs};
use crate::config::{Config, Extra};
use crate::inventory::{Inventory, PartDetail};
use crate::nvml::{About, Built, CallError, Session};
use crate::plugin::Plugin;

pub use cut::{Cut, OneGpu};
pub use ours::{OurInstance, Ours};
pub use provide::{ProvideError, Wanted, make_whole, provide};
pub use store::FILE;
use store::Store;

/// How long `PreStartContainer` waits for room: less than the kubelet's limit of 30 s on it, and after an error the
/// kubelet asks again.
pub const ROOM_WAIT_AT_START: Duration = Duration::from_secs(20);
/// How long `Allocate` does: it holds up the admission of every other pod.
pub const ROOM_WAIT_IN_ALLOCATE: Duration = Duration::from_secs(2);
/// How long it waits to be told who holds what, where it does not know a token's slice.
const TOLD_WAIT: Duration = Duration::from_secs(1);
/// How often it is tried again meanwhile, if nothing else wakes it: a process that ends tells nobody.
const RETRY: Duration = Duration::from_millis(100);

/// Why a container's slice cannot be had.
#[derive(Debug, thiserror::Error)]
pub enum SliceError {
    /// The kubelet handed out more than there is: its counts were some seconds old.
    #[error("{0} has no slice yet: its GPU has no room for one just now")]
    NoRoom(String),
    /// NVML does not work.
    #[error("NVML does not work just now")]
    NoNvml,
    /// The GPU is not there.
    #[error("GPU {0} is not there just now")]
    NoGpu(GpuUuid),
    /// A call hangs.
    #[error(transparent)]
    Call(#[from] CallError),
    /// It cannot be built.
    #[error(transparent)]
    Provide(#[from] ProvideError),
    /// Its CDI spec cannot be written.
    #[error(transparent)]
    Cdi(#[from] CdiError),
}

impl SliceError {
    /// Whether it passes by itself: when a pod ends, or the last process of one that has.
    fn may_pass(&self) -> bool {
        matches!(
            self,
            Self::NoRoom(_)
                | Self::Provide(
                    ProvideError::Busy { .. }
                        | ProvideError::InUse
                        | ProvideError::Booked(_)
                        | ProvideError::Taken(_)
                )
        )
    }
}

/// Builds slices and knows which are there.
pub struct Slices {
    session: Arc<Session>,
    store: Store,
    /// Whether containers are told by CDI alone, so that slices are built in `PreStartContainer`.
    at_start: bool,
    /// How CDI specs are made, where they are. The lock is held while one is written, so that no older one comes last.
    specs: Mutex<Option<Specs>>,
}

impl Slices {
    /// Goes on with the instances that an earlier process of this boot built; it wrote them down beside the kubelet's
    /// sockets.
    pub fn of(config: &Config, session: &Arc<Session>) -> Self {
        let folder = config.kubelet_socket.parent().unwrap_or(Path::new("/"));
        let at_start = config.device_list_strategies.iter().all(|strategy| strategy.is_cdi());
        let session = session.clone();
        Self { session, store: Store::open(folder, &config.procfs), at_start, specs: Mutex::default() }
    }

    /// Whether slices are built in `PreStartContainer`.
    pub fn are_built_at_start(&self) -> bool {
        self.at_start
    }

    /// Writes all CDI specs of an inventory in this way from now on; tells which extras containers get. Blocks.
    ///
    /// # Errors
    /// [`CdiError`].
    pub fn write_specs(
        &self,
        specs: Specs,
        inventory: &Inventory,
        imex_channels: &[u32],
    ) -> Result<BTreeSet<Extra>, CdiError> {
        let mut known = self.specs.lock().unwrap_or_else(PoisonError::into_inner);
        let written = specs.write(inventory, &self.devices(inventory), imex_channels);
        *known = Some(specs);
        written
    }

    /// Makes the slices of these devices exist and known to the container runtime, as [`Slices::prepare`].
    ///
    /// # Errors
    /// [`SliceError`].
    pub async fn start(
        self: &Arc<Self>,
        plugin: &Arc<Plugin>,
        resource: &ResourceName,
        ids: &[String],
    ) -> Result<(), SliceError> {
        if self.prepare(plugin, resource, ids, ROOM_WAIT_AT_START).await?.is_empty() {
            return Ok(());
        }
        let (slices, inventory) = (self.clone(), plugin.book.borrow().inventory().clone());
        let write = move || {
            let specs = slices.specs.lock().unwrap_or_else(PoisonError::into_inner);
            specs.as_ref().map_or(Ok(()), |specs| specs.write_gpus(&inventory, &slices.devices(&inventory)))
        };
        // It only panics where the write does, and then says so itself.
        Ok(tokio::task::spawn_blocking(write).await.unwrap_or(Ok(()))?)
    }

    /// The tokens that have a slice, as CDI devices.
    fn devices(&self, inventory: &Inventory) -> Vec<Part> {
        let device = |ours: OurInstance| {
            let (_, detail) = part(inventory.cut_on_demand(&ours.gpu)?, &ours.slice, ours.built.as_ref()?);
            Some((token_name(&ours.token?), detail))
        };
        self.store.all().into_iter().filter_map(device).collect()
    }

    /// Makes the slices of these devices exist, those of them that are tokens; waits for room until the time is over.
    ///
    /// # Errors
    /// [`SliceError`], for the first that cannot be had.
    pub async fn prepare(
        &self,
        plugin: &Arc<Plugin>,
        resource: &ResourceName,
        ids: &[String],
        most: Duration,
    ) -> Result<BTreeMap<String, Part>, SliceError> {
        let deadline = Instant::now() + most;
        let mut parts = BTreeMap::new();
        let inventory = plugin.book.borrow().inventory().clone();
        let gpus: BTreeSet<GpuUuid> =
            ids.iter().filter_map(|id| id.split("::").next()?.parse().ok()).collect();
        for id in ids.iter().filter(|id| plugin.book.borrow().knows_token(resource, id)) {
            let started = Instant::now();
            if plugin.book.borrow().booking(id).is_none() {
                // Right after a start it is about to be told whose token it is, and which slice its plan names.
                let is_told = |book: &Book| book.knows_holders() && book.knows_pods();
                let _ = timeout(TOLD_WAIT, plugin.book.subscribe().wait_for(is_told)).await;
            }
            let part = patiently(deadline, plugin, || self.build(plugin, resource, id)).await?;
            tracing::debug!(resource_name = %resource, token = id, took = ?started.elapsed(), "Slice ready.");
            parts.insert(id.clone(), part);
        }
        if parts.is_empty() {
            for gpu in gpus.iter().filter(|gpu| inventory.cut_on_demand(gpu).is_some()) {
                patiently(deadline, plugin, || self.make_whole(plugin, &inventory, gpu)).await?;
            }
        }
        Ok(parts)
    }

    async fn build(
        &self,
        plugin: &Arc<Plugin>,
        resource: &ResourceName,
        id: &str,
    ) -> Result<Part, SliceError> {
        let booked = || plugin.book.borrow().booking(id).cloned();
        if booked().is_none() {
            plugin.record(Event::Starts { resource: resource.clone(), ids: vec![id.to_owned()] });
        }
        let booking = booked().ok_or_else(|| SliceError::NoRoom(id.to_owned()))?;
        let inventory = plugin.book.borrow().inventory().clone();
        let built = self.provide(plugin, &inventory, &booking, Some(id)).await?;
        let detail = inventory.cut_on_demand(&booking.gpu).ok_or(SliceError::NoGpu(booking.gpu))?;
        Ok(part(detail, &booking.slice, &built))
    }

    /// Makes an elastic GPU whole, for somebody who has it so.
    async fn make_whole(
        &self,
        plugin: &Arc<Plugin>,
        inventory: &Inventory,
        gpu: &GpuUuid,
    ) -> Result<(), SliceError> {
        let (index, gpu, store) = (index(inventory, gpu)?, gpu.clone(), self.store.clone());
        let plugin = plugin.clone();
        let call = self.session.call(About::Gpu(index), move |nvml| {
            let booked = booked(&plugin, &gpu);
            store.with(&gpu, |ours| make_whole(&OneGpu(nvml, index), &gpu, &booked, ours))
        });
        Ok(call.await?.ok_or(SliceError::NoNvml)??)
    }

    /// Makes one slice exist.
    async fn provide(
        &self,
        plugin: &Arc<Plugin>,
        inventory: &Inventory,
        booking: &Booking,
        token: Option<&str>,
    ) -> Result<Built, SliceError> {
        let Booking { gpu, slice } = booking.clone();
        let index = index(inventory, &gpu)?;
        let (plugin, token, store) = (plugin.clone(), token.map(str::to_owned), self.store.clone());
        let call = self.session.call(About::Gpu(index), move |nvml| {
            let booked = booked(&plugin, &gpu);
            let wanted = Wanted { gpu: &gpu, slice: &slice, token: token.as_deref() };
            store.with(&gpu, |ours| provide(&OneGpu(nvml, index), wanted, &booked, ours))
        });
        Ok(call.await?.ok_or(SliceError::NoNvml)??)
    }
}

/// Tries again what may come by itself, until the time is over.
async fn patiently<T, F: Future<Output = Result<T, SliceError>>>(
    deadline: Instant,
    plugin: &Plugin,
    mut attempt: impl FnMut() -> F,
) -> Result<T, SliceError> {
    loop {
        match attempt().await {
            Err(error) if error.may_pass() && Instant::now() < deadline => {
                let mut book = plugin.book.subscribe();
                let _ = timeout_at(deadline, timeout(RETRY, book.changed())).await;
            }
            result => return result,
        }
    }
}

/// The slices of a GPU that tokens in use stand for. Read when a call's turn has come: others may have been built or booked
/// since it was made.
fn booked(plugin: &Plugin, gpu: &GpuUuid) -> Vec<MigSlice> {
    let book = plugin.book.borrow();
    book.bookings().filter(|(_, of)| &of.gpu == gpu).map(|(_, of)| of.slice.clone()).collect()
}

fn index(inventory: &Inventory, gpu: &GpuUuid) -> Result<u32, SliceError> {
    let known = inventory.gpus().iter().find(|known| &known.uuid == gpu);
    known.map(|known| known.index).ok_or_else(|| SliceError::NoGpu(gpu.clone()))
}

/// A slice as `Allocate` must know it: its UUID, and the rest.
pub type Part = (String, PartDetail);

fn part(gpu: &PartDetail, slice: &MigSlice, built: &Built) -> Part {
    let detail = PartDetail {
        instances: Some((built.gpu_instance_id, built.compute_instance_id)),
        has_graphics: slice.profile.as_str().contains("+gfx"),
        ..gpu.clone()
    };
    (built.uuid.clone(), detail)
}
