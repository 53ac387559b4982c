//! How an admin may set the nodes up by hand, and what a setup has room for.
//!
//! NVIDIA's plugin has one configuration a node: its GPUs that are not cut into MIG slices are either all
//! whole or all time-sliced. MIG slices are cut once, in a layout per GPU.

use std::collections::BTreeMap;
use std::fmt;

use nvml_simulator::description::{Description, GpuDescription, MigInstanceDescription, MigMode};

use super::services::Piece;

/// GPUs of a node.
pub const GPUS_PER_NODE: usize = 8;
/// All GPUs.
pub const GPUS: usize = NODES.len() * GPUS_PER_NODE;
/// How many pods share a time-sliced GPU.
pub const REPLICAS: u32 = 4;
/// Cores and GiB of memory of a GPU node.
pub const GPU_NODE_CPU_AND_MEMORY: (i64, i64) = (96, 768);
/// Cores and GiB of memory of the node without GPUs.
pub const CPU_NODE_CPU_AND_MEMORY: (i64, i64) = (64, 256);
/// The node without GPUs.
pub const CPU_NODE: &str = "cpu-node-1";

/// The GPU nodes: name, and model as the simulator knows it.
pub const NODES: [(&str, &str); 4] =
    [("gpu-node-1", "h100-80gb"), ("gpu-node-2", "h100-80gb"), ("gpu-node-3", "l40s"), ("gpu-node-4", "l4")];
/// The nodes whose GPUs have the MIG profiles that the services ask for: the first so many.
pub const MIG_NODES: usize = 2;

/// One way to cut a GPU: profiles with their first memory slices.
#[derive(Debug, PartialEq, Eq)]
pub struct Layout {
    /// For people.
    pub title: &'static str,
    slices: &'static [(Piece, u8)],
}

/// The layouts that waste no compute slice (and 3g+3g, which has the most 3g).
pub const LAYOUTS: [Layout; 8] = {
    use Piece::{Mig1g as M1, Mig2g as M2, Mig3g as M3};
    [
        Layout { title: "3g+3g", slices: &[(M3, 0), (M3, 4)] },
        Layout { title: "3g+2g+2g", slices: &[(M3, 4), (M2, 0), (M2, 2)] },
        Layout { title: "3g+2g+1g+1g", slices: &[(M3, 4), (M2, 0), (M1, 2), (M1, 3)] },
        Layout { title: "3g+4x1g", slices: &[(M3, 4), (M1, 0), (M1, 1), (M1, 2), (M1, 3)] },
        Layout { title: "3x2g+1g", slices: &[(M2, 0), (M2, 2), (M2, 4), (M1, 6)] },
        Layout { title: "2x2g+3x1g", slices: &[(M2, 0), (M2, 2), (M1, 4), (M1, 5), (M1, 6)] },
        Layout { title: "2g+5x1g", slices: &[(M2, 0), (M1, 2), (M1, 3), (M1, 4), (M1, 5), (M1, 6)] },
        Layout { title: "7x1g", slices: &[(M1, 0), (M1, 1), (M1, 2), (M1, 3), (M1, 4), (M1, 5), (M1, 6)] },
    ]
};

impl Layout {
    /// How many slices of this kind it has.
    pub fn count(&self, piece: Piece) -> u32 {
        self.slices.iter().map(|&(own, _)| u32::from(own == piece)).sum()
    }

    fn describe(&self, model: &str) -> GpuDescription {
        let instance = |&(piece, start): &(Piece, u8)| {
            MigInstanceDescription::new(profile(piece).unwrap_or_default()).at(start)
        };
        GpuDescription {
            mig_mode: MigMode::Enabled,
            mig_instances: self.slices.iter().map(instance).collect(),
            ..GpuDescription::new(model)
        }
    }
}

fn profile(piece: Piece) -> Option<&'static str> {
    piece.resource()?.strip_prefix("nvidia.com/mig-")
}

/// One node as set up by hand.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NodeSetup {
    /// The layouts of its first GPUs, as places in [`LAYOUTS`]; the others are not in MIG mode.
    pub mig: Vec<usize>,
    /// Whether the others are time-sliced.
    pub shared: bool,
    /// Whether nobody has set it up at all: each GPU is whole, shared or cut as pods come.
    pub elastic: bool,
}

/// All GPU nodes as set up by hand, in the order of [`NODES`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Split(pub [NodeSetup; NODES.len()]);

impl NodeSetup {
    /// A node as it comes: every GPU whole.
    pub const WHOLE: Self = Self { mig: Vec::new(), shared: false, elastic: false };
    /// A node whose GPUs are what their first pods make them.
    pub const ELASTIC: Self = Self { mig: Vec::new(), shared: false, elastic: true };

