//! What is of no GPU alone: the paths between them, and the node's labels.

use stowage_shared::gpu::GpuUuid;

use super::{Rows, Verdict};
use crate::ours::Ours;
use crate::smi::Said;

impl Rows {
    /// PCIe paths count 10 to 60, and each direct NVLink 100 on top; links to a switch count nothing.
    pub(super) fn paths(&mut self, ours: &Ours, said: &Said) {
        let uuid = |index: u32| -> Option<&GpuUuid> {
            ours.gpus
                .iter()
                .flatten()
                .map(|gpu| &gpu.reading)
                .find(|gpu| gpu.index == index)
                .map(|gpu| &gpu.uuid)
        };
        for ((one, other), cell) in &said.paths {
            let Some(score) = uuid(*one).zip(uuid(*other)).and_then(|(a, b)| ours.nearness.of(a, b)) else {
                continue;
            };
            let (links, path) = (score / 100, score % 100);
            let fits = match cell.as_str() {
                "PIX" => links == 0 && path >= 50,
                "PXB" => links == 0 && path == 40,
                "PHB" => links == 0 && path == 30,
                "NODE" => links == 0 && path == 20,
                "SYS" => links == 0 && path == 10,
                cell => cell
                    .strip_prefix("NV")
                    .and_then(|n| n.parse().ok())
                    .is_some_and(|n: u16| links == n || links == 0),
            };
            let verdict = if fits { Verdict::Same } else { Verdict::Differs };
            self.row(
                &format!("path of GPU {one} to {other}"),
                format!("{links} NVLinks, {path}"),
                cell.clone(),
                verdict,
            );
        }
    }

    /// What the labels of the node say.
    pub(super) fn labels(&mut self, ours: &Ours, said: &Said) {
        // With several models, the labels are those of one of them.
        let Some(first) =
            said.gpus.first().filter(|first| said.gpus.iter().all(|gpu| gpu.product == first.product))
        else {
            return;
        };
        let has_mig = said.gpus.iter().any(|gpu| gpu.mig_mode.is_some());
        let expected = [
            ("gpu.product", first.product.as_ref().map(|product| product.replace(' ', "-"))),
            ("gpu.count", Some(said.gpus.len().to_string())),
            ("gpu.memory", first.memory.total.map(|total| total.to_string())),
            ("gpu.compute.major", part(first.compute_capability.as_ref(), 0)),
            ("gpu.compute.minor", part(first.compute_capability.as_ref(), 1)),
            ("mig.capable", Some(has_mig.to_string())),
            ("cuda.driver-version.full", said.driver_version.clone()),
            ("cuda.driver-version.major", part(said.driver_version.as_ref(), 0)),
            ("cuda.runtime-version.full", said.cuda_version.clone()),
        ];
        for (key, theirs) in expected {
            let key = format!("nvidia.com/{key}");
            let ours = ours.labels.get(&key).cloned().unwrap_or_else(|| "missing".to_owned());
            self.equal(&format!("label {key}"), ours, theirs);
        }
    }
}

fn part(text: Option<&String>, index: usize) -> Option<String> {
    text?.split('.').nth(index).map(str::to_owned)
}
