//! What is said on screen: the rules before, the figures after. Plain text, so that it can be pasted.

use std::io::{self, Write};

use stowage_shared::audit::Finding;
use stowage_shared::models::Model;

use super::figures::{Figures, Sample, served_percent};
use super::play::Way;
use super::search::Found;
use super::services::{Class, Day};
use super::split::{CPU_NODE, GPUS, GPUS_PER_NODE, NODES, REPLICAS, Split};

/// One played day.
pub struct Played {
    /// How it was played.
    pub way: Way,
    /// What was seen at each step.
    pub samples: Vec<Sample>,
}

/// What is better in a row of the table.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Better {
    More,
    Less,
    Neither,
}

/// Says what is played, and by which rules.
pub fn rules(out: &mut impl Write, day: &Day, seed: u64, found: &Found) -> io::Result<()> {
    let wanted: Vec<u32> =
        (0..day.steps).map(|step| day.services.iter().map(|service| service.wanted[step]).sum()).collect();
    let mean = f64::from(wanted.iter().sum::<u32>()) / day.steps.max(1) as f64;
    let most = wanted.iter().max().copied().unwrap_or_default();
    writeln!(
        out,
        "A day of {} inference services in {} steps, seed {seed}: {mean:.0} pods wanted on average, {most} at most.",
        day.services.len(),
        day.steps
    )?;
    writeln!(
        out,
        "Dedicated models need a GPU each, medium ones a MIG slice, small ones a quarter of a GPU,"
    )?;
    writeln!(
        out,
        "some no GPU. All of them could just be served if every GPU could be anything at any time."
    )?;
    writeln!(out)?;
    for (name, model) in NODES {
        let product = Model::by_key(model).map_or(model, |model| model.product);
        writeln!(out, "  {name}  {GPUS_PER_NODE} x {product}")?;
    }
    writeln!(out, "  {CPU_NODE}  no GPU: there must be somewhere for CPU-only pods to go")?;
    writeln!(out)?;
    writeln!(out, "Played three times on the same arrivals, with the real plugin on each GPU node:")?;
    writeln!(out, "  whole    Every pod that needs a GPU asks for a whole one. Stock kube-scheduler.")?;
    writeln!(
        out,
        "  stock    Nodes split by hand; stock kube-scheduler (LeastAllocated + BalancedAllocation),"
    )?;
    writeln!(
        out,
        "           which spreads pods over nodes; NVIDIA's device order, which spreads shares over GPUs."
    )?;
    writeln!(
        out,
        "           Of {} splits, {} of them simulated whole, the one that serves this very day best",
        thousands(found.considered),
        found.played
    )?;
    writeln!(
        out,
        "           ({:.1} % in that simulation): the admin knows the day in advance.",
        found.figures.served_percent
    )?;
    split(out, &found.split)?;
    writeln!(
        out,
        "  stowage  Nobody splits anything: every GPU is offered whole, as shares and (H100) as MIG slices, and is"
    )?;
    writeln!(
        out,
        "           what its first pod makes it. The extender chooses node and place, the plugin builds it."
    )?;
    writeln!(
        out,
        "In all three, Deployments roll out once a day, and ReplicaSets choose whom to give up on scale-down"
    )?;
    writeln!(
        out,
        "by their own rules (waiting, crowded, young). Time-sliced x{REPLICAS}: {REPLICAS} pods share a GPU's time."
    )?;
    let load = |class: Class| format!("{} {:.0} %", class.title(), 100.0 * class.load());
    writeln!(
        out,
        "Load: a pod keeps what it needs of a GPU busy to this share of the time: {}, {}, {}.",
        load(Class::Dedicated),
        load(Class::Medium),
        load(Class::Small)
    )?;
    writeln!(out)
}

fn split(out: &mut impl Write, split: &Split) -> io::Result<()> {
    for (setup, (name, _)) in split.0.iter().zip(NODES) {
        writeln!(out, "             {name}: {setup}")?;
    }
    Ok(())
}

