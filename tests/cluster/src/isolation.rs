//! Namespaces of the cluster's own, entered before the first thread starts.
//!
//! Three processes of one program, each started by the one before (see the picture in [the crate](crate)):
//!
//! 1. **outer**, in the host's namespaces, asks for a PID namespace for its child, waits for it, and afterwards
//!    removes what the kernel does not: cgroups and big folders.
//! 2. **init** is PID 1 there. It takes a network and a mount namespace, reaps orphans (containerd's shims
//!    hand theirs over), and ends when the tests end.
//! 3. **tests** runs the scenarios, and starts everything else.
//!
//! Why a PID namespace: shims and containers detach themselves from whoever started them, so nothing that is
//! sent to children reaches them. But when PID 1 ends, the kernel kills everything in its namespace, and
//! with the last process go the network and the mounts. init ends when its parent does
//! (`PR_SET_PDEATHSIG`), so `kill -9` of any of the three leaves nothing running and nothing mounted.
//!
//! It knows nothing of Kubernetes.

use std::fs::{self, File};
use std::io::Read;
use std::os::fd::AsFd;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};
use std::time::{Duration, Instant};
use std::{env, io, thread};

use anyhow::{Context, Result, bail, ensure};
use rustix::fs::{OFlags, fcntl_getfl, fcntl_setfl};
use rustix::mount::{MountFlags, MountPropagationFlags, mount, mount_bind, mount_change};
use rustix::process::{Pid, Signal, WaitOptions, kill_process, set_parent_process_death_signal, wait};
use rustix::thread::{UnshareFlags, unshare_unsafe};

use crate::cgroups;

/// Which of the three processes this is; unset in the outer one.
const ROLE_ENV: &str = "STOWAGE_CLUSTER_ROLE";
const ROLE_INIT: &str = "init";
const ROLE_TESTS: &str = "tests";
/// The run's folder as the host sees it.
const FOLDER_ENV: &str = "STOWAGE_CLUSTER_FOLDER";
/// The run's cgroup.
const CGROUP_ENV: &str = "STOWAGE_CLUSTER_CGROUP";
/// The PID namespace of the outer process, to be sure that we are in another.
const HOST_PID_NAMESPACE_ENV: &str = "STOWAGE_CLUSTER_HOST_PID_NAMESPACE";

