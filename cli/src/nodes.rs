//! `kubectl stowage nodes`: one line a node.

use std::collections::BTreeMap;

use anyhow::Result;
use serde::Serialize;
use stowage_shared::gpu::Part;
use stowage_shared::occupancy::GpuState;
use stowage_shared::tally::Tally;

use crate::answer::Answer;
use crate::describe;
use crate::page::{Page, Span, Tone, plain, toned};
use crate::world::{NodeGpus, NodeState, World};

/// A GPU node in numbers.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Line {
    /// Its name.
    pub node: String,
    /// Its GPU models and how many of each it has.
    pub models: BTreeMap<String, u32>,
    /// What of it is in use; absent where that is not known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub usage: Option<Usage>,
    /// GPUs that are unhealthy as a whole.
    pub unhealthy_gpus: u32,
    /// Slices and other parts that are unhealthy on GPUs that are healthy.
    pub unhealthy_parts: u32,
    /// When its GpuNode was written.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub observed_at: Option<String>,
    /// Why it takes no new GPU pods.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub closed: Option<String>,
    #[serde(skip)]
    age: String,
}

/// What of a node's GPUs is in use or promised.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Usage {
    /// Whole GPUs in use.
    pub whole: u32,
    /// MIG slices in use, whether shared or not.
    pub slices: u32,
    /// Shares in use, of GPUs or slices.
    pub shares: u32,
    /// In use, in thousandths of a GPU.
    pub in_use_milli: u64,
    /// Idle and to be had.
    pub free_milli: u64,
    /// Idle, and to be had by nobody while the rest is as it is.
    pub stranded_milli: u64,
    /// Idle and unhealthy.
    pub unhealthy_milli: u64,
    /// In MIG instances that Stowage did not build.
    pub foreign_milli: u64,
}

/// Every GPU node.
///
/// # Errors
/// Where the answer cannot be said.
pub fn nodes(world: &World) -> Result<Answer> {
    let lines: Vec<Line> = world.nodes.iter().filter_map(|node| Line::of(node, world)).collect();
    let mut page = Page::default();
    if lines.is_empty() {
        page.say(
            "No GPU nodes: no kubelet reports GPUs, and no device plugin of Stowage has written a GpuNode.",
        );
    } else {
        let head = [
            "NODE",
            "GPUS",
            "MODEL",
            "WHOLE",
            "SLICES",
            "SHARES",
            "IN USE",
            "FREE",
            "STRANDED",
            "UNHEALTHY",
            "AGE",
            "NOTE",
        ];
        page.table(0, &head, lines.iter().map(row).collect());
    }
    Answer::new(page, &lines)
}

/// A node's line; nothing of one without GPUs.
pub fn line(node: &NodeState, world: &World) -> Option<Line> {
    Line::of(node, world)
}

impl Line {
    fn of(node: &NodeState, world: &World) -> Option<Self> {
        let told = node.published.as_ref();
        let closed = match &node.gpus {
            NodeGpus::None => return None,
            NodeGpus::Unknown(why) => {
                let wrong = told.and_then(|told| told.wrong.clone());
                Some(wrong.map_or_else(|| why.text().to_owned(), |wrong| format!("{}: {wrong}", why.text())))
            }
            NodeGpus::Known { .. } if node.facts.unschedulable => Some("cordoned".to_owned()),
            NodeGpus::Known { .. } => None,
        };
        let gpus = || told.into_iter().flat_map(|told| &told.gpus);
        let mut models = BTreeMap::new();
        gpus().for_each(|gpu| *models.entry(gpu.kind.model().to_owned()).or_insert(0) += 1);
        let count = |n: usize| u32::try_from(n).unwrap_or(u32::MAX);
        let at = told.and_then(|told| told.observed_at);
        Some(Self {
            node: node.name().into(),
            models,
            usage: matches!(node.gpus, NodeGpus::Known { .. }).then(|| Usage::of(node.states())),
            unhealthy_gpus: count(gpus().filter(|gpu| gpu.unhealthy.is_some()).count()),
            unhealthy_parts: count(
                gpus().filter(|gpu| gpu.unhealthy.is_none()).map(|gpu| gpu.sick.len()).sum(),
            ),
            observed_at: at.map(|at| at.to_string()),
            closed,
            age: at.map(|at| describe::age(at, world.now)).unwrap_or_default(),
        })
    }
}

impl Usage {
    fn of(states: &[GpuState]) -> Self {
        let (mut whole, mut slices, mut shares) = (0, 0, 0);
        for state in states {
            for (offer, of) in state.gpu.kind.offers().iter().enumerate() {
                let in_use = state.occupancy.in_use(offer);
                match (&of.part, of.replicas) {
                    (Part::Whole, None) => whole += in_use,
                    (Part::Slice(_), None) => slices += in_use,
                    (Part::Whole, Some(_)) => shares += in_use,
                    (Part::Slice(_), Some(_)) => {
                        shares += in_use;
                        slices += u32::from(in_use > 0);
                    }
                }
            }
        }
        let Tally { in_use, free, stranded, unhealthy, foreign } = Tally::of(states);
        Self {
            whole,
            slices,
            shares,
            in_use_milli: in_use,
            free_milli: free,
            stranded_milli: stranded,
            unhealthy_milli: unhealthy,
            foreign_milli: foreign,
        }
    }
}

fn row(line: &Line) -> Vec<Span> {
    let gpus: u32 = line.models.values().sum();
    let models: Vec<&str> = line.models.keys().map(String::as_str).collect();
    let number = |n: Option<u32>| plain(n.map_or_else(|| "-".to_owned(), |n| n.to_string()));
    let amount = |milli: Option<u64>| milli.map_or_else(|| "-".to_owned(), describe::gpus);
    let usage = line.usage.as_ref();
    let stranded = usage.map(|u| u.stranded_milli);
    let ill = match (line.unhealthy_gpus, line.unhealthy_parts) {
        (gpus, 0) => gpus.to_string(),
        (0, parts) => format!("{parts} parts"),
        (gpus, parts) => format!("{gpus} + {parts} parts"),
    };
    let tone = |bad: bool, tone: Tone| if bad { tone } else { Tone::Plain };
    vec![
        plain(line.node.clone()),
        plain(if models.is_empty() { "-".to_owned() } else { gpus.to_string() }),
        plain(if models.is_empty() { "-".to_owned() } else { models.join(", ") }),
        number(usage.map(|u| u.whole)),
        number(usage.map(|u| u.slices)),
        number(usage.map(|u| u.shares)),
        plain(amount(usage.map(|u| u.in_use_milli))),
        plain(amount(usage.map(|u| u.free_milli))),
        toned(tone(stranded.unwrap_or(0) > 0, Tone::Warn), amount(stranded)),
        toned(tone(ill != "0", Tone::Bad), ill),
        plain(if line.age.is_empty() { "-".to_owned() } else { line.age.clone() }),
        toned(Tone::Warn, line.closed.clone().unwrap_or_default()),
    ]
}
