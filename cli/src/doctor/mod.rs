//! `kubectl stowage doctor`: what is wrong with an installation, as far as the API tells, each with its cure.
//!
//! A check is a function from the evidence to findings. What cannot be seen through the API (a node's files, a
//! runtime's configuration) is not guessed.

mod control;
mod evidence;
mod nodes;
mod parts;
mod pods;

use anyhow::Result;
use serde::Serialize;

use crate::answer::Answer;
use crate::describe::count;
use crate::page::{Page, Tone, plain, toned};

pub use self::evidence::Evidence;
pub use self::nodes::audit_world;

/// How bad a finding is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// Something does not work, or two workloads disturb each other.
    Error,
    /// Something will not work as its owner thinks.
    Warning,
    /// Worth a look.
    Notice,
}

/// Something that is wrong.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Finding {
    /// How bad it is.
    pub severity: Severity,
    /// Which check found it.
    pub check: &'static str,
    /// The object that it is about.
    pub about: String,
    /// What is wrong.
    pub text: String,
    /// What to do.
    pub cure: String,
}

/// Everything that was found.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Report {
    findings: Vec<Finding>,
    /// What could not be looked at, and why.
    not_looked_at: Vec<String>,
}

type Check = fn(&Evidence, &mut dyn FnMut(Finding));

/// All checks.
const CHECKS: [Check; 15] = [
    nodes::crd,
    nodes::closed,
    nodes::reserve,
    nodes::orphans,
    nodes::health,
    nodes::two_plugins,
    nodes::versions,
    nodes::audited,
    pods::past_the_kubelet,
    pods::unreadable,
    pods::not_ours,
    pods::refused,
    control::scheduler,
    control::admission,
    control::configuration,
];

/// Judges the evidence. The answer counts as found where there is a warning or an error.
///
/// # Errors
/// Where the answer cannot be said.
pub fn doctor(evidence: &Evidence) -> Result<Answer> {
    let mut findings = Vec::new();
    CHECKS.iter().for_each(|check| check(evidence, &mut |finding| findings.push(finding)));
    findings.sort();
    findings.dedup();
    let unseen = [
        ("failed pods", evidence.failed.as_ref().err()),
        ("leases", evidence.leases.as_ref().err()),
        ("admission policies", evidence.policies.as_ref().err().or(evidence.bindings.as_ref().err())),
        ("the scheduler's configuration", evidence.config_maps.as_ref().err()),
    ];
    let unseen = unseen.into_iter().filter_map(|(what, why)| why.map(|why| format!("{what}: {why}")));
    let report = Report { findings, not_looked_at: unseen.collect() };
    let mut page = Page::default();
    write(&report, evidence, &mut page);
    let found = report.findings.iter().any(|finding| finding.severity < Severity::Notice);
    Ok(Answer { found, ..Answer::new(page, &report)? })
}

fn write(report: &Report, evidence: &Evidence, page: &mut Page) {
    for finding in &report.findings {
        let (word, tone) = match finding.severity {
            Severity::Error => ("error  ", Tone::Bad),
            Severity::Warning => ("warning", Tone::Warn),
            Severity::Notice => ("notice ", Tone::Dim),
        };
        page.line(vec![
            toned(tone, word),
            plain("  "),
            toned(Tone::Strong, finding.about.clone()),
            plain(format!("  {}", finding.text)),
        ]);
        page.line(vec![toned(Tone::Good, "   cure"), plain(format!("    {}", finding.cure))]);
    }
    for unseen in &report.not_looked_at {
        page.tone(Tone::Dim, format!("not looked at: {unseen}"));
    }
    let of = |severity| report.findings.iter().filter(|finding| finding.severity == severity).count();
    let gpu_nodes =
        evidence.world.nodes.iter().filter(|n| !matches!(n.gpus, crate::world::NodeGpus::None)).count();
    page.say(format!(
        "{}, {}: {}, {}, {}",
        count(gpu_nodes, "GPU node"),
        count(evidence.world.pods.iter().filter(|pod| pod.asks_for_gpus()).count(), "GPU pod"),
        count(of(Severity::Error), "error"),
        count(of(Severity::Warning), "warning"),
        count(of(Severity::Notice), "notice"),
    ));
}
