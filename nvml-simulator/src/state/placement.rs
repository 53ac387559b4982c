//! Where an instance may go, and where it goes if nobody says.
//!
//! NVIDIA documents the possible placements, not the choice among them. The rule here, *the placement that
//! rules out the fewest other placements, then the lowest start*, gives the order in which NVIDIA's MIG
//! user guide shows seven `1g.5gb` being created (start 6, then 4 and 5, then 0 to 3), and it explains why
//! creating `19,19,14,9` in that order fails. A program must not rely on it: it should name the start.

use stowage_shared::mig::{Geometry, MigSlice, Profile};

use super::slice_of;

/// The start for a new instance among those in use; `None` if there is none.
pub fn choose_start(geometry: &Geometry, in_use: &[MigSlice], profile: &Profile) -> Option<u8> {
    let open: Vec<MigSlice> =
        geometry.slices().filter(|slice| !in_use.iter().any(|used| used.conflicts(slice))).collect();
    open.iter()
        .filter(|slice| slice.profile == profile.name)
        .min_by_key(|slice| (open.iter().filter(|other| other.conflicts(slice)).count(), slice.start))
        .map(|slice| slice.start)
}

/// How many more instances of that profile can be created.
pub fn remaining(in_use: &[MigSlice], profile: &Profile) -> u32 {
    // A profile's own placements never overlap each other, so taking each that is open counts the most.
    let mut taken = in_use.to_vec();
    let mut count = 0;
    for slice in profile.starts.iter().filter_map(|&start| slice_of(profile, start)) {
        if !taken.iter().any(|used| used.conflicts(&slice)) {
            taken.push(slice);
            count += 1;
        }
    }
    count
}

/// The compute slices that a compute instance may have in a GPU instance of so many.
///
/// Those that `nvidia-smi mig -lcip` lists: each size up to the whole, but no 3 in 4 and nothing between
/// 4 and 7.
pub fn compute_sizes(gpu_instance_slices: u8) -> impl Iterator<Item = u8> {
    const SIZES: [u8; 5] = [1, 2, 3, 4, 7];
    SIZES
        .into_iter()
        .filter(move |&size| size <= gpu_instance_slices && (size, gpu_instance_slices) != (3, 4))
}

/// Where a compute instance of that size may start: multiples of the next power of two, while it fits.
pub fn compute_starts(gpu_instance_slices: u8, size: u8) -> impl Iterator<Item = u8> {
    let step = usize::from(size.max(1).next_power_of_two());
    (0..=gpu_instance_slices.saturating_sub(size)).step_by(step).filter(move |_| size <= gpu_instance_slices)
}
