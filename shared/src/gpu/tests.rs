use super::*;
use crate::models::Model;

fn offer(resource: &str, part: Part, replicas: Option<u32>) -> Offer {
    Offer { resource: resource.parse().unwrap(), part, replicas, distinct: false, capped: false }
}

#[test]
fn the_same_gpu_whole_and_as_shares_exclude_each_other() {
    let offers = vec![
        offer("nvidia.com/gpu", Part::Whole, None),
        offer("nvidia.com/gpu.shared", Part::Whole, Some(4)),
    ];
    let kind = GpuKind::new("x", MemoryMib(1), offers).unwrap();
    assert_eq!((kind.conflicts(0), kind.conflicts(1)), (0b10, 0b01));
}

#[test]
fn every_slice_a_model_can_be_cut_into_fits_the_mask() {
    for model in crate::models::MODELS {
        let slices = model.geometry().map(|g| g.slices().collect::<Vec<_>>()).unwrap_or_default();
        let offers = slices.into_iter().map(|s| offer("nvidia.com/x", Part::Slice(s), None)).collect();
        assert!(GpuKind::new(model.product, model.memory, offers).is_ok(), "{}", model.key);
    }
}

#[test]
fn overlapping_slices_exclude_each_other_and_others_do_not() {
    let geometry = Model::by_key("a100-40gb").and_then(Model::geometry).unwrap();
    let wanted = [("3g.20gb", 4), ("1g.5gb", 4), ("1g.5gb", 0)];
    let offers = wanted.map(|(profile, start)| {
        let slice = geometry.slices().find(|s| s.profile.as_str() == profile && s.start == start).unwrap();
        offer("nvidia.com/x", Part::Slice(slice), None)
    });
    let kind = GpuKind::new("x", MemoryMib(1), offers.into()).unwrap();
    assert_eq!([0, 1, 2].map(|i| kind.conflicts(i)), [0b010, 0b001, 0]);
}

#[test]
fn device_ids_lead_back_to_their_offer() {
    let offers = vec![
        offer("nvidia.com/gpu", Part::Whole, None),
        offer("nvidia.com/gpu.shared", Part::Whole, Some(2)),
    ];
    let gpu = Gpu {
        uuid: "GPU-a".parse().unwrap(),
        index: 0,
        numa_node: None,
        near: Vec::new(),
        kind: Arc::new(GpuKind::new("x", MemoryMib(1), offers).unwrap()),
        part_uuids: vec!["GPU-a".into(), "GPU-a".into()],
        foreign: Vec::new(),
        unhealthy: None,
        sick: BTreeMap::new(),
    };
    let ids: Vec<String> = [0, 1].iter().flat_map(|&o| gpu.device_ids(o)).map(|id| id.to_string()).collect();
    assert_eq!(ids, ["GPU-a", "GPU-a::0", "GPU-a::1"]);
    for (o, resource) in ["nvidia.com/gpu", "nvidia.com/gpu.shared"].iter().enumerate() {
        for id in gpu.device_ids(o) {
            assert_eq!(gpu.offer_of(&resource.parse().unwrap(), &id), Some(o));
        }
    }
    assert_eq!(gpu.offer_of(&"nvidia.com/gpu.shared".parse().unwrap(), &"GPU-a::2".parse().unwrap()), None);
    assert_eq!(gpu.offer_of(&"nvidia.com/gpu.shared".parse().unwrap(), &"GPU-a".parse().unwrap()), None);
}

#[test]
fn zero_replicas_and_too_many_offers_are_refused() {
    let none = vec![offer("nvidia.com/gpu.shared", Part::Whole, Some(0))];
    assert!(matches!(GpuKind::new("x", MemoryMib(1), none), Err(GpuKindError::Replicas { .. })));
    let many = vec![offer("nvidia.com/gpu", Part::Whole, None); 65];
    assert_eq!(GpuKind::new("x", MemoryMib(1), many), Err(GpuKindError::TooManyOffers(65)));
}
