//! `deploy/crds` is made from the types of `stowage-shared`, so that the two cannot drift apart.
#![allow(clippy::unwrap_used)]

use std::path::Path;

use kube::core::schema::StructuralSchemaRewriter;
use schemars::generate::SchemaSettings;
use serde_json::{Value, json};
use stowage_shared::contract::{API_GROUP, API_VERSION};
use stowage_shared::gpu_node::{GpuNodeSpec, GpuNodeStatus, KIND, PLURAL};

const HEADER: &str = "\
# Made from the types in shared/src/gpu_node by `cargo xtask generate`. Do not edit.
# What each node's device plugin tells the cluster about its GPUs.
";

fn schema<T: schemars::JsonSchema>() -> Value {
    let settings = SchemaSettings::openapi3().with(|settings| settings.inline_subschemas = true);
    let generator = settings.with_transform(StructuralSchemaRewriter).into_generator();
    let mut schema = serde_json::to_value(generator.into_root_schema_for::<T>()).unwrap();
    let root = schema.as_object_mut().unwrap();
    for key in ["$schema", "title"] {
        root.remove(key);
    }
    forget_unsigned(&mut schema);
    schema
}

/// Kubernetes knows no unsigned formats, and `kubectl apply` would warn of each; `minimum: 0` says the same.
fn forget_unsigned(value: &mut Value) {
    match value {
        Value::Object(map) => {
            if map.get("format").and_then(Value::as_str).is_some_and(|format| format.starts_with("uint")) {
                map.remove("format");
            }
            map.values_mut().for_each(forget_unsigned);
        }
        Value::Array(list) => list.iter_mut().for_each(forget_unsigned),
        _ => {}
    }
}

fn crd() -> Value {
    let column = |name: &str, kind: &str, path: &str| json!({"name": name, "type": kind, "jsonPath": path});
    json!({
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": format!("{PLURAL}.{API_GROUP}")},
        "spec": {
            "group": API_GROUP,
            "scope": "Cluster",
            "names": {"kind": KIND, "plural": PLURAL, "singular": "gpunode", "shortNames": ["gn"]},
            "versions": [{
                "name": API_VERSION,
                "served": true,
                "storage": true,
                "subresources": {"status": {}},
                "additionalPrinterColumns": [
                    column("GPUs", "integer", ".status.summary.gpus"),
                    column("In use", "integer", ".status.summary.inUse"),
                    column("Unhealthy", "integer", ".status.summary.unhealthy"),
                    column("Observed", "date", ".status.observedAt"),
                ],
                "schema": {"openAPIV3Schema": {
                    "type": "object",
                    "description": "What the GPUs of one node are offered as, and who holds which devices.",
                    "properties": {"spec": schema::<GpuNodeSpec>(), "status": schema::<GpuNodeStatus>()},
                }},
            }],
        },
    })
}

#[test]
fn the_crd_is_what_the_types_say() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../deploy/crds/gpunodes.yaml");
    let fresh = format!("{HEADER}{}", serde_saphyr::to_string(&crd()).unwrap());
    if std::env::var_os("UPDATE_GENERATED").is_some() {
        std::fs::write(&path, &fresh).unwrap();
    }
    let committed = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(committed == fresh, "{} is stale: run `cargo xtask generate`", path.display());
}
