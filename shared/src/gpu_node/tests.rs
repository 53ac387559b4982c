use std::sync::Arc;

use super::*;

fn status(text: &str) -> GpuNodeStatus {
    serde_json::from_str(text).unwrap()
}

const TWO: &str = r#"{"gpus":[
    {"uuid":"GPU-a","index":0,"model":"M","memoryMib":40960,"offers":[{"resource":"nvidia.com/gpu","uuid":"GPU-a"}]},
    {"uuid":"GPU-b","index":1,"model":"M","memoryMib":40960,"numaNode":1,"offers":[{"resource":"nvidia.com/gpu","uuid":"GPU-b"}]}]}"#;

#[test]
fn gpus_of_one_model_share_their_kind() {
    let gpus = status(TWO).inventory().unwrap();
    assert!(Arc::ptr_eq(&gpus[0].kind, &gpus[1].kind));
    assert_eq!(gpus[1].numa_node, Some(1));
}

#[test]
fn what_is_published_is_what_is_read() {
    let read = status(TWO);
    let again: Vec<GpuStatus> = read.inventory().unwrap().iter().map(GpuStatus::of).collect();
    assert_eq!(again, read.gpus);
}

#[test]
fn links_distinct_shares_and_failed_slices_are_read_as_they_are_written() {
    let text = r#"{"gpus":[
        {"uuid":"GPU-a","index":0,"model":"M","memoryMib":40960,"offers":[
            {"resource":"nvidia.com/gpu.shared","uuid":"GPU-a","replicas":4,"distinct":true}]},
        {"uuid":"GPU-b","index":1,"model":"M","memoryMib":40960,"near":[210],"offers":[
            {"resource":"nvidia.com/mig-1g.5gb","uuid":"MIG-x","slice":{"profile":"1g.5gb","start":0,"size":1}},
            {"resource":"nvidia.com/mig-1g.5gb","uuid":"MIG-y","slice":{"profile":"1g.5gb","start":1,"size":1},"unhealthy":"XID 94"}]}]}"#;
    let read = status(text);
    let gpus = read.inventory().unwrap();
    assert_eq!(crate::topology::nearness(&gpus[0], &gpus[1]), 210);
    assert!(gpus[0].kind.offers()[0].distinct);
    assert_eq!([0, 1].map(|offer| gpus[1].why_not(offer)), [None, Some("XID 94")]);
    let again: Vec<GpuStatus> = gpus.iter().map(GpuStatus::of).collect();
    assert_eq!(again, read.gpus);
    let many = text.replace("[210]", &format!("{:?}", [1; 65]));
    assert!(status(&many).inventory().unwrap_err().to_string().contains("at most 64"));
}

#[test]
fn slices_on_demand_come_from_the_geometry_and_the_booked_ones_have_their_token() {
    let text = r#"{
        "geometries":[{"model":"M","memorySlices":4,"computeSlices":4,"profiles":[
            {"name":"2g.12gb","size":2,"starts":[0,2],"memoryMib":11968},
            {"name":"1g.6gb+me","size":1,"starts":[0,1],"memoryMib":5952,"mediaEngines":true}]}],
        "gpus":[
            {"uuid":"GPU-a","index":0,"model":"M","memoryMib":24576,"migOnDemand":true,
             "offers":[{"resource":"nvidia.com/mig-2g.12gb","uuid":"GPU-a::2g.12gb::1","slice":{"profile":"2g.12gb","start":2,"size":2}}]},
            {"uuid":"GPU-b","index":1,"model":"M","memoryMib":24576,"migOnDemand":true,
             "foreignInstances":[{"profile":"2g.12gb","start":0,"size":2}]},
            {"uuid":"GPU-c","index":2,"model":"M","memoryMib":24576,"migOnDemand":true}]}"#;
    let read = status(text);
    let gpus = read.inventory().unwrap();
    let ids = ["", "GPU-a::2g.12gb::1", "", ""];
    assert_eq!(gpus[0].part_uuids, ids);
    assert_eq!(gpus[1].part_uuids, [""], "one 2g.12gb is left");
    assert!(Arc::ptr_eq(&gpus[0].kind, &gpus[2].kind));
    let (resource, token) = ("nvidia.com/mig-2g.12gb".parse().unwrap(), ids[1].parse().unwrap());
    assert_eq!(crate::gpu::locate(&gpus, &resource, &token), Some((0, 1)));
    let again: Vec<GpuStatus> = gpus.iter().map(GpuStatus::of).collect();
    assert_eq!(again, read.gpus);
    let error =
        status(&text.replace(r#""model":"M","memorySlices""#, r#""model":"N","memorySlices""#)).inventory();
    assert!(error.unwrap_err().to_string().contains("no geometry"));
}

#[test]
fn impossible_inventories_say_why() {
    for (text, want) in [
        (TWO.replace("GPU-b", "GPU-a"), "listed twice"),
        (TWO.replace("GPU-b", "b"), "not a GPU UUID"),
        (TWO.replace(r#""uuid":"GPU-b"}]"#, r#""uuid":"GPU-b","replicas":0}]"#), "GPU GPU-b"),
        (
            TWO.replace(
                r#""uuid":"GPU-b"}]"#,
                r#""uuid":"MIG-b","slice":{"profile":"1g.5gb","start":40,"size":1}}]"#,
            ),
            "outside every GPU",
        ),
    ] {
        let error = status(&text).inventory().unwrap_err().to_string();
        assert!(error.contains(want), "{error}");
    }
}
