//! Holds `src/generated/` to `proto/`, and both to Kubernetes.
//!
//! The Rust code is generated here and committed, so that nobody who builds Stowage needs a
//! protobuf compiler or waits for one. After a change of a `.proto` file:
//! `UPDATE_GENERATED=1 cargo test -p kubelet-api`. For another version of Kubernetes, set
//! `UPDATE_WIRE_FORMAT` to the folder `pkg/apis` of its module `k8s.io/kubelet`: that writes the
//! golden list anew, and the test then says what our files lack.

#![allow(clippy::unwrap_used)]

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use prost_types::field_descriptor_proto::{Label, Type};
use prost_types::{DescriptorProto, FieldDescriptorProto, FileDescriptorProto, FileDescriptorSet};

const PROTOS: [&str; 2] = ["deviceplugin/v1beta1/api.proto", "podresources/v1/api.proto"];

/// What `heck`, prost's renamer, makes badly readable (`device_i_ds`), and what we call it. Only
/// numbers and types go over the wire, so a Rust name is ours to choose.
const RUST_NAMES: [(&str, &str); 3] = [
    ("available_deviceIDs", "available_device_ids"),
    ("must_include_deviceIDs", "must_include_device_ids"),
    ("deviceIDs", "device_ids"),
];

#[test]
fn generated_code_is_what_the_protos_say() {
    let fresh = tempfile::tempdir().unwrap();
    let mut descriptors = compile(&root().join("proto"));
    rename_for_rust(&mut descriptors);
    tonic_prost_build::configure()
        // A map in order: equal answers have equal bytes.
        .btree_map(".")
        .emit_rerun_if_changed(false)
        .out_dir(fresh.path())
        .compile_fds(descriptors)
        .unwrap();

    let committed = root().join("src/generated");
    if std::env::var_os("UPDATE_GENERATED").is_some_and(|value| value == "1") {
        for name in file_names(&committed) {
            fs::remove_file(committed.join(name)).unwrap();
        }
        for name in file_names(fresh.path()) {
            fs::copy(fresh.path().join(&name), committed.join(&name)).unwrap();
        }
    }
    let cure = "run `UPDATE_GENERATED=1 cargo test -p kubelet-api` and commit the result";
    assert_eq!(file_names(fresh.path()), file_names(&committed), "other files than generated: {cure}");
    for name in file_names(fresh.path()) {
        let equal = fs::read(fresh.path().join(&name)).unwrap() == fs::read(committed.join(&name)).unwrap();
        assert!(equal, "src/generated/{name} is not what proto/ generates: {cure}");
    }
}

/// The golden list is what [`describe`] says of Kubernetes's own files.
#[test]
fn wire_format_is_kubernetes_own() {
    let golden = root().join("tests/wire_format.txt");
    if let Some(kubernetes) = std::env::var_os("UPDATE_WIRE_FORMAT") {
        let lines: BTreeSet<String> =
            compile(Path::new(&kubernetes)).file.iter().flat_map(describe).collect();
        let text: String = lines.iter().map(|line| format!("{line}\n")).collect();
        fs::write(&golden, text).unwrap();
    }
    let theirs: BTreeSet<String> = fs::read_to_string(&golden).unwrap().lines().map(str::to_owned).collect();
    let ours: BTreeSet<String> = compile(&root().join("proto")).file.iter().flat_map(describe).collect();
    let missing: Vec<_> = theirs.difference(&ours).collect();
    let invented: Vec<_> = ours.difference(&theirs).collect();
    assert!(missing.is_empty() && invented.is_empty(), "missing: {missing:#?}\ninvented: {invented:#?}");
    assert!(ours.len() > 80, "only {} lines describe both interfaces", ours.len());
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn compile(folder: &Path) -> FileDescriptorSet {
    protox::compile(PROTOS, [folder]).unwrap()
}

fn file_names(folder: &Path) -> BTreeSet<String> {
    fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
}

fn rename_for_rust(descriptors: &mut FileDescriptorSet) {
    let fields = descriptors
        .file
        .iter_mut()
        .flat_map(|file| &mut file.message_type)
        .flat_map(|message| &mut message.field);
    for field in fields {
        if let Some((_, rust)) = RUST_NAMES.iter().find(|(proto, _)| field.name() == *proto) {
            field.name = Some((*rust).to_owned());
        }
    }
}

/// Everything of a file that reaches the wire, one line each.
fn describe(file: &FileDescriptorProto) -> Vec<String> {
    let package = file.package();
    let mut lines = Vec::new();
    for service in &file.service {
        for method in &service.method {
            lines.push(format!(
                "rpc /{package}.{}/{} {}{} -> {}{}",
                service.name(),
                method.name(),
                if method.client_streaming() { "stream " } else { "" },
                method.input_type(),
                if method.server_streaming() { "stream " } else { "" },
                method.output_type(),
            ));
        }
    }
    for message in &file.message_type {
        describe_message(&mut lines, &format!("{package}.{}", message.name()), message);
    }
    lines
}

fn describe_message(lines: &mut Vec<String>, name: &str, message: &DescriptorProto) {
    lines.push(format!("message {name}"));
    lines.extend(message.field.iter().map(|field| describe_field(name, field)));
    for nested in &message.nested_type {
        describe_message(lines, &format!("{name}.{}", nested.name()), nested);
    }
}

fn describe_field(message: &str, field: &FieldDescriptorProto) -> String {
    let label = match field.label() {
        Label::Repeated => "repeated ",
        Label::Required => "required ",
        Label::Optional if field.proto3_optional() => "optional ",
        Label::Optional => "",
    };
    let kind = match field.r#type() {
        Type::Message | Type::Enum => field.type_name().to_owned(),
        scalar => scalar.as_str_name().to_owned(),
    };
    format!("field {message}.{} = {} {label}{kind}", field.name(), field.number())
}
