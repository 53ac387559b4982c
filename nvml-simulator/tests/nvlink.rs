//! How GPUs are joined: NVLinks, switches, PCIe.
#![allow(clippy::unwrap_used)]

mod common;

use common::{array_text, ask, gpu, on_node};
use nvml_simulator::description::{Description, FabricDescription, GpuDescription, NvLinkDescription};
use nvml_wrapper_sys::bindings::{
    NvmlLib, nvmlGpuFabricInfo_t, nvmlGpuFabricInfo_v2_t, nvmlGpuFabricInfo_v3_t, nvmlPciInfo_t, nvmlReturn_t,
};

const INVALID_ARGUMENT: nvmlReturn_t = 2;
const NOT_SUPPORTED: nvmlReturn_t = 3;

/// 0 and 1 on one PCIe switch with two direct links, 2 and 3 with 0 on an NVSwitch, 4 alone on node 1.
fn five_gpus() -> Description {
    let a100 = || GpuDescription::new("a100-40gb");
    let near = || a100().on_numa_node(0);
    Description::new(vec![near().behind_pcie_switch(3).times(2), near().times(2), a100().on_numa_node(1)])
        .linked(NvLinkDescription::direct(&[0, 1], 2))
        .linked(NvLinkDescription::switched(&[3, 0, 2], 4))
}

fn state(nvml: &NvmlLib, index: u32, link: u32) -> Result<u32, nvmlReturn_t> {
    ask(9, |out| unsafe { nvml.nvmlDeviceGetNvLinkState(gpu(nvml, index), link, out) })
}

/// The bus of each link's far end.
fn remote(nvml: &NvmlLib, index: u32, link: u32) -> Result<String, nvmlReturn_t> {
    let empty: nvmlPciInfo_t = unsafe { std::mem::zeroed() };
    let device = gpu(nvml, index);
    ask(empty, |out| unsafe { nvml.nvmlDeviceGetNvLinkRemotePciInfo_v2(device, link, out) })
        .map(|pci| array_text(&pci.busIdLegacy))
}

#[test]
fn links_lead_to_their_gpu_or_switch_and_end_where_there_are_no_more() {
    on_node("links_lead_to_their_gpu_or_switch_and_end_where_there_are_no_more", &five_gpus(), |node| {
        let nvml = node.c_api_ready();
        let ends =
            |index| -> Vec<String> { (0..18).map_while(|link| remote(&nvml, index, link).ok()).collect() };
        let (first, second, switch) = ("0000:04:00.0", "0000:07:00.0", "0000:C9:00.0");
        assert_eq!(ends(0), [second, second, switch, switch, switch, switch]);
        assert_eq!(ends(1), [first, first]);
        assert_eq!(ends(2), [switch; 4]);
        assert!(ends(4).is_empty());
        assert_eq!((state(&nvml, 0, 5), state(&nvml, 0, 6)), (Ok(1), Err(NOT_SUPPORTED)));
        assert_eq!((state(&nvml, 0, 17), state(&nvml, 0, 18)), (Err(NOT_SUPPORTED), Err(INVALID_ARGUMENT)));
        let kind = |link| {
            ask(9, |out| unsafe { nvml.nvmlDeviceGetNvLinkRemoteDeviceType(gpu(&nvml, 0), link, out) })
        };
        assert_eq!((kind(0), kind(2)), (Ok(0), Ok(2)));
    });
}

#[test]
fn a_link_to_a_lost_gpu_is_down() {
    on_node("a_link_to_a_lost_gpu_is_down", &five_gpus(), |node| {
        let nvml = node.c_api_ready();
        node.outside().update(|node| node.set_lost(1, true)).unwrap();
        assert_eq!((state(&nvml, 0, 0), state(&nvml, 0, 2)), (Ok(0), Ok(1)));
        assert_eq!(remote(&nvml, 0, 0), Err(NOT_SUPPORTED));
        node.outside().update(|node| node.set_lost(1, false)).unwrap();
        assert_eq!(state(&nvml, 0, 0), Ok(1));
    });
}

