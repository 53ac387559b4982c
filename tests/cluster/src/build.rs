//! Builds Kubernetes and containerd from the Go module proxy into a cache folder.
//!
//! `go install k8s.io/kubernetes/cmd/kubelet@v1.36.1` refuses, because Kubernetes' `go.mod` replaces its
//! staging modules by local folders. A small module of our own that requires Kubernetes and replaces the same
//! modules by their published versions builds the very same sources. About seven minutes on two cores with
//! an empty Go cache, seconds with a full one, nothing at all when the stamp file says that it is done.
//!
//! It knows nothing of clusters or namespaces; it needs the network, so it runs before isolation.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail, ensure};

use crate::versions::Versions;

/// What is built from Kubernetes. No kube-proxy: the tests use no Services.
const KUBERNETES_PROGRAMS: [&str; 4] =
    ["kube-apiserver", "kube-controller-manager", "kube-scheduler", "kubelet"];
/// What is built from containerd.
const CONTAINERD_PROGRAMS: [&str; 3] = ["containerd", "containerd-shim-runc-v2", "ctr"];
/// Holds [`Versions::stamp`] once every program is in place.
const STAMP: &str = "versions";

/// The programs that make `versions` complete, by file name.
pub fn programs() -> impl Iterator<Item = &'static str> {
    KUBERNETES_PROGRAMS.into_iter().chain(CONTAINERD_PROGRAMS)
}

/// True when every program of `versions` is in the cache, so that [`ensure_built`] has nothing to do.
pub fn is_built(versions: &Versions) -> bool {
    let folder = versions.cache_folder();
    fs::read_to_string(folder.join(STAMP)).is_ok_and(|stamp| stamp == versions.stamp())
        && programs().all(|program| folder.join(program).is_file())
}

/// Makes sure that the programs of `versions` are in the cache and returns their folder.
///
/// A lock file beside the folder lets one of several runs build while the others wait for it. Progress goes
/// to standard error.
///
/// # Errors
/// When the cache cannot be written, or `go` is missing or fails; its own message has been shown by then.
pub fn ensure_built(versions: &Versions) -> Result<PathBuf> {
    let folder = versions.cache_folder();
    if is_built(versions) {
        return Ok(folder);
    }
    fs::create_dir_all(&folder).with_context(|| format!("cannot create {}", folder.display()))?;
    let lock_path = folder.with_added_extension("lock");
    let lock = File::create(&lock_path).with_context(|| format!("cannot create {}", lock_path.display()))?;
    if lock.try_lock().is_err() {
        eprintln!("Another run builds Kubernetes {}: waiting for it …", versions.kubernetes);
        lock.lock().with_context(|| format!("cannot lock {}", lock_path.display()))?;
    }
    if !is_built(versions) {
        eprintln!(
            "Building Kubernetes {} and containerd {} into {} (once; about 7 minutes on 2 cores) …",
            versions.kubernetes,
            versions.containerd,
            folder.display()
        );
        build(versions, &folder)?;
    }
    Ok(folder)
}

fn build(versions: &Versions, folder: &Path) -> Result<()> {
    let work = folder.join("build");
    // A build that was interrupted may have left anything there.
    match fs::remove_dir_all(&work) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            return Err(error).with_context(|| format!("cannot remove {}", work.display()));
        }
        _ => {}
    }
    let done = work.join("done");
    fs::create_dir_all(&done).with_context(|| format!("cannot create {}", done.display()))?;
    build_kubernetes(&versions.kubernetes, &work, &done)?;
    build_containerd(&versions.containerd, &work, &done)?;
    for program in programs() {
        // A rename is atomic and leaves a program that another cluster runs right now alone.
        fs::rename(done.join(program), folder.join(program))
            .with_context(|| format!("go build made no {program}"))?;
    }
    fs::write(folder.join(STAMP), versions.stamp()).context("cannot write the stamp file")?;
    fs::remove_dir_all(&work).context("cannot remove the work folder")
}