    /// What an idle node of elastic GPUs has room for of each piece by itself.
    pub fn elastic_allocatable(can_be_cut: bool) -> BTreeMap<&'static str, u32> {
        let slices =
            if can_be_cut { &[(Piece::Mig1g, 7), (Piece::Mig2g, 3), (Piece::Mig3g, 2)][..] } else { &[] };
        let pieces = [(Piece::Gpu, 1), (Piece::Share, REPLICAS)].into_iter().chain(slices.iter().copied());
        let gpus = u32::try_from(GPUS_PER_NODE).unwrap_or_default();
        pieces.filter_map(|(piece, count)| Some((piece.resource()?, gpus * count))).collect()
    }

    /// What it has room for: pieces by resource name, as a Node's allocatable would tell.
    pub fn allocatable(&self) -> BTreeMap<&'static str, u32> {
        let rest = u32::try_from(GPUS_PER_NODE - self.mig.len()).unwrap_or_default();
        let mut out = BTreeMap::new();
        let mut add = |piece: Piece, count: u32| {
            if let Some(resource) = piece.resource().filter(|_| count > 0) {
                *out.entry(resource).or_default() += count;
            }
        };
        add(
            if self.shared { Piece::Share } else { Piece::Gpu },
            if self.shared { REPLICAS * rest } else { rest },
        );
        for &layout in &self.mig {
            [Piece::Mig1g, Piece::Mig2g, Piece::Mig3g].iter().for_each(|&p| add(p, LAYOUTS[layout].count(p)));
        }
        out
    }

    /// The node for the simulator.
    pub fn describe(&self, name: &str, model: &str) -> Description {
        let cut = self.mig.iter().map(|&layout| LAYOUTS[layout].describe(model));
        let rest = (self.mig.len()..GPUS_PER_NODE).map(|_| GpuDescription::new(model));
        Description::new(cut.chain(rest).collect()).named(name)
    }

    /// The plugin's configuration, in NVIDIA's format.
    pub fn plugin_config(&self) -> String {
        let mut text = String::from("version: v1\nflags:\n");
        text += if self.elastic {
            "  migStrategy: on-demand\n  elasticGPUs: true\n"
        } else {
            "  migStrategy: mixed\n"
        };
        if self.shared || self.elastic {
            text += "sharing:\n  timeSlicing:\n    renameByDefault: true\n    resources:\n";
            text += &format!("      - name: nvidia.com/gpu\n        replicas: {REPLICAS}\n");
        }
        text
    }
}

impl Split {
    /// Every GPU whole.
    pub const WHOLE: Self = Self([NodeSetup::WHOLE; NODES.len()]);
    /// Every GPU elastic.
    pub const ELASTIC: Self = Self([NodeSetup::ELASTIC; NODES.len()]);

    /// What all nodes together have room for.
    pub fn capacity(&self, piece: Piece) -> u32 {
        let of = |setup: &NodeSetup| piece.resource().and_then(|r| setup.allocatable().get(r).copied());
        self.0.iter().filter_map(of).sum()
    }
}

impl fmt::Display for NodeSetup {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut parts = Vec::new();
        for (i, layout) in LAYOUTS.iter().enumerate() {
            match self.mig.iter().filter(|&&own| own == i).count() {
                0 => {}
                count => parts.push(format!("{count} MIG {}", layout.title)),
            }
        }
        match GPUS_PER_NODE - self.mig.len() {
            0 => {}
            rest if self.shared => parts.push(format!("{rest} time-sliced x{REPLICAS}")),
            rest => parts.push(format!("{rest} whole")),
        }
        f.write_str(&parts.join(", "))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_layout_is_one_that_the_simulator_can_build() {
        for (i, layout) in LAYOUTS.iter().enumerate() {
            for (name, model) in &NODES[..MIG_NODES] {
                let setup = NodeSetup { mig: vec![i; GPUS_PER_NODE], ..NodeSetup::WHOLE };
                let checked = setup.describe(name, model).check();
                assert!(checked.is_ok(), "{}: {:?}", layout.title, checked.err());
            }
        }
    }

    #[test]
    fn a_setup_says_what_it_has_room_for() {
        let setup = NodeSetup { mig: vec![2, 2, 7], shared: true, elastic: false };
        let want = [
            ("nvidia.com/gpu.shared", 20),
            ("nvidia.com/mig-1g.10gb", 11),
            ("nvidia.com/mig-2g.20gb", 2),
            ("nvidia.com/mig-3g.40gb", 2),
        ];
        assert_eq!(setup.allocatable(), BTreeMap::from(want));
        assert_eq!(setup.to_string(), "2 MIG 3g+2g+1g+1g, 1 MIG 7x1g, 5 time-sliced x4");
        assert_eq!(Split::WHOLE.capacity(Piece::Gpu), 32);
    }
}
