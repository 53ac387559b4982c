//! `deploy/images/build.sh` writes OCI archives whose names are the digests of what they name, twice the same.
#![allow(clippy::unwrap_used)]

use std::fs;
use std::path::Path;
use std::process::Command;

use serde_json::Value;
use stowage_chart_tests::{files, helm};

/// Builds the images of two programs that are there on every machine.
fn build(programs: &Path, out: &Path, umask: &str) {
    let mut command = Command::new("sh");
    command
        .args(["-c", r#"umask "$0" && exec "$@""#, umask])
        .arg(files::root().join("deploy/images/build.sh"))
        .arg("--programs")
        .arg(programs)
        .args(["--tag", "test"])
        .arg(out)
        // An owner's name as forges write it; in the name of an image are small letters alone.
        .env("REGISTRY", "ghcr.io/Stowage")
        .env("SOURCE_DATE_EPOCH", "1700000000");
    helm::run(command).unwrap();
}

/// What `sha256sum` and `tar` say; the script needs both too.
fn said(program: &str, arguments: &[&str]) -> String {
    let mut command = Command::new(program);
    command.args(arguments);
    helm::run(command).unwrap()
}

#[test]
fn two_builds_are_the_same_and_every_name_in_them_is_a_digest() {
    let folder = tempfile::tempdir().unwrap();
    let programs = folder.path().join("programs");
    fs::create_dir(&programs).unwrap();
    let images = [("stowage-scheduler-extender", "65532:65532"), ("stowage-device-plugin", "0:0")];
    for (name, _) in images {
        fs::copy("/bin/true", programs.join(name)).unwrap();
    }
    let (one, two) = (folder.path().join("one"), folder.path().join("two"));
    build(&programs, &one, "022");
    // Not root runs the extender: it must be readable, whoever built it.
    build(&programs, &two, "077");
    for (name, user) in images {
        let archive = format!("{name}.tar");
        assert!(
            fs::read(one.join(&archive)).unwrap() == fs::read(two.join(&archive)).unwrap(),
            "{name} differs"
        );

        let image = folder.path().join(name);
        fs::create_dir(&image).unwrap();
        said("tar", &["-xf", one.join(&archive).to_str().unwrap(), "-C", image.to_str().unwrap()]);
        let json = |text: &str| -> Value { serde_json::from_str(text).unwrap() };
        // Each blob is what its name says.
        let blob = |descriptor: &Value| {
            let digest = descriptor["digest"].as_str().unwrap().strip_prefix("sha256:").unwrap();
            let path = image.join("blobs/sha256").join(digest);
            assert_eq!(fs::metadata(&path).unwrap().len(), descriptor["size"].as_u64().unwrap());
            assert!(said("sha256sum", &[path.to_str().unwrap()]).starts_with(digest));
            path
        };
        let index = json(&fs::read_to_string(image.join("index.json")).unwrap());
        let annotations = &index["manifests"][0]["annotations"];
        assert_eq!(annotations["io.containerd.image.name"], format!("ghcr.io/stowage/{name}:test"));
        let manifest = json(&fs::read_to_string(blob(&index["manifests"][0])).unwrap());
        let config = json(&fs::read_to_string(blob(&manifest["config"])).unwrap());
        assert_eq!(config["config"]["User"], user);
        assert_eq!(config["config"]["Entrypoint"][0], format!("/usr/bin/{name}"));
        assert_eq!(config["rootfs"]["diff_ids"][0], manifest["layers"][0]["digest"]);
        let layer = blob(&manifest["layers"][0]);
        // Docker's own description tells the same.
        let docker = json(&fs::read_to_string(image.join("manifest.json")).unwrap());
        assert_eq!(docker[0]["RepoTags"][0], format!("ghcr.io/stowage/{name}:test"));
        assert_eq!(image.join(docker[0]["Config"].as_str().unwrap()), blob(&manifest["config"]));
        assert_eq!(image.join(docker[0]["Layers"][0].as_str().unwrap()), layer);
        let listing = said("tar", &["--list", "--verbose", "--numeric-owner", "-f", layer.to_str().unwrap()]);
        let program = listing.lines().find(|line| line.ends_with(&format!(" usr/bin/{name}"))).unwrap();
        assert!(program.starts_with("-rwxr-xr-x 0/0 "), "{program}");
        assert!(
            listing.lines().any(|line| line.starts_with("drwxr-xr-x 0/0 ") && line.ends_with(" usr/bin/"))
        );
        // No shell, nor anything else.
        let in_bin = listing.lines().filter(|line| line.contains(" usr/bin/") && !line.ends_with('/'));
        assert_eq!(in_bin.count(), 1, "{listing}");
    }
}
