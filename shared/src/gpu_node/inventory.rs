//! From what is published to the GPUs that placement knows, each value checked; and back.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::{GeometryStatus, GpuNodeStatus, GpuStatus, OfferStatus, ProfileStatus, SliceStatus};
use crate::contract::GPUS_PER_NODE_MAX;
use crate::gpu::{Gpu, GpuKind, GpuKindError, GpuUuidError, Offer, Part};
use crate::mig::{MEMORY_SLICES_MAX, MigSlice};

/// Why a GpuNode's GPUs are not believed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InventoryError {
    /// More GPUs than a node can have.
    #[error("{0} GPUs: at most {GPUS_PER_NODE_MAX} are possible")]
    TooManyGpus(usize),
    /// A UUID that is none.
    #[error(transparent)]
    Uuid(#[from] GpuUuidError),
    /// The same GPU twice.
    #[error("GPU {0} is listed twice")]
    Twice(String),
    /// A slice outside any GPU.
    #[error("slice {0} lies outside every GPU")]
    Slice(String),
    /// MIG on demand without its geometry.
    #[error("GPU {0} has MIG on demand, and no geometry tells how its model {1:?} can be cut")]
    NoGeometry(String, String),
    /// Nearer to more GPUs than a node can have.
    #[error("GPU {0} tells how near {1} GPUs are: at most {GPUS_PER_NODE_MAX} are possible")]
    Near(String, usize),
    /// Impossible offers.
    #[error("GPU {0}")]
    Kind(String, #[source] GpuKindError),
}

impl GpuNodeStatus {
    /// The node's GPUs, checked.
    ///
    /// # Errors
    /// [`InventoryError`] for the first thing that cannot be true.
    pub fn inventory(&self) -> Result<Vec<Gpu>, InventoryError> {
        if self.gpus.len() > GPUS_PER_NODE_MAX {
            return Err(InventoryError::TooManyGpus(self.gpus.len()));
        }
        // GPUs of one model and configuration share their kind.
        let mut kinds: BTreeMap<Vec<Offer>, Vec<Arc<GpuKind>>> = BTreeMap::new();
        let mut gpus: Vec<Gpu> = Vec::with_capacity(self.gpus.len());
        for status in &self.gpus {
            let uuid = status.uuid.parse()?;
            if gpus.iter().any(|gpu| gpu.uuid == uuid) {
                return Err(InventoryError::Twice(status.uuid.clone()));
            }
            let foreign: Vec<MigSlice> =
                status.foreign_instances.iter().map(SliceStatus::to_slice).collect::<Result<_, _>>()?;
            let (offers, part_uuids) = self.offers(status, &foreign)?;
            if status.near.len() > GPUS_PER_NODE_MAX {
                return Err(InventoryError::Near(status.uuid.clone(), status.near.len()));
            }
            let why = |id: &String| status.offers.iter().find(|offer| &offer.uuid == id)?.unhealthy.clone();
            let sick =
                part_uuids.iter().enumerate().filter_map(|(offer, id)| Some((offer, why(id)?))).collect();
            let known = kinds.entry(offers.clone()).or_default();
            let same =
                |kind: &&Arc<GpuKind>| kind.model() == status.model && kind.memory() == status.memory_mib;
            let kind = match known.iter().find(same) {
                Some(kind) => kind.clone(),
                None => {
                    let kind = GpuKind::new(status.model.clone(), status.memory_mib, offers)
                        .map_err(|error| InventoryError::Kind(status.uuid.clone(), error))?;
                    known.push(Arc::new(kind));
                    known[known.len() - 1].clone()
                }
            };
            gpus.push(Gpu {
                uuid,
                index: status.index,
                numa_node: status.numa_node,
                near: status.near.clone(),
                kind,
                part_uuids,
                foreign,
                unhealthy: status.unhealthy.clone(),
                sick,
            });
        }
        Ok(gpus)
    }

    /// What a GPU is offered as, with the ids of the parts.
    fn offers(
        &self,
        gpu: &GpuStatus,
        foreign: &[MigSlice],
    ) -> Result<(Vec<Offer>, Vec<String>), InventoryError> {
        let listed = gpu.offers.iter().map(|offer| Ok((offer.to_offer()?, offer.uuid.clone())));
        let mut listed: Vec<(Offer, String)> = listed.collect::<Result<_, InventoryError>>()?;
        if gpu.mig_on_demand {
            let missing = || InventoryError::NoGeometry(gpu.uuid.clone(), gpu.model.clone());
            let geometry =
                self.geometries.iter().find(|known| known.model == gpu.model).ok_or_else(missing)?;
            // In the geometry's order, booked or not: so GPUs of one model go on sharing their kind.
            let id =
                |offer: &Offer| listed.iter().find(|(known, _)| known == offer).map(|(_, id)| id.clone());
            let on_demand = Offer::on_demand(geometry.slices()?, foreign).into_iter();
            let booked: Vec<(Offer, String)> = on_demand
                .map(|offer| {
                    let id = id(&offer).unwrap_or_default();
                    (offer, id)
                })
                .collect();
            listed.retain(|(offer, _)| !booked.iter().any(|(known, _)| known == offer));
            listed.extend(booked);
        }
        Ok(listed.into_iter().unzip())
    }
}

impl GeometryStatus {
    /// Every slice that could exist, each by itself.
    fn slices(&self) -> Result<Vec<MigSlice>, InventoryError> {
        let of = |profile: &ProfileStatus, start: u8| SliceStatus {
            profile: profile.name.clone(),
            start,
            size: profile.size,
            media_engines: profile.media_engines,
        };
        self.profiles
            .iter()
            .flat_map(|profile| profile.starts.iter().map(move |&start| of(profile, start).to_slice()))
            .collect()
    }
}

impl SliceStatus {
    fn of(slice: &MigSlice) -> Self {
        Self {
            profile: slice.profile.clone(),
            start: slice.start,
            size: slice.size,
            media_engines: slice.media_engines,
        }
    }

    fn to_slice(&self) -> Result<MigSlice, InventoryError> {
        let end = u16::from(self.start) + u16::from(self.size);
        if self.size == 0 || end > u16::from(MEMORY_SLICES_MAX) {
            return Err(InventoryError::Slice(format!("{} at {}", self.profile, self.start)));
        }
        Ok(MigSlice {
            profile: self.profile.clone(),
            start: self.start,
            size: self.size,
            media_engines: self.media_engines,
        })
    }
}

impl GpuStatus {
    /// What the plugin publishes of a GPU.
    pub fn of(gpu: &Gpu) -> Self {
        let parts = gpu.kind.offers().iter().zip(&gpu.part_uuids).enumerate();
        let offers = parts.filter(|(_, (_, id))| !id.is_empty()).map(|(at, (offer, id))| OfferStatus {
            unhealthy: gpu.sick.get(&at).cloned(),
            ..OfferStatus::of(offer, id)
        });
        Self {
            uuid: gpu.uuid.to_string(),
            index: gpu.index,
            model: gpu.kind.model().to_owned(),
            memory_mib: gpu.kind.memory(),
            numa_node: gpu.numa_node,
            near: gpu.near.clone(),
            unhealthy: gpu.unhealthy.clone(),
            offers: offers.collect(),
            mig_on_demand: (0..gpu.part_uuids.len()).any(|offer| gpu.is_on_demand(offer)),
            foreign_instances: gpu.foreign.iter().map(SliceStatus::of).collect(),
            utilization: None,
        }
    }
}

impl OfferStatus {
    fn of(offer: &Offer, uuid: &str) -> Self {
        let slice = match &offer.part {
            Part::Whole => None,
            Part::Slice(slice) => Some(SliceStatus::of(slice)),
        };
        Self {
            resource: offer.resource.clone(),
            uuid: uuid.to_owned(),
            slice,
            replicas: offer.replicas,
            distinct: offer.distinct,
            capped: offer.capped,
            unhealthy: None,
        }
    }

    fn to_offer(&self) -> Result<Offer, InventoryError> {
        let part = match &self.slice {
            None => Part::Whole,
            Some(slice) => Part::Slice(slice.to_slice()?),
        };
        let Self { resource, replicas, distinct, capped, .. } = self;
        Ok(Offer {
            resource: resource.clone(),
            part,
            replicas: *replicas,
            distinct: *distinct,
            capped: *capped,
        })
    }
}