/// The run's folder inside: short, since a Unix socket's path has at most 107 bytes.
const INSIDE: &str = "/run/stowage";
/// How long one run of a checkout waits for another.
const LOCK_LIMIT: Duration = Duration::from_secs(30 * 60);
/// How long killed processes may take to vanish.
const END_LIMIT: Duration = Duration::from_secs(8);
/// Taken away from the tests: the cluster's addresses are not behind a proxy.
const PROXY_VARIABLES: [&str; 6] =
    ["http_proxy", "https_proxy", "all_proxy", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"];

/// Where [`enter`] has brought the caller.
#[derive(Debug)]
pub enum Entered {
    /// Inside: run the tests here.
    Inside(Isolated),
    /// Outside, and the tests have run: end with this code.
    Finished(ExitCode),
}

/// Proof that this process is alone with its cluster in namespaces of its own.
#[derive(Debug)]
pub struct Isolated {
    folder_outside: PathBuf,
    cgroup: String,
}

/// True in the two inner processes, whose preparations the outer one has made.
pub fn is_inner_process() -> bool {
    env::var_os(ROLE_ENV).is_some()
}

/// Brings the calling program into namespaces of its own; to be called in `main`, with no thread started.
///
/// The program is started anew inside with the same arguments, so everything before this call runs more than
/// once; [`is_inner_process`] tells. `folder` is emptied and keeps the run's logs afterwards; a lock beside
/// it makes a second run of the same checkout wait.
///
/// # Errors
/// When a namespace or a mount is refused (this needs root), or `folder` cannot be used.
pub fn enter(folder: &Path) -> Result<Entered> {
    match env::var(ROLE_ENV).as_deref() {
        Ok(ROLE_INIT) => init().map(Entered::Finished),
        Ok(ROLE_TESTS) => Isolated::verify().map(Entered::Inside),
        Ok(other) => bail!("{ROLE_ENV} is {other:?}: unset it, it is only for the tests themselves"),
        Err(_) => outer(folder).map(Entered::Finished),
    }
}

fn outer(folder: &Path) -> Result<ExitCode> {
    ensure!(!folder.starts_with("/run"), "{} is under /run, which is hidden inside", folder.display());
    let _lock = lock_beside(folder)?;
    cgroups::remove_stale();
    if folder.exists() {
        fs::remove_dir_all(folder).with_context(|| format!("cannot empty {}", folder.display()))?;
    }
    fs::create_dir_all(folder).with_context(|| format!("cannot create {}", folder.display()))?;

    let cgroup = cgroups::group_of(std::process::id());
    let host = fs::read_link("/proc/self/ns/pid").context("cannot read /proc/self/ns/pid")?;
    // SAFETY: this concerns only children that are yet to be forked; no memory, descriptor or thread of this
    // process is touched.
    unsafe { unshare_unsafe(UnshareFlags::NEWPID) }.context("cannot get a PID namespace (needs root)")?;
    let mut child = this_program()
        .env(ROLE_ENV, ROLE_INIT)
        .env(FOLDER_ENV, folder)
        .env(CGROUP_ENV, &cgroup)
        .env(HOST_PID_NAMESPACE_ENV, host)
        // Held open until the end, so that init can tell whether we are still there.
        .stdin(Stdio::piped())
        .spawn()
        .context("cannot start the tests anew in a PID namespace")?;
    let held = child.stdin.take();
    let status = child.wait().context("cannot wait for the tests")?;
    drop(held);
    cgroups::remove(&cgroup);
    remove_big_folders(folder);
    if let Some(signal) = status.signal() {
        eprintln!("The cluster tests were ended by signal {signal}.");
    }
    Ok(exit_code(status.code().unwrap_or(1)))
}

fn init() -> Result<ExitCode> {
    set_parent_process_death_signal(Some(Signal::KILL)).context("cannot tie init to its parent")?;
    if parent_is_gone()? {
        bail!("the test program was ended while it started");
    }
    let folder = PathBuf::from(env::var_os(FOLDER_ENV).context("no folder given")?);
    // SAFETY: no thread has been started, so nobody else's view of mounts or network changes, and no
    // descriptor table is unshared.
    unsafe { unshare_unsafe(UnshareFlags::NEWNS | UnshareFlags::NEWNET) }
        .context("cannot get a mount and a network namespace (needs root)")?;
    let private = MountPropagationFlags::PRIVATE | MountPropagationFlags::REC;
    mount_change("/", private).context("cannot make mounts private")?;
    // Sockets of shims, network namespaces of pods, lock files: all of it is under /run, and vanishes.
    mount("stowage", "/run", "tmpfs", MountFlags::NOSUID | MountFlags::NODEV, Some(c"mode=0755"))
        .context("cannot mount a tmpfs at /run")?;
    fs::create_dir(INSIDE).with_context(|| format!("cannot create {INSIDE}"))?;
    mount_bind(&folder, INSIDE).with_context(|| format!("cannot bind {} to {INSIDE}", folder.display()))?;
    let flags = MountFlags::NOSUID | MountFlags::NODEV | MountFlags::NOEXEC;
    mount("proc", "/proc", "proc", flags, None).context("cannot mount /proc for the PID namespace")?;
    ip(&["link", "set", "lo", "up"])?;

    let mut tests = this_program();
    for variable in PROXY_VARIABLES {
        tests.env_remove(variable);
    }
    let tests = tests
        .env(ROLE_ENV, ROLE_TESTS)
        .stdin(Stdio::null())
        .spawn()
        .context("cannot start the tests anew inside")?;
    let tests = i32::try_from(tests.id()).ok().and_then(Pid::from_raw);
    loop {
        match wait(WaitOptions::empty()) {
            Ok(Some((pid, status))) if Some(pid) == tests => {
                let by_signal = || status.terminating_signal().map(|signal| 128 + signal);
                return Ok(exit_code(status.exit_status().or_else(by_signal).unwrap_or(1)));
            }
            // An orphan: reaped, forgotten.
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error).context("cannot wait for the tests"),
        }
    }
}

impl Isolated {
    fn verify() -> Result<Self> {
        let ours = fs::read_link("/proc/self/ns/pid").context("cannot read /proc/self/ns/pid")?;
        let host = env::var_os(HOST_PID_NAMESPACE_ENV).context("no PID namespace given")?;
        let parent = rustix::process::getppid();
        ensure!(
            ours.as_os_str() != host && parent.is_some_and(Pid::is_init),
            "this is not the PID namespace of a test cluster: unset {ROLE_ENV}"
        );
        Ok(Self {
            folder_outside: PathBuf::from(env::var_os(FOLDER_ENV).context("no folder given")?),
            cgroup: env::var(CGROUP_ENV).context("no cgroup given")?,
        })
    }

