//! Builds Kubernetes and containerd from the Go module proxy into a cache folder.
//!
//! `go install k8s.io/kubernetes/cmd/kubelet@v1.36.1` refuses, because Kubernetes' `go.mod` replaces its
//! staging modules by local folders. A small module of our own that requires Kubernetes and replaces the same
//! modules by their published versions builds the very same sources. About seven minutes on two cores with
//! an empty Go cache, seconds with a full one, nothing at all where they are there. Only what a test starts is built.
//!
//! It knows nothing of clusters or namespaces; it needs the network, so it runs before isolation.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail, ensure};

use crate::versions::Versions;

/// What the simplest cluster needs of Kubernetes: one whose nodes are API objects.
const HOLLOW_PROGRAMS: [&str; 2] = ["kube-apiserver", "kube-scheduler"];
/// What one with kubelets needs besides. No kube-proxy: the tests use no Services.
const FURTHER_PROGRAMS: [&str; 2] = ["kube-controller-manager", "kubelet"];
/// What is built from containerd.
const CONTAINERD_PROGRAMS: [&str; 3] = ["containerd", "containerd-shim-runc-v2", "ctr"];
/// Holds [`Versions::stamp`] once containerd's programs are in place, which are of a version of their own.
const STAMP: &str = "versions";

/// What a test starts, and so what has to be there: building Kubernetes takes minutes a program.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scope {
    /// A control plane whose nodes are API objects.
    Hollow,
    /// Kubelets and containers too.
    Nodes,
}

impl Scope {
    /// The programs of Kubernetes, by file name.
    fn kubernetes(self) -> impl Iterator<Item = &'static str> {
        let further = (self == Self::Nodes).then_some(FURTHER_PROGRAMS);
        HOLLOW_PROGRAMS.into_iter().chain(further.into_iter().flatten())
    }
}

/// The programs of Kubernetes that are not in `folder`, and whether containerd's are still to be built.
///
/// A folder belongs to one Kubernetes, and a program comes into it complete, so that being there is enough.
fn lacking(versions: &Versions, scope: Scope, folder: &Path) -> (Vec<&'static str>, bool) {
    let is_there = |program: &str| folder.join(program).is_file();
    let kubernetes = scope.kubernetes().filter(|program| !is_there(program)).collect();
    let stamped = || fs::read_to_string(folder.join(STAMP)).is_ok_and(|stamp| stamp == versions.stamp());
    let containerd = scope == Scope::Nodes && !(stamped() && CONTAINERD_PROGRAMS.into_iter().all(is_there));
    (kubernetes, containerd)
}

/// True when everything is in the cache, so that [`ensure_built`] has nothing to do.
pub fn is_built(versions: &Versions, scope: Scope) -> bool {
    lacking(versions, scope, &versions.cache_folder()) == (Vec::new(), false)
}

/// Makes sure that the programs of `versions` are in the cache and returns their folder.
///
/// A lock file beside the folder lets one of several runs build while the others wait for it. Progress goes
/// to standard error.
///
/// # Errors
/// When the cache cannot be written, or `go` is missing or fails; its own message has been shown by then.
pub fn ensure_built(versions: &Versions, scope: Scope) -> Result<PathBuf> {
    let folder = versions.cache_folder();
    if is_built(versions, scope) {
        return Ok(folder);
    }
    fs::create_dir_all(&folder).with_context(|| format!("cannot create {}", folder.display()))?;
    let lock_path = folder.with_added_extension("lock");
    let lock = File::create(&lock_path).with_context(|| format!("cannot create {}", lock_path.display()))?;
    if lock.try_lock().is_err() {
        eprintln!("Another run builds Kubernetes {}: waiting for it …", versions.kubernetes);
        lock.lock().with_context(|| format!("cannot lock {}", lock_path.display()))?;
    }
    build(versions, scope, &folder)?;
    Ok(folder)
}

fn build(versions: &Versions, scope: Scope, folder: &Path) -> Result<()> {
    let (kubernetes, containerd) = lacking(versions, scope, folder);
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
    let put_in_place = |programs: &[&str]| -> Result<()> {
        for program in programs {
            // A rename is atomic and leaves a program that another cluster runs right now alone.
            fs::rename(done.join(program), folder.join(program))
                .with_context(|| format!("go build made no {program}"))?;
        }
        Ok(())
    };
    if !kubernetes.is_empty() {
        let (version, programs) = (&versions.kubernetes, kubernetes.join(", "));
        eprintln!("Building {programs} {version} into {} (once; minutes on 2 cores) …", folder.display());
        build_kubernetes(version, &kubernetes, &work, &done)?;
        put_in_place(&kubernetes)?;
    }
    if containerd {
        eprintln!("Building containerd {} into {} …", versions.containerd, folder.display());
        build_containerd(&versions.containerd, &work, &done)?;
        put_in_place(&CONTAINERD_PROGRAMS)?;
        fs::write(folder.join(STAMP), versions.stamp()).context("cannot write the stamp file")?;
    }
    fs::remove_dir_all(&work).context("cannot remove the work folder")
}

fn build_kubernetes(version: &str, programs: &[&str], work: &Path, done: &Path) -> Result<()> {
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
        programs.iter().map(|program| format!("k8s.io/kubernetes/cmd/{program}")).collect();
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
    use super::*;

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

    #[test]
    fn only_what_is_started_and_not_there_is_built() {
        let folder = std::env::temp_dir().join(format!("stowage-build-{}", std::process::id()));
        fs::create_dir_all(&folder).unwrap();
        let versions = Versions { kubernetes: "1.36.1".into(), containerd: "2.2.9".into() };
        fs::write(folder.join("kube-apiserver"), "").unwrap();
        assert_eq!(lacking(&versions, Scope::Hollow, &folder), (vec!["kube-scheduler"], false));
        fs::write(folder.join("kube-scheduler"), "").unwrap();
        assert_eq!(lacking(&versions, Scope::Hollow, &folder), (vec![], false));
        let further = FURTHER_PROGRAMS.to_vec();
        assert_eq!(lacking(&versions, Scope::Nodes, &folder), (further.clone(), true));
        // containerd of another version is no use.
        CONTAINERD_PROGRAMS.iter().for_each(|program| fs::write(folder.join(program), "").unwrap());
        fs::write(folder.join(STAMP), versions.stamp().replace("2.2.9", "2.1.0")).unwrap();
        assert_eq!(lacking(&versions, Scope::Nodes, &folder), (further.clone(), true));
        fs::write(folder.join(STAMP), versions.stamp()).unwrap();
        assert_eq!(lacking(&versions, Scope::Nodes, &folder), (further, false));
        fs::remove_dir_all(&folder).unwrap();
    }
}
