//! GPU models as data: for the simulator and for documentation.
//!
//! A real node's geometry is always read from NVML. Sizes, starts and ids are those that `nvidia-smi mig
//! -lgip` and `-lgipp` print; memory varies by a few per cent with the driver, so it is a fixture and not a
//! constant to compare with.

use crate::mig::{Geometry, Profile, ProfileName};
use crate::units::MemoryMib;

/// One GPU model.
#[derive(Debug)]
pub struct Model {
    /// A short name for configuration files, e.g. `a100-40gb`.
    pub key: &'static str,
    /// The product name that NVML reports.
    pub product: &'static str,
    /// Total memory.
    pub memory: MemoryMib,
    /// CUDA compute capability, major and minor.
    pub compute_capability: (u8, u8),
    /// NVML's name of the architecture, in lower case.
    pub architecture: &'static str,
    mig: Option<MigRow>,
}

#[derive(Debug)]
struct MigRow {
    memory_slices: u8,
    compute_slices: u8,
    profiles: &'static [ProfileRow],
}

/// Attribute, NVML id, compute slices, most instances, memory in MiB, multiprocessors, size, starts.
type ProfileRow = (&'static str, u32, u8, u8, u64, u16, u8, &'static [u8]);

impl Model {
    /// The model of that key.
    pub fn by_key(key: &str) -> Option<&'static Self> {
        MODELS.iter().find(|model| model.key == key)
    }

    /// Its MIG geometry; `None` where the model has no MIG.
    pub fn geometry(&self) -> Option<Geometry> {
        let mig = self.mig.as_ref()?;
        let profiles = mig.profiles.iter().map(|&row| self.profile(row)).collect();
        Some(Geometry { memory_slices: mig.memory_slices, compute_slices: mig.compute_slices, profiles })
    }

    fn profile(&self, (attribute, id, compute_slices, most, mib, sms, size, starts): ProfileRow) -> Profile {
        Profile {
            name: ProfileName::of(u32::from(compute_slices), MemoryMib(mib), self.memory, attribute),
            id,
            compute_slices,
            size,
            starts: starts.to_vec(),
            max_instances: most,
            memory: MemoryMib(mib),
            multiprocessors: sms,
            media_engines: attribute.starts_with("+me"),
        }
    }
}

const ALL_7: &[u8] = &[0, 1, 2, 3, 4, 5, 6];
const ALL_4: &[u8] = &[0, 1, 2, 3];
const RTX_1G: &[u8] = &[0, 3, 6, 9];
const RTX_2G: &[u8] = &[0, 6];

