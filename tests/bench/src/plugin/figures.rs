//! The figures of a plugin, and the table of them.

use std::collections::BTreeMap;

use crate::stats::Runs;

/// What is measured, in the order of the table.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Figure {
    Start,
    Restart,
    Dropped,
    Allocate,
    AllocateSlow,
    Preferred,
    PreferredSlow,
    LostErrors,
    Options,
    Resident,
    Peak,
    OverLibrary,
    Idle,
    Binary,
}

impl Figure {
    const ALL: [Self; 14] = [
        Self::Start,
        Self::Restart,
        Self::Dropped,
        Self::Allocate,
        Self::AllocateSlow,
        Self::Preferred,
        Self::PreferredSlow,
        Self::LostErrors,
        Self::Options,
        Self::Resident,
        Self::Peak,
        Self::OverLibrary,
        Self::Idle,
        Self::Binary,
    ];

    /// What it is, with its unit, and how it is aimed to be.
    fn words(self) -> (&'static str, &'static str) {
        match self {
            Self::Start => ("process start to the first device list, ms", "<= 20"),
            Self::Restart => ("kubelet's new socket to the device list, ms", "worst <= 100"),
            Self::Dropped => ("dropped stream to the device list, ms", "<= 1000"),
            Self::Allocate => ("Allocate one GPU, p50, ms", "<= NVIDIA's"),
            Self::AllocateSlow => ("Allocate one GPU, p99, ms", "<= half"),
            Self::Preferred => ("GetPreferredAllocation, 1 to 4 of 8, p50, ms", "<= 0.3"),
            Self::PreferredSlow => ("GetPreferredAllocation, 1 to 4 of 8, p99, ms", ""),
            Self::LostErrors => ("GetPreferredAllocation with a lost GPU, % errors", "0"),
            Self::Options => ("GetDevicePluginOptions: gRPC alone, p50, ms", "baseline"),
            Self::Resident => ("resident memory after the calls, MiB", ""),
            Self::Peak => ("resident memory at its peak, MiB", ""),
            Self::OverLibrary => ("  of that beyond the bare library's program, MiB", "<= 8"),
            Self::Idle => ("processor time while idle, % of a core", "< 0.1"),
            Self::Binary => ("program on disk, MB", "<= 8"),
        }
    }
}

/// The figures of one plugin.
#[derive(Default)]
pub(crate) struct Figures(BTreeMap<Figure, Runs>);

impl Figures {
    /// Adds a run's.
    pub(crate) fn push(&mut self, figure: Figure, value: f64) {
        self.0.entry(figure).or_default().push(value);
    }

    fn cell(&self, figure: Figure) -> String {
        let Some((least, median, greatest)) = self.0.get(&figure).and_then(Runs::spread) else {
            return "never".to_owned();
        };
        if least == greatest {
            return format!("{median:.3}");
        }
        format!("{median:.3} ({least:.3} … {greatest:.3})")
    }
}

/// Prints the table: ours, and NVIDIA's if it is there.
pub(crate) fn print(plugins: &[Figures]) {
    let heads = ["ours", "NVIDIA's"];
    let heads: String = heads.iter().zip(plugins).map(|(head, _)| format!("{head:<32}")).collect();
    println!("  {:<50}{:<14}{heads}", "", "goal");
    for figure in Figure::ALL {
        let (what, goal) = figure.words();
        let cells: String = plugins.iter().map(|figures| format!("{:<32}", figures.cell(figure))).collect();
        println!("  {what:<50}{goal:<14}{}", cells.trim_end());
    }
}
