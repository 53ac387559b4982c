//! The manifests of `deploy/` as templates of the chart: names of namespaces become values, and each object stands behind
//! the value that asks for it. The text is otherwise untouched, comments included.

use std::collections::BTreeMap;

use crate::files::read;

/// Where the templates lie.
pub const FOLDER: &str = "deploy/helm/stowage/templates/generated";

const PLUGIN: &str = ".Values.devicePlugin.enabled";
const SCHEDULER: &str = ".Values.scheduler.enabled";

/// Which file becomes which, and what must hold for it to be rendered.
const SOURCES: [(&str, &str); 10] = [
    ("deploy/crds/gpunodes.yaml", ".Values.crds.install"),
    ("deploy/manifests/admission-policies.yaml", ".Values.admissionPolicies.enabled"),
    ("deploy/manifests/device-plugin-rbac.yaml", PLUGIN),
    ("deploy/manifests/scheduler-rbac.yaml", SCHEDULER),
    ("deploy/options/lease.yaml", "and .Values.scheduler.enabled (include \"stowage.lease\" .)"),
    ("deploy/options/nominate.yaml", "and .Values.scheduler.enabled .Values.scheduler.extender.nominate"),
    ("deploy/options/preemption.yaml", "and .Values.scheduler.enabled .Values.scheduler.extender.preemption"),
    ("deploy/options/defrag.yaml", "and .Values.scheduler.enabled .Values.scheduler.extender.defrag"),
    (
        "deploy/options/drain-scale-downs.yaml",
        "and .Values.scheduler.enabled .Values.scheduler.extender.drainScaleDowns",
    ),
    (
        "deploy/options/map.yaml",
        "and .Values.scheduler.enabled (eq .Values.scheduler.extender.map \"network\")",
    ),
];

/// All generated templates, by file name.
pub fn all() -> BTreeMap<String, String> {
    let mut templates: BTreeMap<_, _> = SOURCES
        .iter()
        .map(|(source, condition)| {
            let name = source.rsplit('/').next().unwrap_or(source);
            (name.to_owned(), template(source, &read(source), condition))
        })
        .collect();
    let source = "deploy/scheduler/kube-scheduler-config.yaml";
    templates.insert("kube-scheduler-config.yaml".into(), scheduler_configuration(source, &read(source)));
    let source = "deploy/scheduler/shared-kube-scheduler-config.yaml";
    templates.insert("_shared-kube-scheduler-config.tpl".into(), shared_configuration(source, &read(source)));
    templates
}

fn header(source: &str) -> String {
    format!("{{{{- /* Made from {source} by `cargo xtask generate`. Do not edit. */}}}}\n")
}

/// What stands for a name that is a value here.
fn with_values(text: &str) -> String {
    assert!(!text.contains("{{"), "braces in a manifest would be read as a template");
    let mut text = text.to_owned();
    for (name, helper) in [
        ("stowage-system", "stowage.schedulerNamespace"),
        ("stowage-device-plugin", "stowage.pluginNamespace"),
    ] {
        let value = format!("{{{{ include \"{helper}\" . }}}}");
        for before in ["namespace: ", "resourceNamespace: ", "system:serviceaccount:"] {
            for after in ["\n", ":"] {
                text = text.replace(&format!("{before}{name}{after}"), &format!("{before}{value}{after}"));
            }
        }
    }
    text
}

fn template(source: &str, text: &str, condition: &str) -> String {
    let text = format!("{}\n", with_values(text).trim_end());
    let mut documents = Vec::new();
    for document in text.split("---\n") {
        let field = |name: &str| {
            let line = document.lines().find_map(|line| line.strip_prefix(name)).unwrap_or_default();
            line.trim().to_owned()
        };
        let name = document.split("\nmetadata:\n").nth(1).and_then(|rest| {
            let mut lines = rest.lines().take_while(|line| line.starts_with(' '));
            lines.find_map(|line| line.strip_prefix("  name: "))
        });
        let name = name.unwrap_or_else(|| panic!("{source} has an object without a name:\n{document}"));
        match (field("kind:").as_str(), name) {
            // The chart makes the namespaces, and both containers of the scheduler's pod have one account.
            ("Namespace", _) | ("ServiceAccount", "stowage-kube-scheduler") => continue,
            _ => {}
        }
        let document = document.replace(
            "- kind: ServiceAccount\n    name: stowage-kube-scheduler\n",
            "- kind: ServiceAccount\n    name: stowage-scheduler-extender\n",
        );
        let mut labelled = document.replacen(
            "\nmetadata:\n",
            "\nmetadata:\n  labels:\n    {{- include \"stowage.labels\" . | nindent 4 }}\n",
            1,
        );
        if field("kind:") == "CustomResourceDefinition" {
            let keep = "  {{- if .Values.crds.keep }}\n  annotations: {helm.sh/resource-policy: keep}\n  {{- end }}\n";
            labelled = labelled.replacen("\nmetadata:\n", &format!("\nmetadata:\n{keep}"), 1);
        }
        let only = match name {
            "stowage-device-plugin-node-features" => {
                Some("(include \"stowage.asked\" . | fromJson).nodeFeature")
            }
            // The rights of a kube-scheduler of our own.
            name if name.starts_with("stowage-kube-scheduler") => Some("include \"stowage.ownScheduler\" ."),
            _ => None,
        };
        documents.push(match only {
            Some(condition) => format!("{{{{- if {condition} }}}}\n---\n{labelled}{{{{- end }}}}\n"),
            None => format!("---\n{labelled}"),
        });
    }
    format!("{}{{{{- if {condition} }}}}\n{}{{{{- end }}}}\n", header(source), documents.concat())
}

fn scheduler_configuration(source: &str, text: &str) -> String {
    let text = with_values(text);
    let indented =
        text.lines().map(|line| if line.is_empty() { "\n".to_owned() } else { format!("    {line}\n") });
    let indented: String = indented.collect();
    format!(
        "{}{{{{- if include \"stowage.ownScheduler\" . }}}}\napiVersion: v1\nkind: ConfigMap\nmetadata:\n  name: stowage-kube-scheduler\n  \
         namespace: {{{{ include \"stowage.schedulerNamespace\" . }}}}\n  labels:\n    \
         {{{{- include \"stowage.labels\" . | nindent 4 }}}}\ndata:\n  kube-scheduler-config.yaml: |\n{indented}{{{{- end }}}}\n",
        header(source)
    )
}

/// What NOTES.txt shows, where the cluster's own kube-scheduler is to ask.
fn shared_configuration(source: &str, text: &str) -> String {
    let mut text = with_values(text);
    for (before, after) in [("service -n ", " "), ("stowage-scheduler-extender.", ".svc")] {
        let value = format!("{before}{{{{ include \"stowage.schedulerNamespace\" . }}}}{after}");
        let fixed = format!("{before}stowage-system{after}");
        assert!(text.contains(&fixed), "{source} says {fixed} no more");
        text = text.replace(&fixed, &value);
    }
    let text = text.trim_end();
    format!("{}{{{{- define \"stowage.sharedConfiguration\" -}}}}\n{text}\n{{{{- end }}}}\n", header(source))
}
