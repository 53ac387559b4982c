//! The containers' images, made from busybox without Docker and without a registry.
//!
//! An image archive as `docker save` writes it: a tar with a layer (again a tar), a configuration and a
//! manifest that names both by digest. `ctr images import` takes it. Pods must use `imagePullPolicy: Never`,
//! since no registry has these images.

use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use tar::{Builder, EntryType, Header};

/// What a test's container runs. By default it prints its environment, then sleeps until SIGTERM ends it at
/// once; so a pod of it needs no command and stops without waiting for its grace period.
pub const BUSYBOX: &str = "busybox:local";
/// What holds a pod's namespaces; named in containerd's configuration.
pub(crate) const PAUSE: &str = "docker.io/library/pause:local";

const BUSYBOX_REFERENCE: &str = "docker.io/library/busybox:local";
const PRINT_AND_SLEEP: &str = "trap 'exit 0' TERM; env; sleep 2147483647 & wait";
/// The commands that the images offer, each a link to busybox.
const COMMANDS: [&str; 14] = [
    "cat", "echo", "env", "false", "grep", "httpd", "ls", "nc", "sh", "sleep", "stat", "test", "true", "wget",
];

/// Writes both images into one archive at `path`; `busybox` is a statically linked busybox.
pub(crate) fn write_archive(path: &Path, busybox: &Path) -> Result<()> {
    let busybox = fs::read(busybox).with_context(|| format!("cannot read {}", busybox.display()))?;
    let layer = layer(&busybox)?;
    let mut archive = Archive::new(layer)?;
    archive.add_image(BUSYBOX_REFERENCE, json!(["/bin/sh", "-c", PRINT_AND_SLEEP]))?;
    archive.add_image(PAUSE, json!(["/bin/sleep", "2147483647"]))?;
    fs::write(path, archive.finish()?).with_context(|| format!("cannot write {}", path.display()))
}

/// Writes an image of one program into an archive at `path`: it lies in `/bin`, and the libraries that it is linked with
/// where it looks for them.
pub fn write_program(path: &Path, reference: &str, program: &Path) -> Result<()> {
    let name = program.file_name().context("a program without a name")?.to_string_lossy();
    let content = fs::read(program).with_context(|| format!("cannot read {}", program.display()))?;
    let mut layer = Builder::new(Vec::new());
    add_file(&mut layer, &format!("bin/{name}"), 0o755, &content)?;
    let ldd = Command::new("ldd").arg(program).output().context("cannot run `ldd`")?;
    // It says nothing of a program that is linked statically.
    let said = String::from_utf8_lossy(&ldd.stdout);
    for library in said.split_whitespace().filter(|word| word.starts_with('/')) {
        let content = fs::read(library).with_context(|| format!("cannot read {library}"))?;
        add_file(&mut layer, library.trim_start_matches('/'), 0o755, &content)?;
    }
    let mut archive = Archive::new(layer.into_inner()?)?;
    archive.add_image(reference, json!([format!("/bin/{name}")]))?;
    fs::write(path, archive.finish()?).with_context(|| format!("cannot write {}", path.display()))
}

/// An archive whose images share one layer.
struct Archive {
    tar: Builder<Vec<u8>>,
    layer_digest: String,
    manifest: Vec<Value>,
}

impl Archive {
    fn new(layer: Vec<u8>) -> Result<Self> {
        let layer_digest = digest(&layer);
        let mut tar = Builder::new(Vec::new());
        add_file(&mut tar, &format!("{layer_digest}.tar"), 0o644, &layer)?;
        Ok(Self { tar, layer_digest, manifest: Vec::new() })
    }

