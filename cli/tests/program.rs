//! The program as kubectl starts it: flags, exit codes, what goes to which stream.
#![allow(clippy::unwrap_used)]

mod common;

use std::process::Output;

use common::Cluster;

/// Runs the program, without colours or configuration of whoever runs the test.
fn run(arguments: &[&str]) -> Output {
    let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_kubectl-stowage"));
    command.args(arguments).env_remove("KUBECONFIG").env_remove("NO_COLOR").env("HOME", "/nonexistent");
    command.output().unwrap()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

/// A kubeconfig of the recorded cluster; it lives as long as the folder.
fn kubeconfig(cluster: &Cluster) -> (tempfile::TempDir, String) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("config");
    std::fs::write(&path, cluster.server.kubeconfig(None)).unwrap();
    let path = path.to_str().unwrap().to_owned();
    (folder, path)
}

#[test]
fn usage_speaks_of_kubectl_and_a_wrong_flag_exits_with_2() {
    let help = text(&run(&["--help"]).stdout);
    assert!(help.contains("Usage: kubectl stowage"), "{help}");
    for command in ["map", "nodes", "explain", "what-if", "advise", "defrag", "doctor", "audit", "completion"]
    {
        assert!(help.contains(&format!("  {command} ")), "{help}");
    }
    assert_eq!(run(&["nodes", "--nonsense"]).status.code(), Some(2));
    let size = run(&["advise", "--model-size", "much"]);
    assert_eq!(size.status.code(), Some(2));
    assert!(text(&size.stderr).contains("such as 3Gi"), "{}", text(&size.stderr));
}

#[test]
fn completion_needs_no_cluster() {
    for shell in ["bash", "zsh", "fish"] {
        let script = run(&["completion", shell]);
        assert!(script.status.success());
        assert!(text(&script.stdout).contains("what-if"), "{shell}");
    }
}

#[test]
fn without_a_cluster_it_says_how_to_name_one() {
    let none = run(&["nodes"]);
    assert_eq!(none.status.code(), Some(1));
    assert!(text(&none.stderr).contains("--kubeconfig"), "{}", text(&none.stderr));
    let missing = run(&["nodes", "--kubeconfig", "/nonexistent/config"]);
    assert!(text(&missing.stderr).contains("cannot read the kubeconfig /nonexistent/config"));
}

#[tokio::test(flavor = "multi_thread")]
async fn answers_go_to_standard_output_without_colours_and_errors_do_not() {
    let cluster = Cluster::recorded().await;
    let (_folder, path) = kubeconfig(&cluster);
    let ask = |arguments: &[&str]| run(&[arguments, &["--kubeconfig", &path]].concat());
    let nodes = ask(&["nodes"]);
    assert!(nodes.status.success(), "{}", text(&nodes.stderr));
    assert!(text(&nodes.stdout).contains("gpu-node-1") && !text(&nodes.stdout).contains('\u{1b}'));
    let missing = ask(&["explain", "no\u{1b}[2Jbody"]);
    assert_eq!((missing.status.code(), missing.stdout.len()), (Some(1), 0));
    assert!(!text(&missing.stderr).contains('\u{1b}'));
    assert_eq!(ask(&["doctor"]).status.code(), Some(1), "it finds something");
    let context = ask(&["nodes", "--context", "other"]);
    assert!(text(&context.stderr).contains("cannot use context \"other\""), "{}", text(&context.stderr));
}

#[tokio::test(flavor = "multi_thread")]
async fn without_the_crd_only_the_doctor_goes_on() {
    let cluster = Cluster::recorded().await;
    cluster.server.store().uninstall(&stowage_stand_ins::api_server::resources::GPU_NODES);
    let (_folder, path) = kubeconfig(&cluster);
    let nodes = run(&["nodes", "--kubeconfig", &path]);
    assert!(text(&nodes.stderr).contains("is Stowage installed (deploy/crds)"), "{}", text(&nodes.stderr));
    let doctor = run(&["doctor", "--kubeconfig", &path]);
    assert!(text(&doctor.stdout).contains("kubectl apply -f deploy/crds"), "{}", text(&doctor.stdout));
}