/// The models known by name.
pub const MODELS: &[Model] = &[
    Model {
        key: "a100-40gb",
        product: "NVIDIA A100-SXM4-40GB",
        memory: MemoryMib(40_960),
        compute_capability: (8, 0),
        architecture: "ampere",
        mig: Some(MigRow {
            memory_slices: 8,
            compute_slices: 7,
            profiles: &[
                ("", 19, 1, 7, 4_864, 14, 1, ALL_7),
                ("+me", 20, 1, 1, 4_864, 14, 1, ALL_7),
                ("", 15, 1, 4, 9_984, 14, 2, &[0, 2, 4, 6]),
                ("", 14, 2, 3, 9_984, 28, 2, &[0, 2, 4]),
                ("", 9, 3, 2, 19_968, 42, 4, &[0, 4]),
                ("", 5, 4, 1, 19_968, 56, 4, &[0]),
                ("", 0, 7, 1, 40_192, 98, 8, &[0]),
            ],
        }),
    },
    Model {
        key: "a100-80gb",
        product: "NVIDIA A100-SXM4-80GB",
        memory: MemoryMib(81_920),
        compute_capability: (8, 0),
        architecture: "ampere",
        mig: Some(MigRow {
            memory_slices: 8,
            compute_slices: 7,
            profiles: &[
                ("", 19, 1, 7, 9_856, 14, 1, ALL_7),
                ("+me", 20, 1, 1, 9_856, 14, 1, ALL_7),
                ("", 15, 1, 4, 19_968, 14, 2, &[0, 2, 4, 6]),
                ("", 14, 2, 3, 19_968, 28, 2, &[0, 2, 4]),
                ("", 9, 3, 2, 40_192, 42, 4, &[0, 4]),
                ("", 5, 4, 1, 40_192, 56, 4, &[0]),
                ("", 0, 7, 1, 80_896, 98, 8, &[0]),
            ],
        }),
    },
    Model {
        key: "h100-80gb",
        product: "NVIDIA H100 80GB HBM3",
        memory: MemoryMib(81_559),
        compute_capability: (9, 0),
        architecture: "hopper",
        mig: Some(MigRow {
            memory_slices: 8,
            compute_slices: 7,
            profiles: &[
                ("", 19, 1, 7, 9_984, 16, 1, ALL_7),
                ("+me", 20, 1, 1, 9_984, 16, 1, ALL_7),
                ("", 15, 1, 4, 20_096, 26, 2, &[0, 2, 4, 6]),
                ("", 14, 2, 3, 20_096, 32, 2, &[0, 2, 4]),
                ("", 9, 3, 2, 40_448, 60, 4, &[0, 4]),
                ("", 5, 4, 1, 40_448, 64, 4, &[0]),
                ("", 0, 7, 1, 81_152, 132, 8, &[0]),
            ],
        }),
    },
    Model {
        key: "a30",
        product: "NVIDIA A30",
        memory: MemoryMib(24_576),
        compute_capability: (8, 0),
        architecture: "ampere",
        mig: Some(MigRow {
            memory_slices: 4,
            compute_slices: 4,
            profiles: &[
                ("", 14, 1, 4, 5_952, 14, 1, ALL_4),
                ("+me", 21, 1, 1, 5_952, 14, 1, ALL_4),
                ("", 5, 2, 2, 11_968, 28, 2, &[0, 2]),
                ("+me", 6, 2, 1, 11_968, 28, 2, &[0, 2]),
                ("", 0, 4, 1, 24_064, 56, 4, &[0]),
            ],
        }),
    },
    Model {
        key: "rtx-pro-6000",
        product: "NVIDIA RTX PRO 6000 Blackwell Server Edition",
        memory: MemoryMib(97_887),
        compute_capability: (12, 0),
        architecture: "blackwell",
        mig: Some(MigRow {
            memory_slices: 12,
            compute_slices: 4,
            profiles: &[
                ("", 14, 1, 4, 24_192, 46, 3, RTX_1G),
                ("+me", 21, 1, 1, 24_192, 46, 3, RTX_1G),
                ("+gfx", 47, 1, 4, 24_192, 46, 3, RTX_1G),
                ("+me.all", 65, 1, 1, 24_192, 46, 3, RTX_1G),
                ("-me", 67, 1, 4, 24_192, 46, 3, RTX_1G),
                ("", 5, 2, 2, 48_512, 94, 6, RTX_2G),
                ("+gfx", 35, 2, 2, 48_512, 94, 6, RTX_2G),
                ("+me.all", 64, 2, 1, 48_512, 94, 6, RTX_2G),
                ("-me", 66, 2, 2, 48_512, 94, 6, RTX_2G),
                ("", 0, 4, 1, 97_280, 188, 12, &[0]),
                ("+gfx", 32, 4, 1, 97_280, 188, 12, &[0]),
            ],
        }),
    },
    Model {
        key: "l4",
        product: "NVIDIA L4",
        memory: MemoryMib(23_034),
        compute_capability: (8, 9),
        architecture: "ada-lovelace",
        mig: None,
    },
    Model {
        key: "t4",
        product: "Tesla T4",
        memory: MemoryMib(15_360),
        compute_capability: (7, 5),
        architecture: "turing",
        mig: None,
    },
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_tables_give_nvidias_profile_names() {
        let names = |key: &str| -> Vec<String> {
            let geometry = Model::by_key(key).and_then(Model::geometry).unwrap();
            geometry.profiles.into_iter().map(|profile| profile.name.into()).collect()
        };
        assert_eq!(
            names("a100-40gb"),
            ["1g.5gb", "1g.5gb+me", "1g.10gb", "2g.10gb", "3g.20gb", "4g.20gb", "7g.40gb"]
        );
        assert_eq!(names("h100-80gb"), names("a100-80gb"));
        assert_eq!(names("a30"), ["1g.6gb", "1g.6gb+me", "2g.12gb", "2g.12gb+me", "4g.24gb"]);
        assert_eq!(names("rtx-pro-6000")[3..6], ["1g.24gb+me.all", "1g.24gb-me", "2g.48gb"]);
    }

    #[test]
    fn as_many_instances_fit_as_the_table_says() {
        for model in MODELS {
            for profile in model.geometry().into_iter().flat_map(|geometry| geometry.profiles) {
                let most = if profile.media_engines { 1 } else { profile.starts.len() };
                assert_eq!(usize::from(profile.max_instances), most, "{} {}", model.key, profile.name);
            }
        }
    }
}