    fn add_image(&mut self, reference: &str, command: Value) -> Result<()> {
        let configuration = serde_json::to_vec(&json!({
            "architecture": go_architecture(),
            "os": "linux",
            "config": { "Cmd": command, "Env": ["PATH=/bin"] },
            "rootfs": { "type": "layers", "diff_ids": [format!("sha256:{}", self.layer_digest)] },
        }))?;
        let name = format!("{}.json", digest(&configuration));
        add_file(&mut self.tar, &name, 0o644, &configuration)?;
        self.manifest.push(json!({
            "Config": name,
            "RepoTags": [reference],
            "Layers": [format!("{}.tar", self.layer_digest)],
        }));
        Ok(())
    }

    fn finish(mut self) -> Result<Vec<u8>> {
        let manifest = serde_json::to_vec(&self.manifest)?;
        add_file(&mut self.tar, "manifest.json", 0o644, &manifest)?;
        Ok(self.tar.into_inner()?)
    }
}

fn layer(busybox: &[u8]) -> Result<Vec<u8>> {
    let mut tar = Builder::new(Vec::new());
    for folder in ["bin/", "etc/", "tmp/"] {
        let mut header = Header::new_ustar();
        header.set_entry_type(EntryType::Directory);
        header.set_mode(0o755);
        header.set_size(0);
        tar.append_data(&mut header, folder, std::io::empty())?;
    }
    add_file(&mut tar, "bin/busybox", 0o755, busybox)?;
    for command in COMMANDS {
        let mut header = Header::new_ustar();
        header.set_entry_type(EntryType::Symlink);
        header.set_mode(0o777);
        header.set_size(0);
        tar.append_link(&mut header, format!("bin/{command}"), "busybox")?;
    }
    Ok(tar.into_inner()?)
}

fn add_file(tar: &mut Builder<Vec<u8>>, path: &str, mode: u32, content: &[u8]) -> Result<()> {
    let mut header = Header::new_ustar();
    header.set_mode(mode);
    header.set_size(content.len() as u64);
    tar.append_data(&mut header, path, content).with_context(|| format!("cannot add {path} to the image"))
}

fn digest(content: &[u8]) -> String {
    Sha256::digest(content).iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The name that Go, and so container images, use for the processor.
fn go_architecture() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use std::collections::BTreeMap;
    use std::io::Read;

    fn files(archive: &[u8]) -> BTreeMap<String, Vec<u8>> {
        let mut archive = tar::Archive::new(archive);
        let entries = archive.entries().unwrap().map(|entry| {
            let mut entry = entry.unwrap();
            let mut content = Vec::new();
            entry.read_to_end(&mut content).unwrap();
            (entry.path().unwrap().display().to_string(), content)
        });
        entries.collect()
    }

    #[test]
    fn every_name_in_the_manifest_is_the_digest_of_a_file_in_the_archive() {
        let folder = tempfile::tempdir().unwrap();
        let (busybox, path) = (folder.path().join("busybox"), folder.path().join("images.tar"));
        fs::write(&busybox, "not really busybox").unwrap();
        write_archive(&path, &busybox).unwrap();

        let files = files(&fs::read(&path).unwrap());
        let manifest: Vec<Value> = serde_json::from_slice(&files["manifest.json"]).unwrap();
        let tags: Vec<_> = manifest.iter().map(|image| image["RepoTags"][0].as_str().unwrap()).collect();
        assert_eq!(tags, [BUSYBOX_REFERENCE, PAUSE]);
        for image in &manifest {
            let (config, layer) = (image["Config"].as_str().unwrap(), image["Layers"][0].as_str().unwrap());
            assert_eq!(config, format!("{}.json", digest(&files[config])));
            assert_eq!(layer, format!("{}.tar", digest(&files[layer])));
            let config: Value = serde_json::from_slice(&files[config]).unwrap();
            assert_eq!(config["rootfs"]["diff_ids"][0], format!("sha256:{}", digest(&files[layer])));
        }
    }

    #[test]
    fn the_layer_has_busybox_under_the_names_of_its_commands() {
        let files = files(&layer(b"program").unwrap());
        assert_eq!(files["bin/busybox"], b"program");
        assert!(COMMANDS.iter().all(|command| files.contains_key(&format!("bin/{command}"))));
    }
}
