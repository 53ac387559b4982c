use std::collections::BTreeSet;

use super::*;
use crate::models::MODELS;

#[test]
fn profile_names_follow_go_nvlib() {
    for (slices, instance, gpu, want) in [
        (1, 4_864, 40_960, "1g.5gb"),
        (2, 9_984, 40_960, "2g.10gb"),
        (3, 20_096, 40_960, "3g.20gb"),
        (7, 40_192, 40_960, "7g.40gb"),
        (1, 9_856, 81_920, "1g.10gb"),
        (7, 80_896, 81_920, "7g.80gb"),
        (1, 5_949, 24_576, "1g.6gb"),
        (4, 24_064, 24_576, "4g.24gb"),
        (1, 24_187, 97_887, "1g.24gb"),
    ] {
        assert_eq!(ProfileName::of(slices, MemoryMib(instance), MemoryMib(gpu), "").as_str(), want);
    }
    assert_eq!(ProfileName::of(1, MemoryMib(4_864), MemoryMib(40_960), "+me").as_str(), "1g.5gb+me");
}

#[test]
fn only_profile_names_are_profile_names() {
    for good in ["1g.5gb", "1g.5gb+me", "1c.3g.20gb", "1g.24gb-me", "1g.24gb+me.all", "7g.141gb"] {
        assert_eq!(good.parse::<ProfileName>().map(String::from), Ok(good.to_owned()));
    }
    for bad in
        ["", "1g", "g.5gb", "1g.5", "1g.5gb+", "1g.5gb+ME", "1g.5gb/x", "99999g.5gb", "1g.5gb::0", "1.2.3.4"]
    {
        assert!(bad.parse::<ProfileName>().is_err(), "{bad}");
    }
}

/// Every set of slices that can exist at once, and the number of ways to add one more to some set.
fn walk(geometry: &Geometry) -> (usize, usize, usize) {
    let slices: Vec<MigSlice> = geometry.slices().collect();
    let mut seen = BTreeSet::from([0_u64]);
    let (mut open, mut edges) = (vec![0_u64], 0);
    while let Some(state) = open.pop() {
        let members = || slices.iter().enumerate().filter(move |(i, _)| state >> i & 1 == 1).map(|(_, s)| s);
        let compute: u8 =
            members().filter_map(|s| geometry.profile(&s.profile)).map(|p| p.compute_slices).sum();
        assert!(compute <= geometry.compute_slices, "placements alone bound the compute slices");
        for (i, slice) in slices.iter().enumerate() {
            if state >> i & 1 == 0 && members().all(|other| !other.conflicts(slice)) {
                edges += 1;
                if seen.insert(state | 1 << i) {
                    open.push(state | 1 << i);
                }
            }
        }
    }
    let mask = |state: u64| {
        slices.iter().enumerate().filter(|(i, _)| state >> i & 1 == 1).fold(0, |mask, (_, s)| mask | s.mask())
    };
    let masks: BTreeSet<u32> = seen.iter().map(|&state| mask(state)).collect();
    (seen.len(), edges, masks.len())
}

/// The counts were taken from the published placement tables by an independent program.
#[test]
fn the_reachable_states_of_every_known_geometry_are_as_counted() {
    let mut states = std::collections::BTreeMap::new();
    let mut walked = 0;
    for model in MODELS {
        let Some(geometry) = model.geometry() else { continue };
        geometry.check().unwrap();
        let want = match geometry.memory_slices {
            8 => (2_319, 9_129, 192),
            4 => (76, 171, 16),
            12 => (1_009, 3_048, 16),
            other => panic!("{} has a new grid of {other}", model.product),
        };
        assert_eq!(walk(&geometry), want, "{}", model.product);
        states.insert(geometry.memory_slices, want.0);
        walked += 1;
    }
    assert_eq!((walked, states.values().sum::<usize>()), (10, 3_404));
}

#[test]
fn a_geometry_outside_its_gpu_is_refused() {
    let mut geometry = MODELS.iter().find_map(crate::models::Model::geometry).unwrap();
    geometry.profiles[0].starts.push(8);
    assert!(matches!(geometry.check(), Err(GeometryError::Outside { start: 8, .. })));
}
