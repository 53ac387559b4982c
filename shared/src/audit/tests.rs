use std::collections::BTreeMap;
use std::sync::Arc;

use super::*;
use crate::gpu::{GpuKind, Offer, Part};
use crate::models::Model;
use crate::plan::PlannedDevice;
use crate::pod::PodSpec;
use crate::units::MemoryMib;

const SLICES: [(&str, u8); 3] = [("3g.20gb", 4), ("1g.5gb", 4), ("1g.5gb", 0)];

/// One A100 that is offered as two overlapping slices, one beside them, and one GPU in four shares.
fn view() -> NodeView {
    let geometry = Model::by_key("a100-40gb").and_then(Model::geometry).unwrap();
    let slices = SLICES.map(|(profile, start)| {
        let slice = geometry.slices().find(|s| s.profile.as_str() == profile && s.start == start).unwrap();
        Offer {
            resource: ResourceName::mig(&slice.profile),
            part: Part::Slice(slice),
            replicas: None,
            distinct: false,
            capped: false,
        }
    });
    let shares = vec![Offer {
        resource: ResourceName::gpu().shared(),
        part: Part::Whole,
        replicas: Some(4),
        distinct: false,
        capped: false,
    }];
    let gpu = |index: u32, uuid: &str, parts: &[&str], offers: Vec<Offer>| Gpu {
        uuid: uuid.parse().unwrap(),
        index,
        numa_node: None,
        kind: Arc::new(GpuKind::new("M", MemoryMib(1), offers).unwrap()),
        part_uuids: parts.iter().map(|part| (*part).to_owned()).collect(),
        near: Vec::new(),
        foreign: Vec::new(),
        unhealthy: None,
        sick: BTreeMap::new(),
    };
    let gpus = vec![
        gpu(0, "GPU-a", &["MIG-3g", "MIG-1g-high", "MIG-1g-low"], slices.into()),
        gpu(1, "GPU-b", &["GPU-b"], shares.clone()),
        gpu(2, "GPU-c", &["GPU-c"], shares),
    ];
    NodeView { node: "n".into(), gpus, ..NodeView::default() }
}

impl NodeView {
    fn pod(mut self, name: &str, resource: &str, planned: Option<(&str, Option<(&str, u8)>)>) -> Self {
        let text = format!(
            r#"{{"containers":[{{"name":"c","resources":{{"limits":{{"nvidia.com/{resource}":1}}}}}}]}}"#
        );
        let request = Request::of_standard(&serde_json::from_str::<PodSpec>(&text).unwrap()).unwrap();
        let plan = planned.map(|(gpu, slice)| {
            let slice = slice.map(|(profile, start)| (profile.parse().unwrap(), start));
            let devices = vec![PlannedDevice { gpu: gpu.parse().unwrap(), slice, memory: None }];
            let resources = BTreeMap::from([(format!("nvidia.com/{resource}").parse().unwrap(), devices)]);
            Plan { uid: name.into(), node: "n".into(), containers: BTreeMap::from([("c".into(), resources)]) }
        });
        let (namespace, name, uid) = ("d".into(), name.into(), name.into());
        self.pods.push(PodView { namespace, name, uid, request, plan, running: true });
        self
    }

    fn holds(mut self, pod: &str, resource: &str, id: &str) -> Self {
        self.allocations.push(AllocationStatus {
            namespace: "d".into(),
            pod: pod.into(),
            uid: String::new(),
            container: "c".into(),
            resource: format!("nvidia.com/{resource}").parse().unwrap(),
            device_ids: vec![id.into()],
        });
        self
    }

    #[track_caller]
    fn finds(&self, want: &[Kind]) {
        let findings = audit(self);
        let kinds: Vec<Kind> = findings.iter().map(|finding| finding.kind).collect();
        assert_eq!(kinds, want, "{findings:#?}");
    }
}

#[test]
fn a_sound_state_has_no_findings() {
    view()
        .pod("a", "mig-1g.5gb", Some(("GPU-a", Some(("1g.5gb", 0)))))
        .pod("b", "gpu.shared", Some(("GPU-b", None)))
        .pod("c", "gpu.shared", None)
        .holds("a", "mig-1g.5gb", "MIG-1g-low")
        .holds("b", "gpu.shared", "GPU-b::3")
        .holds("c", "gpu.shared", "GPU-b::0")
        .finds(&[]);
}

#[test]
fn a_planted_overlap_is_found() {
    view()
        .pod("a", "mig-3g.20gb", None)
        .pod("b", "mig-1g.5gb", None)
        .holds("a", "mig-3g.20gb", "MIG-3g")
        .holds("b", "mig-1g.5gb", "MIG-1g-high")
        .finds(&[Kind::Overlap]);
}

#[test]
fn a_device_given_twice_is_found() {
    view()
        .pod("a", "gpu.shared", None)
        .pod("b", "gpu.shared", None)
        .holds("a", "gpu.shared", "GPU-b::0")
        .holds("b", "gpu.shared", "GPU-b::0")
        .finds(&[Kind::DoubleUse]);
}

