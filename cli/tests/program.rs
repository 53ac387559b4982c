//! The program as kubectl starts it: flags, exit codes, what goes to which stream.
#![allow(clippy::unwrap_used)]

mod common;

use std::io::{Read, Write};
use std::process::{Output, Stdio};

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
    for command in
        ["map", "nodes", "top", "explain", "what-if", "advise", "defrag", "doctor", "audit", "completion"]
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

/// Runs the script that kubectl runs when Tab is pressed, with the words behind `kubectl stowage`.
fn complete(words: &[&str]) -> Vec<String> {
    let program = std::path::Path::new(env!("CARGO_BIN_EXE_kubectl-stowage"));
    let path = format!("{}:/usr/bin:/bin", program.parent().unwrap().display());
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/../deploy/krew/kubectl_complete-stowage");
    let output = std::process::Command::new(script)
        .args(words)
        .env("PATH", path)
        .env_remove("KUBECONFIG")
        .env("HOME", "/nonexistent")
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", text(&output.stderr));
    text(&output.stdout).lines().map(str::to_owned).collect()
}

#[test]
fn kubectl_is_told_what_a_word_may_become_and_whether_files_may_do() {
    assert_eq!(
        complete(&["-n", "team-a", "expl"]),
        ["explain\tWhy a pod waits, node by node, or where it is and what was planned for it", ":4"]
    );
    let formats = complete(&["nodes", "--output="]);
    assert!(formats.iter().any(|line| line.split('\t').next() == Some("--output=json")), "{formats:?}");
    assert_eq!(complete(&["what-if", "-f", ""]), [":0"]);
    assert_eq!(complete(&["explain", ""]), [":4"], "without a cluster there are no pods, and no error");
    assert_eq!(complete(&[]).len(), complete(&[""]).len());
}

#[tokio::test(flavor = "multi_thread")]
async fn kubectl_is_told_the_names_of_a_cluster_and_its_kubeconfig() {
    let cluster = Cluster::recorded().await;
    let (_folder, path) = kubeconfig(&cluster);
    let search = complete(&["--kubeconfig", &path, "-n", "search", "explain", "rerank"]);
    assert_eq!(search, ["reranker-0", ":4"]);
    let contexts = complete(&["--kubeconfig", &path, "nodes", "--context", ""]);
    assert!(contexts.len() == 2 && contexts[1] == ":4", "{contexts:?}");
}

#[test]
fn without_a_cluster_it_says_how_to_name_one() {
    let none = run(&["nodes"]);
    assert_eq!(none.status.code(), Some(1));
    assert!(text(&none.stderr).contains("--kubeconfig"), "{}", text(&none.stderr));
    let missing = run(&["nodes", "--kubeconfig", "/nonexistent/config"]);
    assert!(text(&missing.stderr).contains("cannot read the kubeconfig /nonexistent/config"));
}

#[test]
fn the_full_screen_is_refused_where_there_is_no_terminal() {
    let top = run(&["top"]);
    assert_eq!((top.status.code(), top.stdout.len()), (Some(1), 0));
    assert!(
        text(&top.stderr).contains("kubectl stowage nodes prints the same once"),
        "{}",
        text(&top.stderr)
    );
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

/// On a terminal of its own, which `script` makes. `end` is told the process once it shows a node, and what it types on.
fn on_a_terminal(kubeconfig: &str, end: impl FnOnce(u32, &mut dyn Write)) -> (Option<i32>, Vec<u8>) {
    let program = env!("CARGO_BIN_EXE_kubectl-stowage");
    let command = format!("stty rows 30 cols 120; exec {program} top --kubeconfig {kubeconfig}");
    let mut script = std::process::Command::new("script")
        .args(["--quiet", "--return", "--flush", "--command", &command, "/dev/null"])
        .env("TERM", "xterm")
        .env("SHELL", "/bin/sh")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("script, of Debian's bsdutils, runs");
    let (mut keys, mut screen) = (script.stdin.take().unwrap(), script.stdout.take().unwrap());
    let (mut seen, mut end) = (Vec::new(), Some(end));
    let mut more = [0; 4096];
    while let Ok(length @ 1..) = screen.read(&mut more) {
        seen.extend_from_slice(&more[..length]);
        if String::from_utf8_lossy(&seen).contains("gpu-node-1")
            && let Some(end) = end.take()
        {
            let children = format!("/proc/{0}/task/{0}/children", script.id());
            let child = std::fs::read_to_string(children).unwrap();
            end(child.trim().parse().unwrap(), &mut keys);
        }
    }
    (script.wait().unwrap().code(), seen)
}

#[tokio::test(flavor = "multi_thread")]
async fn the_full_screen_gives_the_terminal_back_however_it_ends() {
    let cluster = Cluster::recorded().await;
    let (_folder, path) = kubeconfig(&cluster);
    let kill = |signal: &'static str| {
        move |process: u32| {
            let status = std::process::Command::new("kill").args([signal, &process.to_string()]).status();
            assert!(status.unwrap().success());
        }
    };
    type End = Box<dyn FnOnce(u32, &mut dyn Write)>;
    let ends: [(&str, End); 4] = [
        ("q", Box::new(|_, keys| keys.write_all(b"q").unwrap())),
        ("Ctrl-C", Box::new(|_, keys| keys.write_all(b"\x03").unwrap())),
        ("SIGTERM", Box::new(move |process, _| kill("-TERM")(process))),
        ("SIGHUP", Box::new(move |process, _| kill("-HUP")(process))),
    ];
    for (name, end) in ends {
        let (code, seen) = on_a_terminal(&path, end);
        let seen = String::from_utf8_lossy(&seen);
        // The other screen is entered, and left; the cursor is shown again.
        let (entered, left) = (seen.find("\u{1b}[?1049h"), seen.rfind("\u{1b}[?1049l"));
        assert!(
            entered.is_some() && left > entered && seen.trim_end().ends_with("\u{1b}[?25h"),
            "{name}: {seen:?}"
        );
        assert_eq!(code, Some(0), "{name}");
    }
}
