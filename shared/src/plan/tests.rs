use proptest::prelude::*;

use super::*;
use crate::pod::PodSpec;

const TEXT: &str = r#"{"v":1,"uid":"u","node":"n","c":{"main":{"nvidia.com/mig-1g.5gb":[{"gpu":"GPU-a","profile":"1g.5gb","start":3}]}}}"#;

fn request(text: &str) -> Request {
    let spec: PodSpec = serde_json::from_str(text).unwrap();
    Request::of_standard(&spec).unwrap()
}

fn one_slice() -> Request {
    request(r#"{"containers":[{"name":"main","resources":{"limits":{"nvidia.com/mig-1g.5gb":"1"}}}]}"#)
}

#[test]
fn the_documented_text_is_read_and_written_byte_by_byte() {
    let plan = Plan::read(TEXT, "u", "n", &one_slice()).unwrap();
    assert_eq!(plan.to_annotation().unwrap(), TEXT);
}

#[test]
fn a_plan_for_somebody_else_is_no_plan() {
    let read = |uid: &str, node: &str, request: &Request| Plan::read(TEXT, uid, node, request).unwrap_err();
    assert_eq!(read("v", "n", &one_slice()), PlanError::OtherPod("u".into()));
    assert_eq!(read("u", "m", &one_slice()), PlanError::OtherNode("n".into()));
    assert!(matches!(read("u", "n", &Request::default()), PlanError::OtherRequest(_)));
    let more =
        request(r#"{"containers":[{"name":"main","resources":{"limits":{"nvidia.com/mig-1g.5gb":2}}}]}"#);
    assert!(matches!(read("u", "n", &more), PlanError::OtherRequest(_)));
}

#[test]
fn what_is_not_the_format_says_why() {
    for (text, want) in [
        (String::new(), "cannot be read"),
        ("x".repeat(PLAN_MAX_BYTES + 1), "at most 4096"),
        (TEXT.replace(r#""v":1"#, r#""v":2"#), "version 2"),
        (TEXT.replace(r#","start":3"#, ""), "both profile and start"),
        (TEXT.replace("GPU-a", "../../etc"), "not a GPU UUID"),
        (TEXT.replace("1g.5gb\",\"start", "1g\",\"start"), "not a MIG profile"),
        (TEXT.replace(r#""uid""#, r#""extra":1,"uid""#), "unknown field"),
        ("[".repeat(4000), "cannot be read"),
    ] {
        let error = Plan::parse(&text).unwrap_err().to_string();
        assert!(error.contains(want), "{error}");
    }
}

fn any_plan() -> impl Strategy<Value = Plan> {
    let slice = prop::option::of((prop::sample::select(vec!["1g.5gb", "3g.20gb", "1g.5gb+me"]), 0_u8..12));
    let memory = prop::option::of((1_u64..1 << 40).prop_map(MemoryMib));
    let device = ("GPU-[0-9a-f]{1,36}", slice, memory).prop_map(|(gpu, slice, memory)| PlannedDevice {
        gpu: gpu.parse().unwrap(),
        slice: slice.map(|(profile, start)| (profile.parse().unwrap(), start)),
        memory,
    });
    let resource =
        prop::sample::select(vec!["nvidia.com/gpu", "nvidia.com/gpu.shared", "nvidia.com/mig-1g.5gb"]);
    let devices = prop::collection::vec(device, 0..4);
    let resources = prop::collection::btree_map(resource.prop_map(|r| r.parse().unwrap()), devices, 0..3);
    let containers = prop::collection::btree_map("[a-z]{1,8}", resources, 0..3);
    ("[0-9a-f-]{1,36}", "[a-z0-9.-]{1,20}", containers).prop_map(|(uid, node, containers)| Plan {
        uid,
        node,
        containers,
    })
}

proptest! {
    #[test]
    fn what_is_written_is_read_again(plan in any_plan()) {
        prop_assert_eq!(Plan::parse(&plan.to_annotation().unwrap()).unwrap(), plan);
    }

    #[test]
    fn no_text_makes_it_panic(text in ".{0,300}", at in 0_usize..100) {
        let _ = Plan::parse(&text);
        let mut cut = TEXT.to_owned();
        cut.truncate(at.min(TEXT.len()));
        let _ = Plan::parse(&(cut + &text));
    }
}
