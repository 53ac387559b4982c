//! NVML's manners: initialization, null pointers, sizes, versions, unknown handles, names.
#![allow(clippy::unwrap_used)]

mod common;

use std::ffi::CString;
use std::ptr::null_mut;

use common::{array_text, ask, ask_text, child, gpu, is_child, load, on_node, text};
use nvml_simulator::CONFIG_ENV;
use nvml_simulator::description::{Description, GpuDescription};
use nvml_wrapper_sys::bindings::{
    NvmlLib, nvmlDevice_t, nvmlGpuFabricInfo_v2_t, nvmlMemory_t, nvmlMemory_v2_st, nvmlPciInfo_t,
    nvmlReturn_t,
};

const UNINITIALIZED: nvmlReturn_t = 1;
const INVALID_ARGUMENT: nvmlReturn_t = 2;
const NOT_SUPPORTED: nvmlReturn_t = 3;
const NOT_FOUND: nvmlReturn_t = 6;
const INSUFFICIENT_SIZE: nvmlReturn_t = 7;
const DRIVER_NOT_LOADED: nvmlReturn_t = 9;
const ARGUMENT_VERSION_MISMATCH: nvmlReturn_t = 25;

fn two_gpus() -> Description {
    Description::new(vec![GpuDescription::new("a100-40gb").on_numa_node(1), GpuDescription::new("h100-80gb")])
}

fn by_uuid(nvml: &NvmlLib, uuid: &str) -> Result<nvmlDevice_t, nvmlReturn_t> {
    let uuid = CString::new(uuid).unwrap();
    ask(null_mut(), |out| unsafe { nvml.nvmlDeviceGetHandleByUUID(uuid.as_ptr(), out) })
}

#[test]
fn nothing_works_before_init_and_after_the_last_shutdown() {
    on_node("nothing_works_before_init_and_after_the_last_shutdown", &two_gpus(), |node| {
        let nvml = node.c_api();
        let count = || ask(0, |out| unsafe { nvml.nvmlDeviceGetCount_v2(out) });
        unsafe {
            assert_eq!(count(), Err(UNINITIALIZED));
            assert_eq!(nvml.nvmlShutdown(), UNINITIALIZED);
            assert_eq!(nvml.nvmlInit_v2(), 0);
            assert_eq!(nvml.nvmlInitWithFlags(0), 0);
            assert_eq!(nvml.nvmlShutdown(), 0);
            assert_eq!(count(), Ok(2), "one of two initializations is left");
            assert_eq!(nvml.nvmlShutdown(), 0);
            assert_eq!(count(), Err(UNINITIALIZED));
            assert_eq!(nvml.nvmlInit_v2(), 0);
            assert_eq!(count(), Ok(2));
        }
    });
}

#[test]
fn a_null_pointer_is_an_invalid_argument() {
    on_node("a_null_pointer_is_an_invalid_argument", &two_gpus(), |node| {
        let nvml = node.c_api_ready();
        let gpu = gpu(&nvml, 0);
        unsafe {
            assert_eq!(nvml.nvmlDeviceGetCount_v2(null_mut()), INVALID_ARGUMENT);
            assert_eq!(nvml.nvmlDeviceGetHandleByIndex_v2(0, null_mut()), INVALID_ARGUMENT);
            assert_eq!(nvml.nvmlDeviceGetHandleByUUID(std::ptr::null(), &mut null_mut()), INVALID_ARGUMENT);
            assert_eq!(nvml.nvmlDeviceGetName(gpu, null_mut(), 64), INVALID_ARGUMENT);
            assert_eq!(nvml.nvmlDeviceGetMemoryInfo(gpu, null_mut()), INVALID_ARGUMENT);
            assert_eq!(nvml.nvmlDeviceGetMemoryInfo_v2(gpu, null_mut()), INVALID_ARGUMENT);
            assert_eq!(nvml.nvmlDeviceGetMigMode(gpu, null_mut(), null_mut()), INVALID_ARGUMENT);
            assert_eq!(nvml.nvmlDeviceSetMigMode(gpu, 1, null_mut()), INVALID_ARGUMENT);
            assert_eq!(nvml.nvmlEventSetCreate(null_mut()), INVALID_ARGUMENT);
            assert_eq!(nvml.nvmlDeviceGetUUID(null_mut(), null_mut(), 0), INVALID_ARGUMENT);
        }
    });
}

