//! Names the library as NVIDIA's is named, so that `ldconfig` and `dlopen("libnvidia-ml.so.1")` find it.

fn main() {
    println!("cargo:rerun-if-changed=build.rs");
    println!("cargo:rustc-cdylib-link-arg=-Wl,-soname,libnvidia-ml.so.1");
}
