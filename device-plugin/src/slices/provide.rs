//! Makes the slice that a token was booked for exist, with what is there already.
//!
//! An instance that nobody uses is kept: building one takes the driver up to seconds, and the next pod often wants the
//! same. It is taken down when another slice needs its place. Instances that are not ours are never touched; so what
//! is ours is written down before it is built, and what was not there when it was looked for is ours no more.

#[cfg(test)]
mod tests;

use nvml_wrapper::error::NvmlError;
use stowage_shared::gpu::GpuUuid;
use stowage_shared::mig::MigSlice;

use super::cut::{Cut, PLACE_TAKEN};
use super::ours::{OurInstance, Ours};
use crate::nvml::{Built, Instance};

/// Why a slice cannot be had now.
#[derive(Debug, thiserror::Error)]
pub enum ProvideError {
    /// Something of ours is in its place, and its last process has not ended yet.
    #[error("{} at {} is still in use by a process, and {} needs its place", .there.profile, .there.start, .wanted.profile)]
    Busy {
        /// What is there.
        there: MigSlice,
        /// What was wanted.
        wanted: MigSlice,
    },
    /// Somebody else took the place, or the GPU cannot hold it for a reason of its own.
    #[error("there is no place for {} at {}: somebody else has built MIG instances there", .0.profile, .0.start)]
    Taken(MigSlice),
    /// The GPU cannot be switched yet: the last process of the form that it had has not ended.
    #[error("the GPU's MIG mode cannot be switched while a process uses it")]
    InUse,
    /// The GPU is cut by somebody else.
    #[error("the GPU cannot be had whole: somebody else has built MIG instances on it")]
    NotWhole,
    /// Somebody has a slice of the GPU: the kubelet handed the rest out with counts that were some seconds old.
    #[error("the GPU cannot be had whole yet: a pod has {} at {} of it", .0.profile, .0.start)]
    Booked(MigSlice),
    /// Another error of the driver.
    #[error("the driver refuses: {0}")]
    Driver(#[from] NvmlError),
    /// What is about to happen could not be written down, so it was left.
    #[error("cannot write down which MIG instances are Stowage's")]
    Record(#[source] std::io::Error),
}

/// What is wanted of a GPU.
#[derive(Debug, Clone, Copy)]
pub struct Wanted<'a> {
    /// The GPU.
    pub gpu: &'a GpuUuid,
    /// The slice.
    pub slice: &'a MigSlice,
    /// For which token, if for one already.
    pub token: Option<&'a str>,
}

/// Makes a slice exist on a GPU. `booked` are the slices that tokens in use stand for: they are not touched.
///
/// # Errors
/// [`ProvideError`]. What was taken down for it stays down; the next try goes on from there.
pub fn provide(
    cut: &impl Cut,
    wanted: Wanted<'_>,
    booked: &[MigSlice],
    ours: &mut Ours<'_>,
) -> Result<Built, ProvideError> {
    let Wanted { gpu, slice, token } = wanted;
    if !cut.is_cut()? {
        cut.set_cut(true).map_err(in_use)?;
    }
    let there = cut.instances()?;
    ours.forget_missing(gpu, &there);
    if let Some(token) = token {
        // What it stood for before, it stands for no more.
        let stale = |other: &&mut OurInstance| other.token.as_deref() == Some(token) && other.slice != *slice;
        ours.instances.iter_mut().filter(stale).for_each(|other| other.token = None);
    }
    let finished = |ours: &OurInstance| &ours.gpu == gpu && &ours.slice == slice && ours.built.is_some();
    if let Some(at) = ours.instances.iter().position(finished) {
        if token.is_some() {
            ours.instances[at].token = token.map(str::to_owned);
            ours.keep()?;
        }
        if let Some(built) = ours.instances[at].built.clone() {
            return Ok(built);
        }
    }
    let is_ours =
        |instance: &&Instance| ours.instances.iter().any(|of| &of.gpu == gpu && of.slice == instance.slice);
    let ours_before: Vec<u32> = there.iter().filter(is_ours).map(|instance| instance.id).collect();
    make_room(cut, wanted, booked, (&there, ours))?;
    // Before it is written down as ours: after a kill, an instance in the place of a record without ids is ours.
    if there.iter().any(|instance| instance.slice.conflicts(slice) && !ours_before.contains(&instance.id)) {
        return Err(ProvideError::Taken(slice.clone()));
    }
    let (gpu, slice, token) = (gpu.clone(), slice.clone(), token.map(str::to_owned));
    ours.instances.push(OurInstance { gpu, slice: slice.clone(), token, built: None });
    ours.keep()?;
    let result = cut.build(&slice);
    let last = ours.instances.len() - 1;
    match result {
        Ok(built) => {
            ours.instances[last].built = Some(built.clone());
            // It was written down that we would: without the ids it is taken down and built again after a restart.
            let _ = ours.keep();
            Ok(built)
        }
        Err(error) => {
            ours.instances.remove(last);
            let _ = ours.keep();
            Err(match error {
                NvmlError::UnexpectedVariant(PLACE_TAKEN) => ProvideError::Taken(slice),
                error => ProvideError::Driver(error),
            })
        }
    }
}

/// Makes a GPU whole again: takes down what is ours, and switches MIG mode off. `booked` are its slices that tokens in
/// use stand for: while there are any, it stays as it is, whether or not a process runs on them just now.
///
/// # Errors
/// [`ProvideError`]; some instances may be gone by then.
pub fn make_whole(
    cut: &impl Cut,
    gpu: &GpuUuid,
    booked: &[MigSlice],
    ours: &mut Ours<'_>,
) -> Result<(), ProvideError> {
    if !cut.is_cut()? {
        return Ok(());
    }
    if let Some(slice) = booked.first() {
        return Err(ProvideError::Booked(slice.clone()));
    }
    let there = cut.instances()?;
    ours.forget_missing(gpu, &there);
    let is_ours =
        |slice: &MigSlice, ours: &[OurInstance]| ours.iter().any(|of| &of.gpu == gpu && &of.slice == slice);
    if there.iter().any(|instance| !is_ours(&instance.slice, ours.instances)) {
        return Err(ProvideError::NotWhole);
    }
    for instance in &there {
        cut.take_down(instance.id).map_err(in_use)?;
        ours.instances.retain(|of| &of.gpu != gpu || of.slice != instance.slice);
        ours.keep()?;
    }
    cut.set_cut(false).map_err(in_use)
}

fn in_use(error: NvmlError) -> ProvideError {
    if matches!(error, NvmlError::InUse) { ProvideError::InUse } else { error.into() }
}

/// Takes down what is ours and idle where `wanted` is to be, and what an earlier process left half-built there.
fn make_room(
    cut: &impl Cut,
    Wanted { gpu, slice: wanted, .. }: Wanted<'_>,
    booked: &[MigSlice],
    (there, ours): (&[Instance], &mut Ours<'_>),
) -> Result<(), ProvideError> {
    let in_the_way = |ours: &OurInstance| {
        &ours.gpu == gpu
            && ours.slice.conflicts(wanted)
            && (!booked.contains(&ours.slice) || (ours.built.is_none() && &ours.slice == wanted))
    };
    while let Some(at) = ours.instances.iter().position(in_the_way) {
        let victim = &ours.instances[at];
        let id = there.iter().find(|instance| instance.slice == victim.slice).map(|instance| instance.id);
        match id.map_or(Ok(()), |id| cut.take_down(id)) {
            Ok(()) => drop(ours.instances.remove(at)),
            Err(NvmlError::InUse) => {
                return Err(ProvideError::Busy { there: victim.slice.clone(), wanted: wanted.clone() });
            }
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}