#[test]
fn a_wild_handle_is_an_invalid_argument_and_never_a_crash() {
    on_node("a_wild_handle_is_an_invalid_argument_and_never_a_crash", &two_gpus(), |node| {
        let nvml = node.c_api_ready();
        let real = gpu(&nvml, 0).addr();
        for wild in [0, 1, real - 16, real + 1, real + 64, usize::MAX] {
            let index =
                ask(0, |out| unsafe { nvml.nvmlDeviceGetIndex(std::ptr::without_provenance_mut(wild), out) });
            assert_eq!(index, Err(INVALID_ARGUMENT), "{wild:#x}");
        }
        // A handle of another kind is none of a device.
        let set = ask(null_mut(), |out| unsafe { nvml.nvmlEventSetCreate(out) }).unwrap();
        assert_eq!(ask(0, |out| unsafe { nvml.nvmlDeviceGetIndex(set.cast(), out) }), Err(INVALID_ARGUMENT));
    });
}

#[test]
fn a_gpu_has_one_handle_however_it_is_found_also_after_a_new_init() {
    on_node("a_gpu_has_one_handle_however_it_is_found_also_after_a_new_init", &two_gpus(), |node| {
        let nvml = node.c_api_ready();
        let first = gpu(&nvml, 1);
        let uuid = ask_text(|out, length| unsafe { nvml.nvmlDeviceGetUUID(first, out, length) }).unwrap();
        assert_eq!(by_uuid(&nvml, &uuid), Ok(first));
        assert_ne!(gpu(&nvml, 0), first);
        unsafe {
            assert_eq!(nvml.nvmlShutdown(), 0);
            assert_eq!(nvml.nvmlInit_v2(), 0);
        }
        assert_eq!(gpu(&nvml, 1), first);
    });
}

#[test]
fn what_does_not_exist_is_not_found_and_what_is_nonsense_is_invalid() {
    on_node("what_does_not_exist_is_not_found_and_what_is_nonsense_is_invalid", &two_gpus(), |node| {
        let nvml = node.c_api_ready();
        assert_eq!(
            ask(null_mut(), |out| unsafe { nvml.nvmlDeviceGetHandleByIndex_v2(2, out) }),
            Err(INVALID_ARGUMENT)
        );
        assert_eq!(by_uuid(&nvml, "GPU-00000000-0000-0000-0000-000000000000"), Err(NOT_FOUND));
        assert_eq!(by_uuid(&nvml, "MIG-00000000-0000-0000-0000-000000000000"), Err(NOT_FOUND));
        let by_bus = |text: &str| {
            let text = CString::new(text).unwrap();
            ask(null_mut(), |out| unsafe { nvml.nvmlDeviceGetHandleByPciBusId_v2(text.as_ptr(), out) })
        };
        assert_eq!(by_bus("0000:04:00.0"), Ok(gpu(&nvml, 0)));
        assert_eq!(by_bus("07:00.0"), Ok(gpu(&nvml, 1)));
        assert_eq!(by_bus("0000:05:00.0"), Err(NOT_FOUND));
        assert_eq!(by_bus("elsewhere"), Err(INVALID_ARGUMENT));
    });
}

#[test]
fn a_buffer_that_is_too_short_stays_untouched() {
    on_node("a_buffer_that_is_too_short_stays_untouched", &two_gpus(), |node| {
        let nvml = node.c_api_ready();
        let gpu = gpu(&nvml, 0);
        let mut buffer = [7; 41];
        unsafe {
            assert_eq!(nvml.nvmlDeviceGetUUID(gpu, buffer.as_mut_ptr(), 40), INSUFFICIENT_SIZE);
            assert_eq!(buffer, [7; 41]);
            assert_eq!(nvml.nvmlDeviceGetUUID(gpu, buffer.as_mut_ptr(), 41), 0);
        }
        assert!(array_text(&buffer).starts_with("GPU-"));
    });
}

#[test]
fn a_struct_of_another_version_is_refused() {
    on_node("a_struct_of_another_version_is_refused", &two_gpus(), |node| {
        let nvml = node.c_api_ready();
        let gpu = gpu(&nvml, 0);
        let memory = |version| {
            let empty = nvmlMemory_v2_st { version, total: 0, reserved: 0, free: 0, used: 0 };
            ask(empty, |out| unsafe { nvml.nvmlDeviceGetMemoryInfo_v2(gpu, out) }).map(|memory| memory.total)
        };
        assert_eq!(memory(40 | 2 << 24), Ok(40 << 30));
        for wrong in [0, 2, 40, 40 | 1 << 24, 40 | 3 << 24, 48 | 2 << 24] {
            assert_eq!(memory(wrong), Err(ARGUMENT_VERSION_MISMATCH), "{wrong:#x}");
        }
        let mut fabric = [0_u32; 64];
        unsafe {
            fabric[0] = size_of::<nvmlGpuFabricInfo_v2_t>() as u32 | 2 << 24;
            assert_eq!(nvml.nvmlDeviceGetGpuFabricInfoV(gpu, fabric.as_mut_ptr().cast()), NOT_SUPPORTED);
            fabric[0] = 1;
            assert_eq!(
                nvml.nvmlDeviceGetGpuFabricInfoV(gpu, fabric.as_mut_ptr().cast()),
                ARGUMENT_VERSION_MISMATCH
            );
        }
    });
}

