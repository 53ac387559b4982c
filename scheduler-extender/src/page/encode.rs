//! One node as the browser gets it: JSON in arrays, since a cluster has tens of thousands of GPUs and every key would be
//! there as often.
//!
//! ```text
//!   node:  [name, why it is not used or 0, [gpu, …], pods]; one that is not used has no GPUs and no pods
//!   pods:  [[namespace, name], …]; where names are not to be seen, how many
//!   gpu:   [kind, index, uuid, slices, uses, why it is unhealthy or 0, others' instances, sick offers]
//!   slices: a letter for each memory slice: `.` all in use; else what its idle part is: `f`ree, `s`tranded,
//!           `u`nhealthy, or `x` for an instance that Stowage did not build
//!   uses:  offer, stage, pod, MiB; then the next: stage 0 held, 1 promised, 2 being bound, 3 room kept; MiB 0: not said
//!   others' instances: [profile, start, size]; sick offers: [offer, why]; both are left out at the end where empty
//! ```

use std::collections::BTreeMap;
use std::fmt::Write;

use stowage_shared::occupancy::GpuState;
use stowage_shared::tally::{self, Tally};

use super::kinds::Kinds;
use crate::state::{NodeGpus, NodeView, Seat, Seated, Stage, Unknown};

/// A node, with its pods apart: not everybody may read their names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct NodeText {
    /// The array without its last element and bracket.
    pub(super) head: String,
    /// The last element, with names.
    pub(super) pods: String,
    /// And without.
    pub(super) count: usize,
}

impl NodeText {
    /// The whole array.
    pub(super) fn write(&self, names: bool, text: &mut String) {
        text.push_str(&self.head);
        if names {
            text.push_str(&self.pods);
        } else {
            write_number(text, self.count);
        }
        text.push(']');
    }
}

/// Writes a node; `stale` where what is known of it is too old by now.
pub(super) fn node(seated: &Seated, stale: bool, kinds: &mut Kinds) -> NodeText {
    let NodeView { name, gpus, .. } = &*seated.view;
    let mut pods = Pods::default();
    let mut head = String::with_capacity(512);
    head.push('[');
    quote(&mut head, name);
    head.push(',');
    match gpus {
        NodeGpus::Unknown(why) => quote(&mut head, why.text()),
        NodeGpus::Known(_) if stale => quote(&mut head, Unknown::Old.text()),
        NodeGpus::Known(_) | NodeGpus::None => head.push('0'),
    }
    head.push_str(",[");
    // What is not known is never shown as free.
    if let NodeGpus::Known(known) = gpus
        && !stale
    {
        for (place, state) in known.now.gpus.iter().enumerate() {
            if place > 0 {
                head.push(',');
            }
            let seats = seated.seats.iter().filter(|seat| seat.gpu == place);
            gpu(&mut head, state, seats, kinds, &mut pods);
        }
    }
    head.push_str("],");
    NodeText { head, count: pods.texts.len(), pods: format!("[{}]", pods.texts.join(",")) }
}

/// The pods of a node, in the order of their appearance.
#[derive(Default)]
struct Pods<'a> {
    places: BTreeMap<(&'a str, &'a str), usize>,
    texts: Vec<String>,
}

impl<'a> Pods<'a> {
    fn place(&mut self, seat: &'a Seat) -> usize {
        let texts = &mut self.texts;
        *self.places.entry((&seat.namespace, &seat.pod)).or_insert_with(|| {
            let mut text = String::from("[");
            quote(&mut text, &seat.namespace);
            text.push(',');
            quote(&mut text, &seat.pod);
            text.push(']');
            texts.push(text);
            texts.len() - 1
        })
    }
}

fn gpu<'a>(
    text: &mut String,
    state: &GpuState,
    seats: impl Iterator<Item = &'a Seat>,
    kinds: &mut Kinds,
    pods: &mut Pods<'a>,
) {
    text.push('[');
    write_number(text, kinds.number(&state.gpu.kind));
    text.push(',');
    write_number(text, state.gpu.index);
    text.push(',');
    quote(text, state.gpu.uuid.as_str());
    text.push_str(",\"");
    text.extend(tally::slices(state).iter().map(letter));
    text.push_str("\",[");
    for (at, seat) in seats.enumerate() {
        if at > 0 {
            text.push(',');
        }
        let stage = match seat.stage {
            Stage::Held => 0,
            Stage::Promised => 1,
            Stage::Assumed => 2,
            Stage::Nominated => 3,
        };
        let memory = seat.memory.map_or(0, |memory| memory.0);
        // Writing to a String does not fail.
        let _ = write!(text, "{},{stage},{},{memory}", seat.offer, pods.place(seat));
    }
    text.push(']');
    let gpu = &state.gpu;
    if gpu.unhealthy.is_some() || !gpu.foreign.is_empty() || !gpu.sick.is_empty() {
        text.push(',');
        match &gpu.unhealthy {
            Some(why) => quote(text, why),
            None => text.push('0'),
        }
        let foreign = gpu.foreign.iter().map(|slice| (slice.profile.as_str(), slice.start, slice.size));
        let sick: Vec<(&usize, &String)> = gpu.sick.iter().collect();
        text.push(',');
        text.push_str(&plain_json(&foreign.collect::<Vec<_>>()));
        text.push(',');
        text.push_str(&plain_json(&sick));
    }
    text.push(']');
}

/// What the idle part of a memory slice is.
fn letter(slice: &Tally) -> char {
    match slice {
        Tally { free: 1.., .. } => 'f',
        Tally { stranded: 1.., .. } => 's',
        Tally { unhealthy: 1.., .. } => 'u',
        Tally { foreign: 1.., .. } => 'x',
        Tally { .. } => '.',
    }
}

/// A text as JSON.
pub(super) fn quote(into: &mut String, text: &str) {
    into.push_str(&plain_json(&text));
}

/// Texts, numbers and arrays always have a JSON form.
pub(super) fn plain_json(value: &impl serde::Serialize) -> String {
    serde_json::to_string(value).unwrap_or_else(|_| "null".to_owned())
}

fn write_number(text: &mut String, number: impl std::fmt::Display) {
    // Writing to a String does not fail.
    let _ = write!(text, "{number}");
}
