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

/// The profiles that all GPUs of seven compute slices have, with the same ids and placements.
///
/// `mib` is the memory of instances of one, two, four and eight memory slices; `sms` are the
/// multiprocessors of a 1g, a 1g of double memory, a 2g, 3g, 4g and 7g.
const fn seven_slices(mib: [u64; 4], sms: [u16; 6]) -> [ProfileRow; 7] {
    [
        ("", 19, 1, 7, mib[0], sms[0], 1, ALL_7),
        ("+me", 20, 1, 1, mib[0], sms[0], 1, ALL_7),
        ("", 15, 1, 4, mib[1], sms[1], 2, &[0, 2, 4, 6]),
        ("", 14, 2, 3, mib[1], sms[2], 2, &[0, 2, 4]),
        ("", 9, 3, 2, mib[2], sms[3], 4, &[0, 4]),
        ("", 5, 4, 1, mib[2], sms[4], 4, &[0]),
        ("", 0, 7, 1, mib[3], sms[5], 8, &[0]),
    ]
}

const A100_SMS: [u16; 6] = [14, 14, 28, 42, 56, 98];
const HOPPER_SMS: [u16; 6] = [16, 26, 32, 60, 64, 132];

const A100_40: [ProfileRow; 7] = seven_slices([4_864, 9_984, 19_968, 40_192], A100_SMS);
const A100_80: [ProfileRow; 7] = seven_slices([9_856, 19_968, 40_192, 80_896], A100_SMS);
const H100_80: [ProfileRow; 7] = seven_slices([9_984, 20_096, 40_448, 81_152], HOPPER_SMS);
// From here on, memory is by the pattern of the rows above for a 7g, for a 3g where only its name is published, and for
// all of GH200 96GB.
const H100_94: [ProfileRow; 7] = seven_slices([11_008, 22_144, 47_488, 95_104], HOPPER_SMS);
const GH200_96: [ProfileRow; 7] = seven_slices([11_264, 22_656, 48_512, 97_280], HOPPER_SMS);
const H200_141: [ProfileRow; 7] = seven_slices([16_384, 33_024, 71_168, 143_360], HOPPER_SMS);
const GH200_144: [ProfileRow; 7] = seven_slices([17_920, 36_096, 72_960, 146_432], HOPPER_SMS);
// Likewise a B200's multiprocessors from 3g on.
const B200_180: [ProfileRow; 7] = seven_slices([22_528, 45_312, 90_880, 182_272], [18, 30, 36, 70, 72, 148]);

const A30: [ProfileRow; 5] = [
    ("", 14, 1, 4, 5_952, 14, 1, ALL_4),
    ("+me", 21, 1, 1, 5_952, 14, 1, ALL_4),
    ("", 5, 2, 2, 11_968, 28, 2, &[0, 2]),
    ("+me", 6, 2, 1, 11_968, 28, 2, &[0, 2]),
    ("", 0, 4, 1, 24_064, 56, 4, &[0]),
];

const RTX_PRO_6000: [ProfileRow; 11] = [
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
];

const fn seven(profiles: &'static [ProfileRow; 7]) -> Option<MigRow> {
    Some(MigRow { memory_slices: 8, compute_slices: 7, profiles })
}

/// The models known by name.
pub const MODELS: &[Model] = &[
    Model {
        key: "a100-40gb",
        product: "NVIDIA A100-SXM4-40GB",
        memory: MemoryMib(40_960),
        compute_capability: (8, 0),
        architecture: "ampere",
        mig: seven(&A100_40),
    },
    Model {
        key: "a100-80gb",
        product: "NVIDIA A100-SXM4-80GB",
        memory: MemoryMib(81_920),
        compute_capability: (8, 0),
        architecture: "ampere",
        mig: seven(&A100_80),
    },
    Model {
        key: "h100-80gb",
        product: "NVIDIA H100 80GB HBM3",
        memory: MemoryMib(81_559),
        compute_capability: (9, 0),
        architecture: "hopper",
        mig: seven(&H100_80),
    },
    Model {
        key: "h100-94gb",
        product: "NVIDIA H100 NVL",
        memory: MemoryMib(95_830),
        compute_capability: (9, 0),
        architecture: "hopper",
        mig: seven(&H100_94),
    },
    Model {
        key: "h200",
        product: "NVIDIA H200",
        memory: MemoryMib(143_771),
        compute_capability: (9, 0),
        architecture: "hopper",
        mig: seven(&H200_141),
    },
    Model {
        key: "gh200-96gb",
        product: "NVIDIA GH200 480GB",
        memory: MemoryMib(97_871),
        compute_capability: (9, 0),
        architecture: "hopper",
        mig: seven(&GH200_96),
    },
    Model {
        key: "gh200-144gb",
        product: "NVIDIA GH200 144G HBM3e",
        memory: MemoryMib(146_831),
        compute_capability: (9, 0),
        architecture: "hopper",
        mig: seven(&GH200_144),
    },
    Model {
        key: "b200",
        product: "NVIDIA B200",
        memory: MemoryMib(183_359),
        compute_capability: (10, 0),
        architecture: "blackwell",
        mig: seven(&B200_180),
    },
    Model {
        key: "a30",
        product: "NVIDIA A30",
        memory: MemoryMib(24_576),
        compute_capability: (8, 0),
        architecture: "ampere",
        mig: Some(MigRow { memory_slices: 4, compute_slices: 4, profiles: &A30 }),
    },
    Model {
        key: "rtx-pro-6000",
        product: "NVIDIA RTX PRO 6000 Blackwell Server Edition",
        memory: MemoryMib(97_887),
        compute_capability: (12, 0),
        architecture: "blackwell",
        mig: Some(MigRow { memory_slices: 12, compute_slices: 4, profiles: &RTX_PRO_6000 }),
    },
    Model {
        key: "l40s",
        product: "NVIDIA L40S",
        memory: MemoryMib(46_068),
        compute_capability: (8, 9),
        architecture: "ada-lovelace",
        mig: None,
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
        let seven = |key, sizes: [&str; 7]| {
            let slices = ["1g", "1g", "1g", "2g", "3g", "4g", "7g"];
            let want: Vec<String> = slices.iter().zip(sizes).map(|(g, gb)| format!("{g}.{gb}")).collect();
            assert_eq!(names(key), want);
        };
        seven("h100-94gb", ["12gb", "12gb+me", "24gb", "24gb", "47gb", "47gb", "94gb"]);
        seven("h200", ["18gb", "18gb+me", "35gb", "35gb", "71gb", "71gb", "141gb"]);
        seven("gh200-96gb", ["12gb", "12gb+me", "24gb", "24gb", "48gb", "48gb", "96gb"]);
        seven("gh200-144gb", ["18gb", "18gb+me", "36gb", "36gb", "72gb", "72gb", "144gb"]);
        seven("b200", ["23gb", "23gb+me", "45gb", "45gb", "90gb", "90gb", "180gb"]);
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
