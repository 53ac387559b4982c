//! The C API: what a program finds in `libnvidia-ml.so.1`.
//!
//! The signatures and return codes follow NVIDIA's `nvml.h`. Each function is a thin shell: it turns handles
//! into things, asks, and writes the answer through the caller's pointers, whose types ([`mod@pointer`]) hold all
//! the `unsafe` there is. The unversioned and older names are exported where their arguments are the same.

// C's names, as every caller spells them.
#![allow(non_snake_case)]

mod code;
pub mod compute_mode;
pub mod device;
pub mod ecc;
pub mod events;
pub mod memory;
pub mod mig;
pub mod mig_compute;
pub mod mig_device;
mod mig_profile;
pub mod nvlink;
pub mod pointer;
pub mod processes;
mod resolve;
pub mod sensors;
pub mod system;
pub mod topology;

pub(crate) use code::Code;
pub(crate) use resolve::{Device, Gpu, MigDevice};

/// Defines exported functions: each is one [`crate::session::call`], under one or several names.
///
/// ```text
/// export! {
///     /// How many GPUs there are.
///     fn nvmlDeviceGetCount_v2, nvmlDeviceGetCount(count: Out<c_uint>) |call| { count.put(…) }
/// }
/// ```
macro_rules! export {
    ($($(#[$doc:meta])* fn $($name:ident),+ ($($args:tt)*) |$call:ident| $body:block)*) => {
        $($crate::ffi::export!(@names [$($name),+] [$(#[$doc])*] ($($args)*) $call $body);)*
    };
    (@names [$($name:ident),+] $docs:tt $args:tt $call:ident $body:block) => {
        $($crate::ffi::export!(@one $name $docs $args $call $body);)+
    };
    (@one $name:ident [$(#[$doc:meta])*] ($($arg:ident: $type:ty),* $(,)?) $call:ident $body:block) => {
        $(#[$doc])*
        // SAFETY: the name is NVML's own; the process loads this library instead of NVIDIA's, never beside it.
        #[unsafe(no_mangle)]
        pub extern "C" fn $name($($arg: $type),*) -> nvml_wrapper_sys::bindings::nvmlReturn_t {
            $crate::session::call(|$call| $body)
        }
    };
}
pub(crate) use export;
