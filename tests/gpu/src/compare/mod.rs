//! Field by field: what the plugin's code sees beside what `nvidia-smi` says. Pure.
//!
//! What stays as it is must be equal. What changes from one moment to the next, memory in use and utilization, must lie
//! where `nvidia-smi` saw it before and after, give or take what a moment can change.

mod gpu;
mod node;

use std::fmt;

use crate::ours::Ours;
use crate::smi::Said;

/// One value of the two.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Row {
    /// Of what.
    pub of: String,
    /// Which value.
    pub field: String,
    /// As the plugin's code sees it.
    pub ours: String,
    /// As `nvidia-smi` says it.
    pub theirs: String,
    /// How the two compare.
    pub verdict: Verdict,
}

/// How two values compare.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// They agree.
    Same,
    /// They do not.
    Differs,
    /// This `nvidia-smi` does not say it.
    NotTold,
}

impl fmt::Display for Row {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { of, field, ours, theirs, verdict } = self;
        match verdict {
            Verdict::Same => write!(f, "  same     {of}, {field}: {ours}"),
            Verdict::Differs => {
                write!(f, "  DIFFERS  {of}, {field}: the plugin sees {ours}, nvidia-smi says {theirs}")
            }
            Verdict::NotTold => write!(f, "  not told {of}, {field}: {ours}"),
        }
    }
}

/// Compares all there is.
pub fn compare(before: &Said, after: &Said, ours: &Ours) -> Vec<Row> {
    let mut node = Rows { of: "the node".to_owned(), rows: Vec::new() };
    node.equal("driver version", &ours.driver_version, before.driver_version.as_ref());
    let (major, minor) = ours.cuda_version;
    node.equal("CUDA version", format!("{major}.{minor}"), before.cuda_version.clone());
    node.equal("GPUs", ours.gpus.len() as u64, before.attached);
    node.must("GPUs listed", ours.gpus.len(), before.gpus.len());
    for (index, gpu) in ours.gpus.iter().enumerate() {
        match gpu {
            Err(why) => node.must(
                "a GPU that can be read",
                format!("GPU {index}: {why}"),
                "GPUs that answer".to_owned(),
            ),
            Ok(gpu) => {
                let uuid = gpu.reading.uuid.as_str();
                let find = |said: &Said| said.gpus.iter().find(|other| other.uuid == uuid).cloned();
                match find(before) {
                    None => node.must("UUIDs", uuid, "no such GPU"),
                    Some(theirs) => {
                        let mut of_gpu = Rows { of: format!("GPU {index}"), rows: Vec::new() };
                        of_gpu.must("UUID", uuid, theirs.uuid.as_str());
                        of_gpu.gpu(gpu, &theirs, &find(after).unwrap_or_else(|| theirs.clone()));
                        node.rows.extend(of_gpu.rows);
                    }
                }
            }
        }
    }
    node.paths(ours, before);
    node.labels(ours, before);
    node.rows
}

struct Rows {
    of: String,
    rows: Vec<Row>,
}

impl Rows {
    fn row(&mut self, field: &str, ours: String, theirs: String, verdict: Verdict) {
        self.rows.push(Row { of: self.of.clone(), field: field.to_owned(), ours, theirs, verdict });
    }

    /// Equal, where it is told.
    fn equal<T: PartialEq + fmt::Display>(&mut self, field: &str, ours: T, theirs: Option<T>) {
        match theirs {
            None => self.row(field, ours.to_string(), String::new(), Verdict::NotTold),
            Some(theirs) => self.must(field, ours, theirs),
        }
    }

    /// Equal.
    fn must<T: PartialEq + fmt::Display>(&mut self, field: &str, ours: T, theirs: T) {
        let verdict = if ours == theirs { Verdict::Same } else { Verdict::Differs };
        self.row(field, ours.to_string(), theirs.to_string(), verdict);
    }

    /// Both told and equal, or told by neither.
    fn both<T: PartialEq + fmt::Display>(&mut self, field: &str, ours: Option<T>, theirs: Option<T>) {
        let text = |value: Option<T>| value.map_or_else(|| "N/A".to_owned(), |value| value.to_string());
        self.must(field, text(ours), text(theirs));
    }

    /// Where it was, give or take.
    fn near(&mut self, field: &str, ours: Option<u64>, theirs: [Option<u64>; 2], slack: u64) {
        let told: Vec<u64> = theirs.into_iter().flatten().collect();
        let range = told.iter().min().zip(told.iter().max());
        let fits = match (ours, range) {
            (Some(ours), Some((least, most))) => (least.saturating_sub(slack)..=most + slack).contains(&ours),
            (None, None) => true,
            _ => false,
        };
        let verdict = if fits { Verdict::Same } else { Verdict::Differs };
        let text = |value: Option<u64>| value.map_or_else(|| "N/A".to_owned(), |value| value.to_string());
        self.row(
            field,
            text(ours),
            told.iter().map(u64::to_string).collect::<Vec<_>>().join(" to "),
            verdict,
        );
    }
}
