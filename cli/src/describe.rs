//! Devices, amounts and ages in words.

use std::time::Duration;

use jiff::Timestamp;
use stowage_shared::gpu::{Gpu, Part};
use stowage_shared::occupancy::GpuState;
use stowage_shared::pack::{Chosen, Placement};
use stowage_shared::plan::PlannedDevice;

/// A device of a GPU: `GPU 0`, `GPU 0 share`, `GPU 0 3g.20gb@4`.
pub fn device(gpu: &Gpu, offer: usize) -> String {
    let of = gpu.kind.offers().get(offer);
    let share = if of.is_some_and(|of| of.replicas.is_some()) { " share" } else { "" };
    match of.map(|of| &of.part) {
        Some(Part::Slice(slice)) => format!("GPU {} {}@{}{share}", gpu.index, slice.profile, slice.start),
        _ => format!("GPU {}{share}", gpu.index),
    }
}

/// The devices of a placement, equal ones counted: `GPU 0 share x 2, GPU 1 share`.
pub fn placement(states: &[GpuState], placement: &Placement) -> String {
    let name = |chosen: &Chosen| device(&states[chosen.gpu].gpu, chosen.offer);
    let mut names: Vec<String> = placement.devices.values().flatten().map(name).collect();
    names.sort();
    counted(names)
}

/// The devices of a plan. A GPU that the node does not have is named by its UUID.
pub fn planned<'a>(gpus: impl Iterator<Item = &'a Gpu> + Clone, devices: &[PlannedDevice]) -> String {
    let name = |device: &PlannedDevice| {
        let gpu = match gpus.clone().find(|gpu| gpu.uuid == device.gpu) {
            Some(gpu) => format!("GPU {}", gpu.index),
            None => format!("{} (not on the node)", device.gpu),
        };
        let slice = device.slice.as_ref().map(|(profile, start)| format!(" {profile}@{start}"));
        gpu + &slice.unwrap_or_default()
    };
    counted(devices.iter().map(name).collect())
}

fn counted(names: Vec<String>) -> String {
    let mut runs: Vec<(String, usize)> = Vec::new();
    for name in names {
        match runs.last_mut() {
            Some((last, count)) if *last == name => *count += 1,
            _ => runs.push((name, 1)),
        }
    }
    let text = |(name, count): (String, usize)| if count == 1 { name } else { format!("{name} x {count}") };
    runs.into_iter().map(text).collect::<Vec<_>>().join(", ")
}

/// Thousandths of a GPU as GPUs: `0`, `0.5`, `1.125`.
pub fn gpus(milli: u64) -> String {
    let text = format!("{}.{:03}", milli / 1000, milli % 1000);
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

/// The same where it may be less than nothing: `-0.5`.
pub fn gpus_more_or_less(milli: i64) -> String {
    let sign = if milli < 0 { "-" } else { "" };
    format!("{sign}{}", gpus(milli.unsigned_abs()))
}

/// How long ago something was, as kubectl says it: `12s`, `5m`, `3h`, `2d`.
pub fn age(at: Timestamp, now: Timestamp) -> String {
    let seconds = Duration::try_from(now.duration_since(at)).unwrap_or_default().as_secs();
    match seconds {
        0..120 => format!("{seconds}s"),
        120..7_200 => format!("{}m", seconds / 60),
        7_200..172_800 => format!("{}h", seconds / 3_600),
        _ => format!("{}d", seconds / 86_400),
    }
}

/// A number and its noun: `1 node`, `2 nodes`.
pub fn count(n: usize, noun: &str) -> String {
    if n == 1 { format!("1 {noun}") } else { format!("{n} {noun}s") }
}

/// The first few of some names: `a, b, c and 7 more`.
pub fn some<T: AsRef<str>>(names: &[T]) -> String {
    const SHOWN: usize = 5;
    let shown: Vec<&str> = names.iter().take(SHOWN).map(AsRef::as_ref).collect();
    match names.len().saturating_sub(SHOWN) {
        0 => shown.join(", "),
        more => format!("{} and {more} more", shown.join(", ")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn amounts_and_names_are_short() {
        assert_eq!([0, 500, 1_125, 8_000, 10].map(gpus), ["0", "0.5", "1.125", "8", "0.01"]);
        assert_eq!([-1_125, 0, 10].map(gpus_more_or_less), ["-1.125", "0", "0.01"]);
        assert_eq!(some(&["a", "b"]), "a, b");
        assert_eq!(some(&["a", "b", "c", "d", "e", "f", "g"]), "a, b, c, d, e and 2 more");
        assert_eq!(counted(["a", "a", "b"].map(str::to_owned).to_vec()), "a x 2, b");
    }

    #[test]
    fn ages_are_kubectls() {
        let now: Timestamp = "2026-01-03T00:00:00Z".parse().unwrap();
        for (at, want) in [
            ("2026-01-02T23:59:30Z", "30s"),
            ("2026-01-02T23:50:00Z", "10m"),
            ("2026-01-02T20:00:00Z", "4h"),
            ("2025-12-31T00:00:00Z", "3d"),
            ("2026-01-03T00:00:09Z", "0s"),
        ] {
            assert_eq!(age(at.parse().unwrap(), now), want);
        }
    }
}