#[test]
fn peers_reach_each_other_by_nvlink_switch_or_host_bridge() {
    on_node("peers_reach_each_other_by_nvlink_switch_or_host_bridge", &five_gpus(), |node| {
        let nvml = node.c_api_ready();
        let status = |one, other, capability| {
            let (one, other) = (gpu(&nvml, one), gpu(&nvml, other));
            ask(99, |out| unsafe { nvml.nvmlDeviceGetP2PStatus(one, other, capability, out) }).unwrap()
        };
        let (ok, chipset, none) = (0, 1, 5);
        let (read_memory, nvlink) = (0, 2);
        for (one, other, by_nvlink, read) in
            [(0, 1, ok, ok), (0, 2, ok, ok), (3, 2, ok, ok), (1, 2, none, ok), (0, 4, none, chipset)]
        {
            assert_eq!(status(one, other, nvlink), by_nvlink, "{one} {other}");
            assert_eq!(status(other, one, nvlink), by_nvlink, "{other} {one}");
            assert_eq!(status(one, other, read_memory), read, "{one} {other}");
        }
        let level = |one, other| {
            let (one, other) = (gpu(&nvml, one), gpu(&nvml, other));
            ask(99, |out| unsafe { nvml.nvmlDeviceGetTopologyCommonAncestor(one, other, out) }).unwrap()
        };
        assert_eq!([level(0, 0), level(0, 1), level(2, 3), level(1, 2), level(0, 4)], [0, 10, 30, 30, 50]);
    });
}

#[test]
fn impossible_links_are_refused_with_their_cure() {
    let node = |links| Description::new(vec![GpuDescription::new("h200").times(4)]).linked(links);
    for (links, want) in [
        (
            NvLinkDescription::direct(&[0], 1),
            "nvLinks[0].gpus is [0]: name two or more of the node's 4 GPUs, each once",
        ),
        (NvLinkDescription::direct(&[0, 0], 1), "nvLinks[0].gpus is [0, 0]: name two or more of"),
        (NvLinkDescription::direct(&[0, 4], 1), "nvLinks[0].gpus is [0, 4]: name two or more of"),
        (NvLinkDescription::direct(&[0, 1], 0), "nvLinks[0].links is 0: 1 to 18 are possible"),
        (NvLinkDescription::direct(&[0, 1], 19), "nvLinks[0].links is 19: 1 to 18 are possible"),
        (NvLinkDescription::direct(&[0, 1, 2], 10), "nvLinks[0].links gives GPU 0 20 links: the most is 18"),
    ] {
        let said = node(links).check().unwrap_err().to_string();
        assert!(said.starts_with(want), "{said}");
    }
    assert!(node(NvLinkDescription::switched(&[0, 1, 2, 3], 18)).check().is_ok());
}

#[test]
fn a_fabric_is_told_in_all_three_forms() {
    let fabric =
        FabricDescription { cluster_uuid: "0a1b2c3d-0000-4000-8000-0000000000ff".to_owned(), clique_id: 7 };
    let description = Description { fabric: Some(fabric), ..five_gpus() };
    on_node("a_fabric_is_told_in_all_three_forms", &description, |node| {
        let nvml = node.c_api_ready();
        let device = gpu(&nvml, 4);
        let empty: nvmlGpuFabricInfo_t = unsafe { std::mem::zeroed() };
        let told = ask(empty, |out| unsafe { nvml.nvmlDeviceGetGpuFabricInfo(device, out) }).unwrap();
        assert_eq!(
            (told.clusterUuid[0], told.clusterUuid[15], told.cliqueId, told.state),
            (0x0a, 0xff, 7, 3)
        );
        unsafe {
            let mut v2: nvmlGpuFabricInfo_v2_t = std::mem::zeroed();
            v2.version = size_of_val(&v2) as u32 | 2 << 24;
            assert_eq!(nvml.nvmlDeviceGetGpuFabricInfoV(device, (&raw mut v2).cast()), 0);
            assert_eq!((v2.clusterUuid, v2.cliqueId, v2.state), (told.clusterUuid, 7, 3));
            let mut v3: nvmlGpuFabricInfo_v3_t = std::mem::zeroed();
            v3.version = size_of_val(&v3) as u32 | 3 << 24;
            assert_eq!(nvml.nvmlDeviceGetGpuFabricInfoV(device, (&raw mut v3).cast()), 0);
            assert_eq!((v3.clusterUuid, v3.cliqueId, v3.state), (told.clusterUuid, 7, 3));
        }
    });
    let wrong = FabricDescription { cluster_uuid: "GPU-1".to_owned(), clique_id: 0 };
    let said = Description { fabric: Some(wrong), ..five_gpus() }.check().unwrap_err().to_string();
    assert!(said.starts_with("fabric.clusterUuid is \"GPU-1\": use five groups"), "{said}");
}