    /// The run's folder, as every process of the cluster sees it.
    pub fn folder(&self) -> &Path {
        Path::new(INSIDE)
    }

    /// The same folder as the host sees it: where a person finds the logs afterwards.
    pub fn folder_outside(&self) -> &Path {
        &self.folder_outside
    }

    /// The cgroup of the run, relative to each hierarchy.
    pub(crate) fn cgroup(&self) -> &str {
        &self.cgroup
    }

    /// Ends every process of the PID namespace but init and this one, by process id, and waits until they are
    /// gone: shims, containers, and whatever else was started here.
    pub(crate) fn end_all_processes(&self) {
        let deadline = Instant::now() + END_LIMIT;
        loop {
            let others = other_processes();
            if others.is_empty() {
                return;
            }
            if Instant::now() > deadline {
                eprintln!("Still there after {END_LIMIT:?}, left to the kernel: {others:?}");
                return;
            }
            for pid in others {
                let _ = kill_process(pid, Signal::KILL);
            }
            thread::sleep(Duration::from_millis(20));
        }
    }
}

/// The living processes of this PID namespace, without init and this one. Only ever called inside, where
/// `/proc` shows nothing else.
fn other_processes() -> Vec<Pid> {
    let own = rustix::process::getpid();
    let is_living = |pid: &Pid| {
        // "PID (NAME) STATE …"; a zombie only waits for its parent.
        let stat = fs::read_to_string(format!("/proc/{}/stat", pid.as_raw_nonzero())).unwrap_or_default();
        stat.rsplit_once(") ").is_some_and(|(_, rest)| !rest.starts_with(['Z', 'X']))
    };
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    entries
        .filter_map(|entry| entry.file_name().to_str()?.parse().ok().and_then(Pid::from_raw))
        .filter(|pid| !pid.is_init() && *pid != own)
        .filter(is_living)
        .collect()
}

/// This program, with the arguments it was called with. By way of `/proc`, since a build may put a new
/// file at its path at any time.
fn this_program() -> Command {
    let mut arguments = env::args_os();
    let mut command = Command::new("/proc/self/exe");
    if let Some(name) = arguments.next() {
        command.arg0(name);
    }
    command.args(arguments);
    command
}

/// Runs `ip` from iproute2.
pub(crate) fn ip(arguments: &[&str]) -> Result<()> {
    let program = crate::prerequisites::find_program("ip").context("there is no `ip` (package iproute2)")?;
    let output = Command::new(program).args(arguments).output().context("cannot run `ip`")?;
    let complaint = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "`ip {}` failed: {}", arguments.join(" "), complaint.trim());
    Ok(())
}

/// True when the outer process ended between starting us and our asking for its death signal: the pipe at our
/// standard input is closed then. (Its id does not tell: from inside, a parent outside is always 0.)
fn parent_is_gone() -> Result<bool> {
    let mut pipe = File::from(io::stdin().as_fd().try_clone_to_owned()?);
    fcntl_setfl(&pipe, fcntl_getfl(&pipe)? | OFlags::NONBLOCK)?;
    match pipe.read(&mut [0]) {
        Ok(_) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(false),
        Err(error) => Err(error).context("cannot read the pipe from the outer process"),
    }
}

/// Held while a run uses `folder`.
fn lock_beside(folder: &Path) -> Result<File> {
    let path = folder.with_added_extension("lock");
    if let Some(parent) = path.parent() {
        fs::create_dir_all(parent).with_context(|| format!("cannot create {}", parent.display()))?;
    }
    let lock = File::create(&path).with_context(|| format!("cannot create {}", path.display()))?;
    let deadline = Instant::now() + LOCK_LIMIT;
    let mut told = false;
    while lock.try_lock().is_err() {
        ensure!(Instant::now() < deadline, "another run of the cluster tests still holds {}", path.display());
        if !told {
            eprintln!("Another run of the cluster tests uses {}: waiting for it …", folder.display());
            told = true;
        }
        thread::sleep(Duration::from_millis(200));
    }
    Ok(lock)
}

/// Logs and configuration stay for a person to read; images, containers and etcd's data go.
fn remove_big_folders(folder: &Path) {
    let nodes = fs::read_dir(folder).into_iter().flatten().flatten().map(|entry| entry.path());
    let of_nodes = nodes.flat_map(|node| [node.join("containerd"), node.join("kubelet")]);
    for big in of_nodes.chain([folder.join("etcd")]) {
        let _ = fs::remove_dir_all(big);
    }
}

fn exit_code(code: i32) -> ExitCode {
    ExitCode::from(u8::try_from(code).unwrap_or(1))
}
