//! Live progress: a bar for each way on a terminal, a few plain lines elsewhere.

use std::io::{IsTerminal, Write};
use std::time::Instant;

use indicatif::{ProgressBar, ProgressStyle};

use super::figures::Sample;
use super::play::Way;
use super::services::Day;
use super::split::GPUS;

/// How many lines a day is told in where there is no terminal.
const PLAIN_LINES: usize = 4;

/// The progress of one way.
pub struct Progress {
    way: Way,
    steps: usize,
    started: Instant,
    bar: Option<ProgressBar>,
}

impl Progress {
    /// Begins to show a way, while its programs start.
    pub fn start(way: Way, day: &Day) -> Self {
        let bar = std::io::stderr().is_terminal().then(|| {
            let bar = ProgressBar::new(day.steps as u64);
            if let Ok(style) = ProgressStyle::with_template("{prefix:8} {bar:32} {elapsed:>3}  {msg}") {
                bar.set_style(style);
            }
            bar.set_prefix(way.key());
            bar.set_message("starting");
            bar
        });
        Self { way, steps: day.steps, started: Instant::now(), bar }
    }

    /// Shows the end of a step.
    pub fn tell(&self, step: usize, sample: &Sample) {
        let minutes = (step + 1) * 24 * 60 / self.steps;
        let running: u32 = sample.pods.values().map(|(_, served)| served).sum();
        let line = format!(
            "{:02}:{:02}  {running:3} pods served, {:2} waiting, {:2} of {GPUS} GPUs in use",
            minutes / 60,
            minutes % 60,
            sample.waiting,
            sample.gpus_in_use
        );
        match &self.bar {
            Some(bar) => {
                bar.set_message(line);
                bar.inc(1);
            }
            None if (step + 1).is_multiple_of(self.steps.div_ceil(PLAIN_LINES)) => self.plain(&line),
            None => {}
        }
    }

    /// The day is over.
    pub fn finish(self) {
        if let Some(bar) = &self.bar {
            bar.finish();
        }
    }

    fn plain(&self, line: &str) {
        let seconds = self.started.elapsed().as_secs();
        // Progress only: a closed standard error is no reason to stop.
        let _ = writeln!(std::io::stderr(), "{:8} {line}  ({seconds} s)", self.way.key());
    }
}
