//! `/debug/audit`: every broken invariant of the state, for a person or a test.
//!
//! Served on the verbs' port where that is on the loopback only: it names tenants' pods.

use std::fmt::Write;

use serde::Serialize;
use stowage_shared::audit::{Finding, audit};

use crate::state::Store;
use crate::verbs::Answer;

/// Where it is.
pub(crate) const AUDIT_PATH: &str = "/debug/audit";

#[derive(Serialize)]
struct Found<'a> {
    severity: String,
    kind: String,
    node: &'a str,
    text: &'a str,
}

/// Audits every GPU node as the state knows it now.
pub(crate) fn audit_store(store: &Store) -> Result<Vec<Finding>, crate::state::Broken> {
    // Copied under the lock, judged outside it.
    let views = store.change(|state| state.audit_views())?;
    Ok(views.iter().flat_map(audit).collect())
}

/// The answer: a list of findings, or a line for each.
pub(crate) fn audit_answer(findings: &[Finding], json: bool) -> Answer {
    if json {
        let found: Vec<Found<'_>> = findings
            .iter()
            .map(|finding| Found {
                severity: format!("{:?}", finding.severity),
                kind: format!("{:?}", finding.kind),
                node: &finding.node,
                text: &finding.text,
            })
            .collect();
        return match serde_json::to_vec(&found) {
            Ok(body) => Answer::json(body),
            Err(error) => Answer::text(500, format!("{error}\n")),
        };
    }
    let mut text = String::new();
    for finding in findings {
        // Writing to a String cannot fail.
        let _ = writeln!(text, "{finding}");
    }
    if findings.is_empty() {
        text.push_str("no findings\n");
    }
    Answer { json: false, ..Answer::json(text.into_bytes()) }
}

/// `GET /debug/audit`, `GET /debug/audit?format=json`.
pub(crate) fn audit_request(store: &Store, json: bool) -> Answer {
    match audit_store(store) {
        Ok(findings) => audit_answer(&findings, json),
        Err(broken) => Answer::text(500, format!("{broken}\n")),
    }
}
