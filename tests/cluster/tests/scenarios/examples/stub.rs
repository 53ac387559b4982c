//! What stands in the place of a model server: a web server that answers its probes.
//!
//! Replaced are images and what runs in them, how much processor and memory is asked for, and volumes that a node or a
//! storage class would have to bring. Devices, schedulers, policies, ports and probes are the example's own.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use serde_json::{Value, json};
use stowage_cluster_tests::{apply, images};

/// The API groups of a cluster without operators; objects of others are held to what those say of them elsewhere.
const GROUPS: [&str; 8] = [
    "v1",
    "apps/v1",
    "autoscaling/v2",
    "batch/v1",
    "networking.k8s.io/v1",
    "policy/v1",
    "rbac.authorization.k8s.io/v1",
    "storage.k8s.io/v1",
];
/// By this label the pods of an example are known: its value is the example's name.
pub(super) const LABEL: &str = "stowage-example";

/// The name of each example, and its objects that a cluster without operators takes, with stubs in their pods.
pub(super) fn examples() -> Result<Vec<(String, Vec<Value>)>> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../deploy/examples");
    let entries = fs::read_dir(&folder).with_context(|| format!("cannot read {}", folder.display()))?;
    let mut files: Vec<PathBuf> = entries.map(|entry| entry.map(|e| e.path())).collect::<Result<_, _>>()?;
    files.retain(|file| file.extension().is_some_and(|end| end == "yaml"));
    files.sort_unstable();
    let read = |file: PathBuf| {
        let name = file.file_stem().unwrap_or_default().to_string_lossy().into_owned();
        let mut objects = apply::read_manifests(&file)?;
        objects.retain(|object| object["apiVersion"].as_str().is_some_and(|group| GROUPS.contains(&group)));
        objects.iter_mut().for_each(|object| replace_servers(object, LABEL, &name));
        Ok((name, objects))
    };
    files.into_iter().map(read).collect()
}

/// Puts stubs into the pods of a workload, and a label on them. Other objects are left as they are.
fn replace_servers(object: &mut Value, label: &str, example: &str) {
    let spec = object.get_mut("spec").and_then(Value::as_object_mut);
    let claims = spec.and_then(|spec| spec.remove("volumeClaimTemplates"));
    let claims = claims.as_ref().and_then(Value::as_array);
    let is_job = object["kind"] == "Job";
    let Some(template) = object.pointer_mut("/spec/template") else { return };
    template["metadata"]["labels"][label] = example.into();
    let pod = &mut template["spec"];
    let claimed = claims.into_iter().flatten().map(|claim| claim["metadata"]["name"].clone());
    let claimed: Vec<Value> = claimed.map(|name| json!({"name": name, "emptyDir": {}})).collect();
    if !claimed.is_empty() {
        pod["volumes"] = claimed.into();
    }
    for volume in list(pod, "volumes") {
        if volume.get("persistentVolumeClaim").or(volume.get("hostPath")).is_some() {
            *volume = json!({"name": volume["name"], "emptyDir": {}});
        }
    }
    for container in list(pod, "initContainers") {
        replace(container, "true".to_owned());
    }
    for container in list(pod, "containers") {
        let script = if is_job { "true".to_owned() } else { server(container) };
        replace(container, script);
    }
}

fn list<'a>(pod: &'a mut Value, field: &str) -> impl Iterator<Item = &'a mut Value> {
    pod.get_mut(field).and_then(Value::as_array_mut).into_iter().flatten()
}

fn replace(container: &mut Value, script: String) {
    container["image"] = images::BUSYBOX.into();
    container["imagePullPolicy"] = "Never".into();
    container["command"] = json!(["/bin/sh", "-ec", script]);
    if let Some(fields) = container.as_object_mut() {
        fields.remove("args");
    }
    container["resources"]["requests"] = json!({"cpu": "5m", "memory": "8Mi"});
    for probe in ["startupProbe", "readinessProbe", "livenessProbe"] {
        if container.get(probe).is_some() {
            container[probe]["periodSeconds"] = 1.into();
        }
    }
}

/// A shell script that answers at each path that a probe of the container asks for.
fn server(container: &Value) -> String {
    let number = |port: &Value| match port {
        Value::String(name) => {
            let ports = container["ports"].as_array().into_iter().flatten();
            ports.filter(|port| port["name"] == name.as_str()).find_map(|port| port["containerPort"].as_u64())
        }
        port => port.as_u64(),
    };
    let mut paths: BTreeMap<u64, BTreeSet<&str>> = BTreeMap::new();
    for probe in ["startupProbe", "readinessProbe", "livenessProbe"] {
        let asked = &container[probe]["httpGet"];
        if let (Some(path), Some(port)) = (asked["path"].as_str(), number(&asked["port"])) {
            paths.entry(port).or_default().insert(path);
        }
    }
    let mut script = String::from("trap 'exit 0' TERM; ");
    for (port, paths) in paths {
        let root = format!("/tmp/{port}");
        for path in paths {
            let end = if path.ends_with('/') { "index.html" } else { "" };
            let file = format!("{root}{path}{end}");
            let folder = file.rsplit_once('/').map_or("", |(folder, _)| folder);
            script += &format!("/bin/busybox mkdir -p {folder}; echo ok > {file}; ");
        }
        script += &format!("httpd -f -p {port} -h {root} & ");
    }
    script + "sleep 2147483647 & wait"
}
