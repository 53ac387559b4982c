//! Each test runs in a process of its own, against a node of its own.
//!
//! A program finds its simulated node through an environment variable, which is process-wide. So a test
//! starts its own executable once more, told to run that one test, with the variable set: [`on_node`] writes
//! the description, starts the child and checks that it succeeded; in the child it runs the body.
#![allow(dead_code, clippy::unwrap_used, reason = "shared by several test files, each of which uses a part")]

use std::ffi::{CStr, c_char};
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use nvml_simulator::description::Description;
use nvml_simulator::store::Store;
use nvml_simulator::{CONFIG_ENV, STATE_ENV, library_near};
use nvml_wrapper::Nvml;
use nvml_wrapper_sys::bindings::{NvmlLib, nvmlDevice_t, nvmlReturn_t};

/// Set in the child; its value is the name of the test.
const CHILD_ENV: &str = "NVML_SIMULATOR_TEST_CHILD";

/// The built library.
pub(crate) fn library() -> PathBuf {
    library_near(&std::env::current_exe().unwrap()).expect("cargo builds the library before its tests")
}

/// Runs `body` in a process of its own whose NVML is that node.
#[track_caller]
pub(crate) fn on_node(test: &str, description: &Description, body: impl FnOnce(&Node)) {
    if is_child(test) {
        return body(&Node { description: std::env::var_os(CONFIG_ENV).unwrap().into() });
    }
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("node.yaml");
    description.write(&path).unwrap();
    let output = child(test, |command| command.env(CONFIG_ENV, &path));
    assert!(output.status.success(), "{}{}", text(&output.stdout), text(&output.stderr));
}

/// Whether this process is the child that runs this test.
pub(crate) fn is_child(test: &str) -> bool {
    std::env::var_os(CHILD_ENV).is_some_and(|name| name == test)
}

/// Runs one test of this executable in a child, without any simulated node unless `with` names one.
#[track_caller]
pub(crate) fn child(test: &str, with: impl FnOnce(&mut Command) -> &mut Command) -> Output {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command
        .args([test, "--exact", "--nocapture"])
        .env(CHILD_ENV, test)
        .env_remove(CONFIG_ENV)
        .env_remove(STATE_ENV);
    let output = with(&mut command).output().unwrap();
    assert!(text(&output.stdout).contains("1 passed") || !output.status.success(), "no test is named {test}");
    output
}

pub(crate) fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// A node, seen from the child.
pub(crate) struct Node {
    pub(crate) description: PathBuf,
}

impl Node {
    /// NVML as most Rust programs use it.
    pub(crate) fn wrapper(&self) -> Nvml {
        Nvml::builder().lib_path(library().as_os_str()).init().unwrap()
    }

    /// The bare C API, not yet initialized.
    pub(crate) fn c_api(&self) -> NvmlLib {
        load()
    }

    /// The bare C API, initialized.
    pub(crate) fn c_api_ready(&self) -> NvmlLib {
        let nvml = self.c_api();
        assert_eq!(unsafe { nvml.nvmlInit_v2() }, 0);
        nvml
    }

    /// The node's state, as another process sees it: this library's Rust half shares nothing with the one
    /// that was loaded but the file.
    pub(crate) fn outside(&self) -> Store {
        Store::open(&self.description).unwrap()
    }
}

/// Loads the library without initializing it.
pub(crate) fn load() -> NvmlLib {
    unsafe { NvmlLib::new(library()) }.unwrap()
}

/// What a call answers through its last argument, or its code.
pub(crate) fn ask<T: Copy>(empty: T, call: impl FnOnce(*mut T) -> nvmlReturn_t) -> Result<T, nvmlReturn_t> {
    let mut answer = empty;
    match call(&raw mut answer) {
        0 => Ok(answer),
        code => Err(code),
    }
}

/// The text that a call writes into a buffer, or its code.
pub(crate) fn ask_text(call: impl FnOnce(*mut c_char, u32) -> nvmlReturn_t) -> Result<String, nvmlReturn_t> {
    let mut buffer = [0 as c_char; 96];
    match call(buffer.as_mut_ptr(), 96) {
        0 => Ok(array_text(&buffer)),
        code => Err(code),
    }
}

/// The text in an array that C ends with a zero byte.
pub(crate) fn array_text(array: &[c_char]) -> String {
    assert!(array.contains(&0));
    unsafe { CStr::from_ptr(array.as_ptr()) }.to_str().unwrap().to_owned()
}

/// The GPU's handle.
pub(crate) fn gpu(nvml: &NvmlLib, index: u32) -> nvmlDevice_t {
    ask(std::ptr::null_mut(), |out| unsafe { nvml.nvmlDeviceGetHandleByIndex_v2(index, out) }).unwrap()
}

/// The state file of a description.
pub(crate) fn state_file(description: &Path) -> PathBuf {
    description.with_extension("state.json")
}
