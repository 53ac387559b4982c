//! Small stories about the packing core, as text: nodes, what is expected, who asks, and what came of it.
//!
//! ```text
//! node a gpus 2 cpu 16 model V100     a node with two idle GPUs
//! expect 3 milli 1000 cpu 8           of what is to come, three parts ask for a GPU and eight cores
//! ask p milli 500 cpu 4               a pod comes
//! > p is on a, GPU 0                  what the core answered
//! fail a 1                            a GPU is lost
//! leave p                             a pod goes
//! show                                what is idle now
//! ```
//!
//! Answers begin with `>`. [`tell`] writes them anew, so that a story that still holds is told as it stands. The stories
//! are in `simulator/scenarios`.

use std::collections::BTreeMap;
use std::fmt::Write;

use stowage_shared::pack::fleet::{Fleet, GPU_MILLI, Mix, Models, Node, Shape, Supply, Value, Weights};

/// What is wrong with a story, and where.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("line {line}: {what}")]
pub struct ScenarioError {
    /// The line, from 1.
    pub line: usize,
    /// What is wrong.
    pub what: String,
}

/// A node has at most so many GPUs, as everywhere.
const GPUS_MAX: u64 = 64;

/// Tells a story: its lines, with the answers that the core gives now in place of those that stand there. Among equal
/// nodes the first is taken.
///
/// # Errors
/// For the first line that says nothing known.
pub fn tell(text: &str) -> Result<String, ScenarioError> {
    let mut story = Story::default();
    let mut told = String::new();
    for (line, said) in text.lines().enumerate().filter(|(_, said)| !said.starts_with('>')) {
        // Writing to a String cannot fail.
        let _ = writeln!(told, "{said}");
        let words: Vec<&str> = said.split_whitespace().take_while(|word| !word.starts_with('#')).collect();
        let answers = story.hear(&words).map_err(|what| ScenarioError { line: line + 1, what })?;
        answers.iter().for_each(|answer| told.push_str(&format!("> {answer}\n")));
    }
    Ok(told)
}

#[derive(Default)]
struct Story {
    names: Vec<String>,
    models: Vec<String>,
    nodes: Vec<Node>,
    lost: Vec<(usize, u16)>,
    expected: Vec<(Shape, u64)>,
    pods: BTreeMap<String, (usize, Shape, Vec<u16>)>,
}

impl Story {
    fn hear(&mut self, words: &[&str]) -> Result<Vec<String>, String> {
        match words {
            [] => Ok(Vec::new()),
            ["node", name, rest @ ..] => self.add(name, &Fields::of(rest)?),
            ["expect", times, rest @ ..] => {
                let shape = self.shape(&Fields::of(rest)?)?;
                self.expected.push((shape, number(times)?));
                Ok(Vec::new())
            }
            ["ask", pod, rest @ ..] => {
                let shape = self.shape(&Fields::of(rest)?)?;
                self.ask(pod, shape)
            }
            ["leave", pod] => {
                let (place, shape, gpus) = self.pods.remove(*pod).ok_or(format!("no pod {pod} is here"))?;
                let left: Vec<u16> =
                    gpus.into_iter().filter(|&gpu| !self.lost.contains(&(place, gpu))).collect();
                self.nodes[place].give_back(&shape, &left);
                Ok(Vec::new())
            }
            ["fail", node, gpu] => {
                let place = self.place(node)?;
                let gpu = u16::try_from(number(gpu)?).unwrap_or(u16::MAX);
                let idle = self.nodes[place].idle.get_mut(usize::from(gpu));
                *idle.ok_or(format!("{node} has no GPU {gpu}"))? = 0;
                self.lost.push((place, gpu));
                Ok(Vec::new())
            }
            ["show"] => Ok(self.show()),
            [other, ..] => Err(format!("{other:?} is none of node, expect, ask, leave, fail, show")),
        }
    }

    fn add(&mut self, name: &str, fields: &Fields<'_>) -> Result<Vec<String>, String> {
        let gpus = fields.number("gpus", 0)?;
        if gpus > GPUS_MAX {
            return Err(format!("{name} has {gpus} GPUs; at most {GPUS_MAX}"));
        }
        let model = self.model(fields.text("model").unwrap_or("any"))?;
        self.names.push(name.to_owned());
        self.nodes.push(Node {
            cpu_milli: fields.number("cpu", 0)?.saturating_mul(1000),
            memory_mib: fields.number("memory", 1 << 20)?,
            model,
            idle: vec![GPU_MILLI; usize::try_from(gpus).unwrap_or(0)],
        });
        Ok(Vec::new())
    }

    fn ask(&mut self, pod: &str, shape: Shape) -> Result<Vec<String>, String> {
        if self.pods.contains_key(pod) {
            return Err(format!("pod {pod} is here already"));
        }
        let supply = Supply::new(self.nodes.iter().map(|node| (node.model, node.idle.len() as u64)));
        let value = Value::new(&Mix::new(self.expected.iter().copied()), &supply, Weights::default());
        let mut fleet = Fleet::new(value, self.nodes.clone());
        let first = fleet.best(&shape).and_then(|best| best.places().min_by_key(|&(place, _)| place));
        let chosen = first.and_then(|(place, spot)| Some((place, spot.gpus(&self.nodes[place], &shape)?)));
        let Some((place, gpus)) = chosen else { return Ok(vec![format!("{pod} fits nowhere")]) };
        self.nodes[place].take(&shape, &gpus);
        let where_to = match gpus.as_slice() {
            [] => String::new(),
            [gpu] => format!(", GPU {gpu}"),
            more => format!(", GPUs {}", joined(more)),
        };
        let answer = format!("{pod} is on {}{where_to}", self.names[place]);
        self.pods.insert(pod.to_owned(), (place, shape, gpus));
        Ok(vec![answer])
    }

