//! Random lives of a GPU, audited by counting slices one by one.

use proptest::prelude::*;
use stowage_shared::models::MODELS;

use super::*;
use crate::description::{Boot, Description, GpuDescription};

#[derive(Debug, Clone)]
enum Step {
    Create { profile: usize, start: Option<u8>, fill: bool },
    Destroy { instance: usize },
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        3 => (any::<usize>(), prop::option::of(0..12_u8), any::<bool>())
            .prop_map(|(profile, start, fill)| Step::Create { profile, start, fill }),
        2 => any::<usize>().prop_map(|instance| Step::Destroy { instance }),
    ]
}

/// Counts how often each memory slice, compute slice and set of media engines is used.
fn audit(hardware: &GpuHardware, state: &GpuState) {
    let geometry = hardware.geometry.as_ref().unwrap();
    let mut memory = vec![0; geometry.memory_slices.into()];
    let (mut compute, mut media) = (0, 0);
    for instance in &state.gpu_instances {
        let profile = hardware.profile(instance.profile_id).unwrap();
        assert!(profile.starts.contains(&instance.start));
        (instance.start..instance.start + profile.size).for_each(|slice| memory[usize::from(slice)] += 1);
        compute += profile.compute_slices;
        media += u8::from(profile.media_engines);
        let mut used = vec![0; profile.compute_slices.into()];
        for inner in &instance.compute_instances {
            (inner.start..inner.start + inner.slices).for_each(|slice| used[usize::from(slice)] += 1);
        }
        assert!(used.iter().all(|&count| count <= 1), "{instance:?}");
    }
    assert!(memory.iter().all(|&count| count <= 1), "{state:?}");
    assert!(compute <= geometry.compute_slices && media <= 1, "{state:?}");
    assert!(state.gpu_instances.is_sorted_by(|one, other| one.id < other.id));
}

/// What `remaining` should say, by trying.
fn creatable(hardware: &Hardware, state: &State, profile: u32) -> u32 {
    let mut state = state.clone();
    let mut node = Node { hardware, state: &mut state };
    let starts = hardware.gpus[0].profile(profile).unwrap().starts.clone();
    let created =
        starts.into_iter().filter(|&start| node.create_gpu_instance(0, profile, Some(start)).is_ok());
    u32::try_from(created.count()).unwrap()
}

proptest! {
    #[test]
    fn no_order_of_steps_breaks_a_rule_of_the_hardware(
        model in prop::sample::select(MODELS.iter().filter(|m| m.geometry().is_some()).collect::<Vec<_>>()),
        steps in prop::collection::vec(step(), 1..60),
    ) {
        let description = Description::new(vec![GpuDescription::new(model.key).with_mig(&[])]);
        let Boot { hardware, mut state } = description.check().unwrap();
        let profiles = hardware.gpus[0].geometry.clone().unwrap().profiles;
        for step in steps {
            let mut node = Node { hardware: &hardware, state: &mut state };
            match step {
                Step::Create { profile, start, fill } => {
                    let profile = &profiles[profile % profiles.len()];
                    let room = creatable(&hardware, node.state, profile.id);
                    let created = node.create_gpu_instance(0, profile.id, start);
                    if start.is_none() {
                        prop_assert_eq!(created.is_ok(), room > 0);
                    }
                    if let (Ok(id), true) = (created, fill) {
                        prop_assert_eq!(node.create_compute_instance(0, id, profile.compute_slices, None), Ok(0));
                        prop_assert_eq!(node.create_compute_instance(0, id, 1, None), Err(Refusal::NoRoom));
                    }
                }
                Step::Destroy { instance } => {
                    let instances = &node.state.gpus[0].gpu_instances;
                    let Some(found) = instances.get(instance % instances.len().max(1)).cloned() else { continue };
                    let destroyed = node.destroy_gpu_instance(0, found.id);
                    if found.compute_instances.is_empty() {
                        prop_assert_eq!(destroyed, Ok(()));
                    } else {
                        prop_assert_eq!(destroyed, Err(Refusal::InUse));
                        prop_assert_eq!(node.destroy_compute_instance(0, found.id, 0), Ok(()));
                    }
                }
            }
            audit(&hardware.gpus[0], &state.gpus[0]);
            prop_assert_eq!(state.check(&hardware), Ok(()));
            let in_use = state.gpus[0].slices(&hardware.gpus[0]);
            for profile in &profiles {
                prop_assert_eq!(placement::remaining(&in_use, profile), creatable(&hardware, &state, profile.id));
            }
        }
    }

    #[test]
    fn no_two_instances_that_live_at_once_share_a_uuid(profiles in prop::collection::vec(0..7_usize, 1..20)) {
        let description = Description::new(vec![GpuDescription::new("a100-40gb").with_mig(&[]).times(2)]);
        let Boot { hardware, mut state } = description.check().unwrap();
        let geometry = hardware.gpus[0].geometry.clone().unwrap();
        let mut node = Node { hardware: &hardware, state: &mut state };
        for (at, profile) in profiles.into_iter().enumerate() {
            let gpu = u32::from(at % 2 == 1);
            if let Ok(id) = node.create_gpu_instance(gpu, geometry.profiles[profile].id, None) {
                while node.create_compute_instance(gpu, id, 1, None).is_ok() {}
            }
        }
        let mut uuids = std::collections::BTreeSet::new();
        for (hardware, state) in hardware.gpus.iter().zip(&state.gpus) {
            for (instance, compute) in state.mig_devices() {
                let profile = hardware.profile(instance.profile_id).unwrap();
                prop_assert!(uuids.insert(hardware.mig_uuid(profile, instance.start, instance.id, compute.id)));
            }
        }
    }
}

