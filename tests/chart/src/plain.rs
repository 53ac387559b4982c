//! The chart rendered as plain manifests for `deploy/kustomize`.

use std::collections::BTreeMap;

use anyhow::{Context, Result};

use crate::{files, helm};

/// Where the base lies.
pub const FOLDER: &str = "deploy/kustomize/base";
/// Where the components lie, each in a folder of its name.
pub const OPTIONS_FOLDER: &str = "deploy/kustomize/options";

/// The component with which the map is served on the network; it takes more than a switch, see [`map`].
pub const MAP: &str = "map";

/// What the extender does besides, by component: the value of the chart, and the variable that switches it on. The rights of
/// the first go with any of the others.
pub const OPTIONS: [(&str, Option<(&str, &str)>); 5] = [
    ("lease", None),
    ("nominate", Some(("scheduler.extender.nominate", "NOMINATE"))),
    ("preemption", Some(("scheduler.extender.preemption", "PREEMPTION"))),
    ("defrag", Some(("scheduler.extender.defrag", "DEFRAG"))),
    ("drain-scale-downs", Some(("scheduler.extender.drainScaleDowns", "DRAIN_SCALE_DOWNS"))),
];

const HEADER: &str = "\
# Made from deploy/helm/stowage by `cargo xtask generate`. Do not edit.
";

/// Helm knows the API server's version; whoever applies a file must say it.
const OF_CLUSTER: &str = "          # Change this tag to your API server's minor (kubectl version): a newer one must not be used.\n";
const KUBE_SCHEDULER: &str = "          image: registry.k8s.io/kube-scheduler:";

/// The file that an object belongs to, by its template.
fn file(template: &str) -> &'static str {
    match template.rsplit('/').next().unwrap_or_default() {
        "namespaces.yaml" => "namespaces.yaml",
        "gpunodes.yaml" => "crd.yaml",
        "admission-policies.yaml" => "admission-policies.yaml",
        "device-plugin.yaml" | "device-plugin-rbac.yaml" => "device-plugin.yaml",
        "network-policy.yaml" => "network-policies.yaml",
        _ => "scheduler.yaml",
    }
}

/// The files of the base, by name.
///
/// # Errors
/// Where helm cannot be had, or refuses.
pub fn base() -> Result<BTreeMap<String, String>> {
    // `crds.keep` is for helm alone. Which kube-scheduler is right, whoever uses the base says.
    let rendered = helm::template(&files::chart(), ["--set", "crds.keep=false"])?;
    let mut files: BTreeMap<String, String> = BTreeMap::new();
    for (template, text) in documents(&rendered)? {
        let file = files.entry(file(template).to_owned()).or_insert_with(|| HEADER.to_owned());
        file.push_str("---\n");
        file.push_str(&text.replace(KUBE_SCHEDULER, &format!("{OF_CLUSTER}{KUBE_SCHEDULER}")));
    }
    let names: String = files.keys().map(|name| format!("  - {name}\n")).collect();
    let kustomization = format!(
        "{HEADER}apiVersion: kustomize.config.k8s.io/v1beta1\nkind: Kustomization\nresources:\n{names}"
    );
    files.insert("kustomization.yaml".into(), kustomization);
    Ok(files)
}

/// What helm rendered, by template, without what is helm's own.
fn documents(rendered: &str) -> Result<Vec<(&str, String)>> {
    let documents = rendered.split("---\n").filter(|document| !document.trim().is_empty());
    documents
        .map(|document| {
            let (source, text) = document.split_once('\n').context("helm names each document's template")?;
            let template =
                source.strip_prefix("# Source: ").context("helm names each document's template")?;
            let lines = text.lines().filter(|line| !is_helms(line));
            Ok((template, lines.map(|line| format!("{line}\n")).collect()))
        })
        .collect()
}

/// The files of one of [`OPTIONS`], by name.
pub fn option(name: &str, variable: Option<&str>) -> BTreeMap<String, String> {
    let patch = variable.map(|variable| PATCH.replace("VARIABLE", variable).replace("VALUE", "true"));
    component(name, "", &patch.unwrap_or_default())
}

/// The files of the component [`MAP`], by name. Its Service is what the chart renders.
///
/// # Errors
/// Where helm cannot be had, or refuses.
pub fn map() -> Result<BTreeMap<String, String>> {
    let rendered = helm::template(&files::chart(), ["--set", "scheduler.extender.map=network"])?;
    let documents = documents(&rendered)?;
    let service = documents.iter().find(|(_, text)| text.contains("\nkind: Service\n"));
    let (_, service) = service.context("the chart renders no Service for the map")?;
    let patches = PATCH.replace("VARIABLE", "MAP_ADDRESS").replace("VALUE", "0.0.0.0:9413") + MAP_PATCHES;
    let mut files = component(MAP, "  - service.yaml\n", &patches);
    files.insert("service.yaml".into(), format!("{HEADER}{service}"));
    Ok(files)
}

/// A component with the rights of `deploy/options`.
fn component(name: &str, resources: &str, patches: &str) -> BTreeMap<String, String> {
    let source = format!("deploy/options/{name}.yaml");
    let rights =
        format!("# Made from {source} by `cargo xtask generate`. Do not edit.\n{}", files::read(&source));
    let component = format!(
        "{HEADER}apiVersion: kustomize.config.k8s.io/v1alpha1\nkind: Component\nresources:\n  - rights.yaml\n\
         {resources}{patches}"
    );
    BTreeMap::from([("kustomization.yaml".into(), component), ("rights.yaml".into(), rights)])
}

const PATCH: &str = "\
patches:
  - patch: |-
      apiVersion: apps/v1
      kind: Deployment
      metadata:
        name: stowage-scheduler
        namespace: stowage-system
      spec:
        template:
          spec:
            containers:
              - name: extender
                env:
                  - name: VARIABLE
                    value: \"VALUE\"
";

/// What lets others in, behind [`PATCH`].
const MAP_PATCHES: &str = "                ports:
                  - name: map
                    containerPort: 9413
  - target: {kind: NetworkPolicy, name: stowage-scheduler}
    patch: |-
      - op: add
        path: /spec/ingress/-
        value: {ports: [{protocol: TCP, port: 9413}]}
";

/// Labels that say that helm manages something.
fn is_helms(line: &str) -> bool {
    let line = line.trim_start();
    line.starts_with("helm.sh/chart:") || line.starts_with("app.kubernetes.io/managed-by:")
}
