//! krew's manifest, filled as the release workflow fills it.
#![allow(clippy::unwrap_used)]

use std::process::Command;

use serde_json::Value;
use stowage_workspace_tests::pages::root;

#[test]
fn the_manifest_names_each_archive_with_its_checksum() {
    let folder = tempfile::tempdir().unwrap();
    for architecture in ["amd64", "arm64"] {
        let name = format!("kubectl-stowage-linux-{architecture}.tar.gz");
        std::fs::write(folder.path().join(name), architecture).unwrap();
    }
    let output = Command::new(root().join("deploy/krew/fill.sh"))
        .args(["v1.2.3", "https://forge.example.com/us/stowage"])
        .arg(folder.path())
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let manifest: Value = serde_saphyr::from_str(&String::from_utf8(output.stdout).unwrap()).unwrap();
    assert_eq!(
        (manifest["kind"].as_str(), manifest["metadata"]["name"].as_str()),
        (Some("Plugin"), Some("stowage"))
    );
    assert_eq!(manifest["spec"]["version"], "v1.2.3");
    assert_eq!(manifest["spec"]["homepage"], "https://forge.example.com/us/stowage");
    let platforms = manifest["spec"]["platforms"].as_array().unwrap();
    // printf amd64 | sha256sum
    let sums = [
        ("amd64", "5861314d7fccb39c2192173240eab44fa35ca66426201ca2acd0630a6258dd51"),
        ("arm64", "f69162950f235e3cdbbad33f1f912d1a504be90d8a37d002c735d6f3e3882265"),
    ];
    for (platform, (architecture, sum)) in platforms.iter().zip(sums) {
        let uri = platform["uri"].as_str().unwrap();
        assert_eq!(platform["selector"]["matchLabels"]["arch"], architecture);
        assert_eq!(platform["bin"], "kubectl-stowage");
        assert!(uri.starts_with("https://forge.example.com/us/stowage/releases/download/v1.2.3/"), "{uri}");
        assert!(uri.ends_with(&format!("-linux-{architecture}.tar.gz")), "{uri}");
        assert_eq!(platform["sha256"], sum);
    }
    assert_eq!(platforms.len(), 2);
}