#[test]
fn nineteen_nineteen_fourteen_nine_fails_as_nvidias_guide_warns() {
    let description = Description::new(vec![GpuDescription::new("a100-40gb").with_mig(&[])]);
    let Boot { hardware, mut state } = description.check().unwrap();
    let mut node = Node { hardware: &hardware, state: &mut state };
    let mut create = |profile| node.create_gpu_instance(0, profile, None).is_ok();
    assert_eq!([19, 19, 14, 9].map(&mut create), [true, true, true, false]);
    let mut state = description.check().unwrap().state;
    let mut node = Node { hardware: &hardware, state: &mut state };
    let mut create = |profile| node.create_gpu_instance(0, profile, None).is_ok();
    assert_eq!([9, 14, 19, 19].map(&mut create), [true; 4]);
}

/// Walks every set of instances that can exist at once, on one model of each geometry.
#[test]
fn in_every_reachable_state_exactly_the_free_placements_can_be_created() {
    let mut walked = 0;
    for model in ["a100-40gb", "a30", "rtx-pro-6000"] {
        let description = Description::new(vec![GpuDescription::new(model).with_mig(&[])]);
        let Boot { hardware, state: empty } = description.check().unwrap();
        let gpu = &hardware.gpus[0];
        let placements: Vec<(u32, MigSlice)> = gpu
            .geometry
            .iter()
            .flat_map(|geometry| &geometry.profiles)
            .flat_map(|profile| profile.starts.iter().map(move |&start| (profile, start)))
            .map(|(profile, start)| (profile.id, slice_of(profile, start).unwrap()))
            .collect();
        let mut seen = std::collections::BTreeSet::from([0_u64]);
        let mut open = vec![(0_u64, empty)];
        while let Some((members, state)) = open.pop() {
            audit(gpu, &state.gpus[0]);
            let in_use = state.gpus[0].slices(gpu);
            for profile in &gpu.geometry.as_ref().unwrap().profiles {
                let room = placement::remaining(&in_use, profile);
                assert_eq!(room, creatable(&hardware, &state, profile.id), "{in_use:?} {}", profile.name);
                let chosen = placement::choose_start(gpu.geometry.as_ref().unwrap(), &in_use, profile);
                assert_eq!(chosen.is_some(), room > 0, "{in_use:?} {}", profile.name);
            }
            for (at, (id, slice)) in placements.iter().enumerate() {
                let mut next = state.clone();
                let mut node = Node { hardware: &hardware, state: &mut next };
                let created = node.create_gpu_instance(0, *id, Some(slice.start));
                let free = !in_use.iter().any(|used| used.conflicts(slice));
                assert_eq!(created.is_ok(), free, "{in_use:?} {slice:?}");
                if free && seen.insert(members | 1 << at) {
                    open.push((members | 1 << at, next));
                }
            }
        }
        walked += seen.len();
    }
    assert_eq!(walked, 3_404);
}