    fn show(&self) -> Vec<String> {
        let nodes = self.names.iter().zip(&self.nodes).enumerate();
        nodes
            .map(|(place, (name, node))| {
                let gpu = |(gpu, idle): (u16, &u16)| {
                    if self.lost.contains(&(place, gpu)) { "lost".to_owned() } else { idle.to_string() }
                };
                let gpus: Vec<String> = (0..).zip(&node.idle).map(gpu).collect();
                format!("{name} has {} cores and GPUs {} idle", node.cpu_milli / 1000, gpus.join(", "))
            })
            .collect()
    }

    fn shape(&mut self, fields: &Fields<'_>) -> Result<Shape, String> {
        let milli = fields.number("milli", 0)?.min(u64::from(GPU_MILLI));
        let gpus = fields.number("gpus", u64::from(milli > 0))?.min(GPUS_MAX);
        let models = match fields.text("model") {
            None => Models::ANY,
            Some(names) => Models::only(
                names.split('|').map(|name| self.model(name)).collect::<Result<Vec<u8>, String>>()?,
            ),
        };
        Ok(Shape {
            cpu_milli: fields.number("cpu", 0)?.saturating_mul(1000),
            memory_mib: fields.number("memory", 0)?,
            gpu_milli: u16::try_from(milli).unwrap_or(GPU_MILLI),
            gpus: u16::try_from(gpus).unwrap_or(0),
            slice: false,
            models,
        })
    }

    fn model(&mut self, name: &str) -> Result<u8, String> {
        let place = self.models.iter().position(|known| known == name).unwrap_or(self.models.len());
        if place == self.models.len() {
            self.models.push(name.to_owned());
        }
        u8::try_from(place).ok().filter(|&place| place < Models::MAX).ok_or("too many models".to_owned())
    }

    fn place(&self, node: &str) -> Result<usize, String> {
        self.names.iter().position(|name| name == node).ok_or(format!("no node {node}"))
    }
}

/// Pairs of a word and what it says.
struct Fields<'a>(Vec<(&'a str, &'a str)>);

impl<'a> Fields<'a> {
    const KNOWN: [&'static str; 5] = ["gpus", "milli", "cpu", "memory", "model"];

    fn of(words: &[&'a str]) -> Result<Self, String> {
        let pair = |pair: &[&'a str]| match pair {
            [key, value] if Self::KNOWN.contains(key) => Ok((*key, *value)),
            _ => Err(format!("{:?} is not one of {} with a value", pair.join(" "), Self::KNOWN.join(", "))),
        };
        words.chunks(2).map(pair).collect::<Result<_, _>>().map(Self)
    }

    fn text(&self, key: &str) -> Option<&'a str> {
        self.0.iter().find(|(known, _)| *known == key).map(|(_, value)| *value)
    }

    fn number(&self, key: &str, or: u64) -> Result<u64, String> {
        self.text(key).map_or(Ok(or), number)
    }
}

fn number(text: &str) -> Result<u64, String> {
    text.parse().map_err(|_| format!("{text:?} is no whole number"))
}

fn joined(gpus: &[u16]) -> String {
    gpus.iter().map(u16::to_string).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    /// Answers are written anew where `UPDATE_GENERATED` is set.
    #[test]
    fn every_story_is_told_as_it_stands() {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("scenarios");
        let mut stories = 0;
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            let text = std::fs::read_to_string(&path).unwrap();
            let told = tell(&text).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
            if std::env::var_os("UPDATE_GENERATED").is_some() {
                std::fs::write(&path, &told).unwrap();
            } else {
                assert_eq!(told, text, "{} is told otherwise", path.display());
            }
            stories += 1;
        }
        assert!(stories > 0);
    }

    #[test]
    fn what_a_story_cannot_say_is_told_with_its_line() {
        for (text, expect) in [
            ("\nnod a", "line 2: \"nod\" is none of node, expect, ask, leave, fail, show"),
            ("node a gpus two", "line 1: \"two\" is no whole number"),
            ("node a gpus 65", "line 1: a has 65 GPUs; at most 64"),
            ("node a gpu 2", "line 1: \"gpu 2\" is not one of gpus, milli, cpu, memory, model with a value"),
            ("node a cpu", "line 1: \"cpu\" is not one of gpus, milli, cpu, memory, model with a value"),
            ("leave p", "line 1: no pod p is here"),
            ("fail a 0", "line 1: no node a"),
            ("node a gpus 1\nfail a 1", "line 2: a has no GPU 1"),
            ("node a gpus 1\nask p\nask p", "line 3: pod p is here already"),
        ] {
            assert_eq!(tell(text).unwrap_err().to_string(), expect);
        }
    }
}