fn build_kubernetes(version: &str, work: &Path, done: &Path) -> Result<()> {
    let module = work.join("kubernetes");
    fs::create_dir_all(&module)?;
    let download = go(&module, &["mod", "download", "-json", &format!("k8s.io/kubernetes@v{version}")])?;
    let download: serde_json::Value =
        serde_json::from_str(&download).context("`go mod download -json` printed no JSON")?;
    let go_mod = download["GoMod"].as_str().context("`go mod download -json` names no GoMod")?;
    let go_mod = fs::read_to_string(go_mod).with_context(|| format!("cannot read {go_mod}"))?;
    fs::write(module.join("go.mod"), kubernetes_go_mod(version, &go_mod)?)?;

    // The minor version is what a kubelet and a scheduler report and compare; `v0.0.0` confuses clients.
    let set = "-X k8s.io/component-base/version";
    let minor = minor_of(version)?;
    let flags = format!("-s -w {set}.gitVersion=v{version} {set}.gitMajor=1 {set}.gitMinor={minor}");
    let output = format!("{}/", done.display());
    let mut arguments = vec!["build", "-mod=mod", "-ldflags", &flags, "-o", &output];
    let packages: Vec<_> =
        KUBERNETES_PROGRAMS.iter().map(|program| format!("k8s.io/kubernetes/cmd/{program}")).collect();
    arguments.extend(packages.iter().map(String::as_str));
    go(&module, &arguments).map(drop)
}

fn build_containerd(version: &str, work: &Path, done: &Path) -> Result<()> {
    const MODULE: &str = "github.com/containerd/containerd/v2";
    let module = work.join("containerd");
    fs::create_dir_all(&module)?;
    fs::write(module.join("go.mod"), format!("module cluster\n\ngo 1.25\n\nrequire {MODULE} v{version}\n"))?;
    let output = format!("{}/", done.display());
    // These snapshotters would need C headers.
    let tags = "no_btrfs no_devmapper no_zfs";
    let mut arguments = vec!["build", "-mod=mod", "-tags", tags, "-ldflags", "-s -w", "-o", &output];
    let packages: Vec<_> =
        CONTAINERD_PROGRAMS.iter().map(|program| format!("{MODULE}/cmd/{program}")).collect();
    arguments.extend(packages.iter().map(String::as_str));
    go(&module, &arguments).map(drop)
}

/// Our module's `go.mod`: Kubernetes, with each staging module at the version published with it.
///
/// Staging modules are those that `upstream`, Kubernetes' own `go.mod`, replaces by a folder under `./staging`
/// (so do 1.33 to 1.37). `k8s.io/utils`, `klog` and others have real versions and stay untouched.
fn kubernetes_go_mod(version: &str, upstream: &str) -> Result<String> {
    let go = upstream
        .lines()
        .find_map(|line| line.strip_prefix("go "))
        .context("Kubernetes' go.mod has no go directive")?;
    let staged = upstream.lines().filter_map(|line| {
        let (module, target) = line.trim().split_once(" => ")?;
        target.starts_with("./staging/").then_some(module)
    });
    let staged: Vec<&str> = staged.collect();
    ensure!(!staged.is_empty(), "Kubernetes {version}'s go.mod names no staging modules");
    let published = version.strip_prefix("1.").context("a Kubernetes version begins with 1.")?;
    let mut text = format!("module cluster\n\ngo {go}\n\nrequire k8s.io/kubernetes v{version}\n\n");
    for module in staged {
        text.push_str(&format!("replace {module} => {module} v0.{published}\n"));
    }
    Ok(text)
}

fn minor_of(version: &str) -> Result<&str> {
    version.split('.').nth(1).with_context(|| format!("{version} is no Kubernetes version like 1.36.1"))
}

/// Runs `go` in `folder` and returns what it printed; its progress and its errors go to standard error.
fn go(folder: &Path, arguments: &[&str]) -> Result<String> {
    let output = Command::new("go")
        .args(arguments)
        .current_dir(folder)
        // A workspace file in a parent folder must not change what is built.
        .env("GOWORK", "off")
        .stderr(std::process::Stdio::inherit())
        .output()
        .context("cannot run `go` (install Go 1.21 or newer: https://go.dev/dl)")?;
    if !output.status.success() {
        bail!("`go {}` failed with {}", arguments.join(" "), output.status);
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::kubernetes_go_mod;

    const GO: &str = "module k8s.io/kubernetes\n\ngo 1.26.0\n\n";

    #[test]
    fn staging_modules_are_taken_from_the_proxy_and_others_left_alone() {
        let upstream = format!(
            "{GO}require (\n\tk8s.io/klog/v2 v2.130.1\n)\nreplace (\n\tk8s.io/api => ./staging/src/k8s.io/api\n)\n"
        );
        let ours = kubernetes_go_mod("1.36.1", &upstream).unwrap();
        assert!(ours.contains("go 1.26.0\n"), "{ours}");
        assert!(ours.contains("replace k8s.io/api => k8s.io/api v0.36.1\n"), "{ours}");
        assert!(!ours.contains("klog"), "{ours}");
    }

    #[test]
    fn a_go_mod_without_staging_modules_is_refused() {
        assert!(kubernetes_go_mod("1.36.1", GO).is_err());
    }
}