#[test]
fn numa_nodes_are_bits_of_the_memory_affinity() {
    on_node("numa_nodes_are_bits_of_the_memory_affinity", &two_gpus(), |node| {
        let nvml = node.c_api_ready();
        let mut words = [9; 3];
        unsafe {
            assert_eq!(nvml.nvmlDeviceGetMemoryAffinity(gpu(&nvml, 0), 3, words.as_mut_ptr(), 0), 0);
            assert_eq!(words, [0b10, 0, 0]);
            assert_eq!(
                nvml.nvmlDeviceGetMemoryAffinity(gpu(&nvml, 0), 0, words.as_mut_ptr(), 0),
                INVALID_ARGUMENT
            );
            assert_eq!(
                nvml.nvmlDeviceGetMemoryAffinity(gpu(&nvml, 1), 3, words.as_mut_ptr(), 0),
                NOT_SUPPORTED
            );
        }
    });
}

#[test]
fn the_pci_addresses_old_and_new_form_agree() {
    on_node("the_pci_addresses_old_and_new_form_agree", &two_gpus(), |node| {
        let nvml = node.c_api_ready();
        let empty: nvmlPciInfo_t = unsafe { std::mem::zeroed() };
        let pci = ask(empty, |out| unsafe { nvml.nvmlDeviceGetPciInfo_v3(gpu(&nvml, 1), out) }).unwrap();
        assert_eq!(array_text(&pci.busId), format!("0000{}", array_text(&pci.busIdLegacy)));
        assert_eq!((pci.domain, pci.bus, pci.device), (0, 7, 0));
    });
}

#[test]
fn every_code_has_words_even_before_init() {
    let nvml = load();
    let words = |code| {
        let text = unsafe { std::ffi::CStr::from_ptr(nvml.nvmlErrorString(code)) };
        text.to_str().unwrap().to_owned()
    };
    assert_eq!(words(0), "Success");
    assert_eq!(words(15), "GPU is lost");
    assert_eq!(words(999), "Unknown Error");
    assert_eq!(words(12_345), "Unknown Error");
    for code in 0..=30 {
        assert_ne!(words(code), "Unknown Error", "{code}");
    }
}

#[test]
fn without_a_description_init_fails_and_says_once_what_is_missing() {
    let test = "without_a_description_init_fails_and_says_once_what_is_missing";
    if is_child(test) {
        let nvml = load();
        assert_eq!(unsafe { [nvml.nvmlInit_v2(), nvml.nvmlInit_v2()] }, [DRIVER_NOT_LOADED; 2]);
        assert_eq!(unsafe { nvml.nvmlDeviceGetCount_v2(&mut 0) }, UNINITIALIZED);
        return;
    }
    let output = child(test, |command| command);
    assert!(output.status.success());
    let line =
        "nvml-simulator: NVML_SIMULATOR_CONFIG is not set: it names the YAML file that describes the GPUs\n";
    assert_eq!(text(&output.stderr), line);

    let output = child(test, |command| command.env(CONFIG_ENV, "/nowhere/node.yaml"));
    assert!(output.status.success());
    let line = "nvml-simulator: cannot read the description /nowhere/node.yaml: No such file or directory (os error 2)\n";
    assert_eq!(text(&output.stderr), line);
}

#[test]
fn every_name_that_nvidias_plugin_and_nvml_wrapper_look_up_is_exported() {
    let nvml = load();
    let names = include_str!("symbols.txt").lines().filter(|line| !line.is_empty() && !line.starts_with('#'));
    let missing: Vec<&str> = names
        .filter(|name| unsafe { nvml.__library.get::<unsafe extern "C" fn()>(name.as_bytes()) }.is_err())
        .collect();
    assert!(missing.is_empty(), "{missing:?}");
}

#[test]
fn used_and_free_memory_add_up() {
    on_node("used_and_free_memory_add_up", &two_gpus(), |node| {
        let nvml = node.c_api_ready();
        let empty = nvmlMemory_t { total: 0, free: 0, used: 0 };
        let memory = ask(empty, |out| unsafe { nvml.nvmlDeviceGetMemoryInfo(gpu(&nvml, 1), out) }).unwrap();
        assert_eq!(memory.total, 81_559 << 20);
        assert_eq!(memory.free + memory.used, memory.total);
    });
}