/// The figures side by side, each row with who does best.
pub fn table(out: &mut impl Write, played: &[Played]) -> io::Result<()> {
    let figures: Vec<Figures> = played.iter().map(|played| Figures::of(&played.samples)).collect();
    let row =
        |out: &mut dyn Write, title: &str, unit: &str, better: Better, values: Vec<f64>| -> io::Result<()> {
            write!(out, "  {title:38}")?;
            for value in &values {
                let text = if unit.is_empty() { trimmed(*value) } else { format!("{value:.1} {unit}") };
                write!(out, "{text:>11}")?;
            }
            writeln!(out, "   {}", best(played, better, &values))
        };
    write!(out, "  {:38}", "")?;
    for played in played {
        write!(out, "{:>11}", played.way.key())?;
    }
    writeln!(out, "   best")?;
    let all = |value: &dyn Fn(&Figures) -> f64| figures.iter().map(value).collect::<Vec<_>>();
    row(out, "wanted pod-time served", "%", Better::More, all(&|f| f.served_percent))?;
    for class in Class::ALL {
        let served = played.iter().map(|played| served_percent(&played.samples, &[class])).collect();
        row(out, &format!("  {} services", class.title()), "%", Better::More, served)?;
    }
    row(out, "pods waiting at the peak", "", Better::Less, all(&|f| f.pods_waiting_peak as f64))?;
    row(out, &format!("GPUs in use, of {GPUS} (mean)"), "", Better::Less, all(&|f| f.gpus_in_use_mean))?;
    row(out, "GPUs still entirely free (min)", "", Better::More, all(&|f| f.gpus_free_min as f64))?;
    row(out, "GPU capacity allocated (mean)", "%", Better::Neither, all(&|f| f.allocated_percent))?;
    row(out, "GPU time in use (utilization)", "%", Better::More, all(&|f| f.utilization_percent))?;
    let of_used = |f: &Figures| {
        if f.gpus_in_use_mean > 0.0 { f.utilization_percent * GPUS as f64 / f.gpus_in_use_mean } else { 0.0 }
    };
    row(out, "  of the GPUs in use", "%", Better::More, all(&of_used))
}

fn best(played: &[Played], better: Better, values: &[f64]) -> String {
    let extreme = match better {
        Better::More => values.iter().copied().fold(f64::MIN, f64::max),
        Better::Less => values.iter().copied().fold(f64::MAX, f64::min),
        Better::Neither => return "-".to_owned(),
    };
    // What looks equal in the table counts as equal.
    let winners: Vec<&str> = played
        .iter()
        .zip(values)
        .filter(|(_, value)| (**value - extreme).abs() < 0.05)
        .map(|(played, _)| played.way.key())
        .collect();
    if winners.len() == played.len() { "all equal".to_owned() } else { winners.join(", ") }
}

/// What the audit found over Stowage's whole day.
pub fn audit(out: &mut impl Write, steps: usize, findings: &[Finding]) -> io::Result<()> {
    if findings.is_empty() {
        return writeln!(
            out,
            "Audit of stowage at each of {steps} steps: no device given twice, none outside its plan, none leaked."
        );
    }
    writeln!(out, "Audit of stowage: {} findings", findings.len())?;
    findings.iter().try_for_each(|finding| writeln!(out, "  {finding}"))
}

/// The figures as `--json` writes them, in the order in which they were played.
pub fn json(played: &[Played]) -> serde_json::Result<String> {
    let figures: Vec<String> = played
        .iter()
        .map(|played| {
            let figures = serde_json::to_string_pretty(&Figures::of(&played.samples))?;
            Ok(format!("  \"{}\": {}", played.way.key(), figures.replace('\n', "\n  ")))
        })
        .collect::<serde_json::Result<_>>()?;
    Ok(format!("{{\n{}\n}}\n", figures.join(",\n")))
}

fn trimmed(value: f64) -> String {
    if value.fract() == 0.0 { format!("{value:.0}") } else { format!("{value:.1}") }
}

fn thousands(number: u64) -> String {
    let digits = number.to_string();
    let groups: Vec<&str> = digits
        .as_bytes()
        .rchunks(3)
        .rev()
        .map(|group| std::str::from_utf8(group).expect("digits are ASCII"))
        .collect();
    groups.join(",")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn played(in_use: [usize; 3]) -> Vec<Played> {
        let sample = |gpus_in_use| Sample { gpus_in_use, ..Sample::default() };
        Way::ALL.iter().zip(in_use).map(|(&way, n)| Played { way, samples: vec![sample(n)] }).collect()
    }

    #[test]
    fn each_row_says_who_does_best_whoever_that_is() {
        let mut text = Vec::new();
        table(&mut text, &played([32, 20, 25])).unwrap();
        let text = String::from_utf8(text).unwrap();
        let row = |title: &str| text.lines().find(|line| line.contains(title)).unwrap().to_owned();
        assert!(row("GPUs in use, of 32").ends_with(" stock"), "{text}");
        assert!(row("still entirely free").ends_with(" stock"), "{text}");
        assert!(row("pods waiting").ends_with(" all equal"), "{text}");
        assert!(row("capacity allocated").ends_with(" -"), "{text}");
    }

    #[test]
    fn the_json_has_one_object_for_each_way() {
        let text = json(&played([1, 2, 3])).unwrap();
        assert!(text.starts_with("{\n  \"whole\": {\n    \"served_percent\": 100.0,\n"), "{text}");
        let value: serde_json::Value = serde_json::from_str(&text).unwrap();
        let keys: Vec<&String> = value.as_object().unwrap().keys().collect();
        assert_eq!(keys, ["stock", "stowage", "whole"]);
        assert_eq!(value["stowage"]["gpus_in_use_mean"], 3.0);
        assert_eq!(value["whole"]["gpus_free_min"], 31);
    }

    #[test]
    fn thousands_are_grouped() {
        assert_eq!([7, 1_234, 1_234_567].map(thousands), ["7", "1,234", "1,234,567"]);
    }
}
