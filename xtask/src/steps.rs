//! What the menu runs: cargo, one step after another, each named before it starts and timed after it ends.

use std::env;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Instant;

use anyhow::{Context, Result, ensure};
use clap::Args;

/// What to test.
#[derive(Debug, Args)]
pub struct TestArgs {
    /// Runs the long forms too: more seeds, more rounds, more kills.
    #[arg(long)]
    long: bool,
    /// Leaves the real cluster out: it needs root, Debian packages and Go. Refused where CI=true.
    #[arg(long)]
    without_cluster: bool,
}

/// What to measure.
#[derive(Debug, Args)]
pub struct BenchArgs {
    /// Passed on to the benchmark: `extender`, `plugin`, or `answers`, which needs NVIDIA_DEVICE_PLUGIN; or `scale`, which
    /// needs root and Go, with its own options after it (`scale --help` lists them).
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    only: Vec<String>,
}

/// Set to `1` for the long forms of tests.
const LONG_ENV: &str = "STOWAGE_LONG";

/// Runs every test.
pub fn test(args: &TestArgs) -> Result<()> {
    let in_ci = env::var("CI").is_ok_and(|value| value == "true");
    ensure!(
        !(in_ci && args.without_cluster),
        "--without-cluster is refused where CI=true: nothing may be skipped"
    );
    let started = Instant::now();
    step("format", cargo(["fmt", "--all", "--check"]))?;
    step("licences and sources", deny()?)?;
    step("lints", cargo(["clippy", "--workspace", "--all-targets", "--quiet", "--", "--deny", "warnings"]))?;
    // Programs and the simulator's library are run by tests of other crates, so all is built first.
    step("build", cargo(["build", "--workspace", "--all-targets", "--quiet"]))?;
    let mut tests = cargo(["test", "--workspace", "--quiet", "--no-fail-fast"]);
    if args.long {
        tests.env(LONG_ENV, "1");
    }
    tests.args(["--exclude", "stowage-cluster-tests", "--exclude", "stowage-scale"]);
    if args.without_cluster && !can_have_helm() {
        println!("xtask: the chart's tests were left out: they need helm, or Go to build it");
        tests.args(["--exclude", "stowage-chart-tests"]);
    }
    step("unit, property and socket tests", tests)?;
    if args.without_cluster {
        println!("xtask: the real cluster was left out, as asked");
    } else {
        // Of the whole workspace, or cargo builds every dependency once more, with the features of two packages alone; the
        // libraries' tests are quick. Hollow clusters are real ones without kubelets.
        let mut cluster =
            cargo(["test", "--workspace", "--quiet", "--lib", "--test", "cluster", "--test", "hollow"]);
        if args.long {
            cluster.env(LONG_ENV, "1");
        }
        step("real-cluster tests", cluster)?;
    }
    println!("xtask: everything passed in {} s", started.elapsed().as_secs());
    Ok(())
}

/// Measures the hot paths with the programs as they are released.
pub fn bench(args: &BenchArgs) -> Result<()> {
    if let Some((first, options)) = args.only.split_first()
        && first == "scale"
    {
        return bench_scale(options);
    }
    let all = args.only.is_empty();
    let mut programs = vec!["stowage-bench"];
    if all || args.only.iter().any(|name| name == "extender") {
        programs.push("stowage-scheduler-extender");
    }
    if all || args.only.iter().any(|name| name != "extender") {
        programs.extend(["stowage-device-plugin", "nvml-simulator"]);
    }
    let mut build = cargo(["build", "--release", "--quiet"]);
    build.args(programs.iter().flat_map(|name| ["--package", name]));
    step("build", build)?;
    let mut bench = cargo(["run", "--release", "--quiet", "--package", "stowage-bench", "--"]);
    bench.args(&args.only);
    step("bench", bench)
}

/// Measures scheduling end to end, on thousands of hollow nodes.
fn bench_scale(options: &[String]) -> Result<()> {
    let mut build = cargo(["build", "--release", "--quiet"]);
    build.args(["--package", "stowage-scheduler-extender", "--package", "stowage-scale"]);
    step("build", build)?;
    let mut bench = cargo(["run", "--release", "--quiet", "--package", "stowage-scale", "--"]);
    // What is measured when nothing else is said.
    if options.first().is_none_or(|first| first.starts_with("--") && first != "--help") {
        bench.arg("throughput");
    }
    bench.args(options);
    step("bench", bench)
}

/// Writes the generated files again.
pub fn generate() -> Result<()> {
    for (what, package, test) in [
        ("the gRPC code", "kubelet-api", "fresh"),
        ("the CRD", "stowage-workspace-tests", "crd"),
        ("the chart's templates, schema and page", "stowage-chart-tests", "fresh"),
        ("the plain manifests", "stowage-chart-tests", "plain"),
        ("the tables in docs", "stowage-workspace-tests", "docs"),
        ("the references in docs", "stowage-workspace-tests", "references"),
    ] {
        let mut command = cargo(["test", "--quiet", "--package", package, "--test", test]);
        command.env("UPDATE_GENERATED", "1");
        step(what, command)?;
    }
    Ok(())
}

/// Whether the chart's tests find helm, or can build it.
fn can_have_helm() -> bool {
    let path = env::var_os("PATH").unwrap_or_default();
    env::var_os("HELM").is_some()
        || env::split_paths(&path).any(|folder| folder.join("helm").is_file() || folder.join("go").is_file())
}

/// `cargo deny`, installed by cargo itself where it is missing.
fn deny() -> Result<Command> {
    let there = cargo(["deny", "--version"]).stdout(Stdio::null()).stderr(Stdio::null()).status();
    if !there.is_ok_and(|status| status.success()) {
        step(
            "cargo-deny is missing: installing it",
            cargo(["install", "cargo-deny", "--locked", "--quiet"]),
        )?;
    }
    Ok(cargo(["deny", "--log-level", "error", "check", "bans", "licenses", "sources"]))
}

/// cargo, in the repository.
pub fn cargo<const N: usize>(args: [&str; N]) -> Command {
    let mut command = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.args(args).current_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join(".."));
    command
}

/// Names a step, takes it, and times it.
///
/// # Errors
/// Where it fails.
pub fn step(name: &str, mut command: Command) -> Result<()> {
    println!("xtask: {name} …");
    let started = Instant::now();
    let status = command.status().with_context(|| format!("{name}: cannot run {command:?}"))?;
    ensure!(status.success(), "{name} failed: {command:?} ended with {status}");
    println!("xtask: {name} took {:.1} s", started.elapsed().as_secs_f64());
    Ok(())
}