#[test]
fn a_planted_leak_and_an_unknown_device_are_found() {
    view().holds("gone", "gpu.shared", "GPU-b::0").finds(&[Kind::Leak]);
    view().pod("a", "gpu.shared", None).holds("a", "gpu.shared", "GPU-z::0").finds(&[Kind::UnknownDevice]);
}

#[test]
fn what_is_not_offered_any_more_is_told_apart_and_must_be_its_holders_alone() {
    view().pod("a", "gpu.shared", None).holds("a", "gpu.shared", "GPU-b::4").finds(&[Kind::Leftover]);
    let shares = view().pod("a", "gpu.shared", None).pod("b", "gpu.shared", None);
    let shares = shares.holds("a", "gpu.shared", "GPU-b::4").holds("b", "gpu.shared", "GPU-b::0");
    shares.finds(&[Kind::Leftover]);
    let whole = view().pod("a", "gpu", None).pod("b", "gpu.shared", None);
    whole
        .holds("a", "gpu", "GPU-b")
        .holds("b", "gpu.shared", "GPU-b::0")
        .finds(&[Kind::Overlap, Kind::Leftover]);
}

#[test]
fn a_running_pod_without_its_devices_is_found() {
    view().pod("a", "gpu.shared", Some(("GPU-b", None))).finds(&[Kind::Missing]);
}

#[test]
fn a_planted_drift_is_found_but_a_swap_is_none() {
    let planned = view().pod("a", "gpu.shared", Some(("GPU-b", None)));
    planned.holds("a", "gpu.shared", "GPU-c::0").finds(&[Kind::Drift]);
    view()
        .pod("a", "gpu.shared", Some(("GPU-b", None)))
        .pod("b", "gpu.shared", Some(("GPU-c", None)))
        .holds("a", "gpu.shared", "GPU-c::0")
        .holds("b", "gpu.shared", "GPU-b::0")
        .finds(&[]);
}

#[test]
fn a_device_whose_planned_pod_holds_another_may_be_promised_again() {
    // They swapped, one of them ended, and its device went to a third pod.
    let low = Some(("GPU-a", Some(("1g.5gb", 0))));
    let view = view().pod("a", "mig-1g.5gb", low).pod("c", "mig-1g.5gb", low);
    let view = view.holds("a", "mig-1g.5gb", "MIG-1g-high").holds("c", "mig-1g.5gb", "MIG-1g-low");
    assert!(audit(&view).iter().all(|finding| finding.severity == Severity::Notice), "{:?}", audit(&view));
}

#[test]
fn a_pod_that_waits_gets_what_the_one_it_swapped_with_left() {
    // The kubelet came for `b` first, and gave it what `a` was promised.
    let [low, high] = [0, 4].map(|start| Some(("GPU-a", Some(("1g.5gb", start)))));
    let mut view = view().pod("a", "mig-1g.5gb", low).pod("b", "mig-1g.5gb", high);
    view.pods[0].running = false;
    view.holds("b", "mig-1g.5gb", "MIG-1g-low").finds(&[]);
}

#[test]
fn promises_beyond_the_devices_are_found() {
    let slice = Some(("GPU-a", Some(("1g.5gb", 0))));
    let mut double = view().pod("a", "mig-1g.5gb", slice).pod("b", "mig-1g.5gb", slice);
    double.pods.iter_mut().for_each(|pod| pod.running = false);
    double.finds(&[Kind::DoublePlan]);
    let mut nowhere = view().pod("a", "gpu.shared", Some(("GPU-z", None)));
    nowhere.pods[0].running = false;
    nowhere.finds(&[Kind::PlanWithoutDevice]);
}

#[test]
fn a_device_that_is_unhealthy_is_noted_where_a_pod_has_it_or_waits_for_it() {
    let sick = |mut view: NodeView| {
        view.gpus[0].sick.insert(2, "XID 94".into());
        view.gpus[2].unhealthy = Some("XID 79".into());
        view
    };
    let low = Some(("GPU-a", Some(("1g.5gb", 0))));
    let held = sick(view()).pod("a", "mig-1g.5gb", low).pod("b", "gpu.shared", None);
    let held = held.holds("a", "mig-1g.5gb", "MIG-1g-low").holds("b", "gpu.shared", "GPU-c::0");
    held.finds(&[Kind::Unhealthy, Kind::Unhealthy]);
    let texts: Vec<String> = audit(&held).into_iter().map(|finding| finding.text).collect();
    assert!(
        texts[0].ends_with("MIG-1g-low of nvidia.com/mig-1g.5gb, which is unhealthy: XID 94"),
        "{texts:?}"
    );
    let mut waits = sick(view()).pod("a", "mig-1g.5gb", low);
    waits.pods[0].running = false;
    waits.finds(&[Kind::Unhealthy]);
    // The neighbours of a slice that failed are well.
    let well = sick(view()).pod("a", "mig-1g.5gb", None).holds("a", "mig-1g.5gb", "MIG-1g-high");
    well.finds(&[]);
}
