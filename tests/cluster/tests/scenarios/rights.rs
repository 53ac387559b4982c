//! Rights that are granted are used, as far as the run of all scenarios shows.

use std::collections::BTreeSet;
use std::fs;

use anyhow::{Context, Result, ensure};
use serde_json::Value;
use stowage_cluster_tests::{Scenario, apply, scenarios};

use super::Stage;
use super::stowage::deploy;

pub(crate) fn all() -> Vec<Scenario<Stage>> {
    scenarios![every_right_of_our_programs_is_used]
}

/// A verb on a resource of an API group: `create pods/binding`, `patch gpunodes/status.stowage.dev`.
type Right = String;

/// Our programs' accounts, and what each may do that no scenario makes it do.
const ACCOUNTS: [(&str, &str, &[&str]); 2] = [
    (
        "stowage-device-plugin",
        "stowage-device-plugin",
        &[
            // With USE_NODE_FEATURE_API, for node-feature-discovery, which no cluster of these tests has.
            "create nodefeatures.nfd.k8s-sigs.io",
            "patch nodefeatures.nfd.k8s-sigs.io",
            // What befell a GPU: tests of the program on the API server's stand-in make it tell.
            "create events.events.k8s.io",
        ],
    ),
    (
        "stowage-system",
        "stowage-scheduler-extender",
        // Where the watch has not shown a pod yet, or an answer was lost.
        &["get pods"],
    ),
];

/// It looks at what all scenarios before it have done, so it fails where they are left out.
async fn every_right_of_our_programs_is_used(stage: &mut Stage) -> Result<()> {
    let mut manifests = apply::read_manifests(&deploy().join("manifests"))?;
    manifests.extend(apply::read_manifests(&deploy().join("options/map.yaml"))?);
    let log = fs::read_to_string(stage.cluster.audit_log()).context("there is no audit log")?;
    let events: Vec<Value> = log.lines().map(serde_json::from_str).collect::<Result<_, _>>()?;
    for (namespace, account, exceptions) in ACCOUNTS {
        let granted = granted(&manifests, namespace, account);
        ensure!(granted.len() > 4, "{account} is granted only {granted:?}");
        let user = format!("system:serviceaccount:{namespace}:{account}");
        let used: BTreeSet<Right> =
            events.iter().filter(|event| is_allowed(event, &user)).map(right).collect();
        let unused: Vec<&Right> = granted.difference(&used).collect();
        let unused: Vec<_> =
            unused.into_iter().filter(|right| !exceptions.contains(&right.as_str())).collect();
        eprintln!(
            "{account}: {} rights granted, {} of them used",
            granted.len(),
            granted.intersection(&used).count()
        );
        ensure!(unused.is_empty(), "{account} may {unused:?}, and no scenario of a whole run makes it do so");
    }
    Ok(())
}

/// What an account may do by the Roles and ClusterRoles that are bound to it.
fn granted(manifests: &[Value], namespace: &str, account: &str) -> BTreeSet<Right> {
    let is_ours = |subject: &Value| subject["name"] == account && subject["namespace"] == namespace;
    let bindings = manifests.iter().filter(|object| {
        let subjects = object["subjects"].as_array();
        subjects.is_some_and(|subjects| subjects.iter().any(is_ours))
    });
    let roles = bindings.flat_map(|binding| {
        let of_binding = |role: &&Value| {
            role["kind"] == binding["roleRef"]["kind"]
                && role["metadata"]["name"] == binding["roleRef"]["name"]
        };
        manifests.iter().filter(of_binding)
    });
    let mut rights = BTreeSet::new();
    for rule in roles.flat_map(|role| role["rules"].as_array().into_iter().flatten()) {
        let words = |field: &str| -> Vec<&str> {
            rule[field].as_array().into_iter().flatten().filter_map(Value::as_str).collect()
        };
        for (group, resource) in words("apiGroups")
            .iter()
            .flat_map(|group| words("resources").into_iter().map(move |resource| (*group, resource)))
        {
            rights.extend(words("verbs").iter().map(|verb| say(verb, resource, group)));
        }
    }
    rights
}

fn is_allowed(event: &Value, user: &str) -> bool {
    event["user"]["username"] == user && event["annotations"]["authorization.k8s.io/decision"] == "allow"
}

fn right(event: &Value) -> Right {
    let word = |pointer: &str| event.pointer(pointer).and_then(Value::as_str).unwrap_or_default();
    let resource = match word("/objectRef/subresource") {
        "" => word("/objectRef/resource").to_owned(),
        subresource => format!("{}/{subresource}", word("/objectRef/resource")),
    };
    say(word("/verb"), &resource, word("/objectRef/apiGroup"))
}

fn say(verb: &str, resource: &str, group: &str) -> Right {
    let dot = if group.is_empty() { "" } else { "." };
    format!("{verb} {resource}{dot}{group}")
}
