//! The day that is played: services, how many replicas each wants when, and when each is rolled out.
//!
//! Three classes of GPU services with equal mean demand, as clusters that serve models have them: models
//! that need a GPU for themselves, medium ones in MIG slices, and small ones of which four share a GPU; and
//! services without GPU. Each follows its own daily swing with noise:
//!
//! `replicas(t) = round(mean × (1 + A cos(2π (t − peak) / 24 h)) × exp(0.1 z))`, where `z` is an AR(1)
//! process with a coefficient of 0.95 per 15 minutes. The size is such that 32 GPUs, if each could be
//! anything at any time, would just serve it.

use rand::{Rng, RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use rand_distr::{Distribution, Gamma, StandardNormal};

/// Mean demand of each GPU class, in GPUs: a cluster of 75.5 elastic GPUs just serves 20 of each class, so
/// this is what 32 can serve.
pub const CLASS_MEAN_GPUS: f64 = 20.0 * 32.0 / 75.5;
/// Mean number of CPU-only pods.
const CPU_MEAN_PODS: f64 = 20.0;
/// Services of a class, or of each MIG profile: of the size that they have on a larger cluster, and fewer.
const SERVICES_PER_CLASS: usize = 4;
const SERVICES_PER_PROFILE: usize = 2;
/// How many of the MIG pods are of 1g, 2g and 3g.
const PROFILE_MIX: [(Piece, f64); 3] = [(Piece::Mig1g, 0.5), (Piece::Mig2g, 0.25), (Piece::Mig3g, 0.25)];
/// How unevenly a class's demand is spread over its services: the parameter of a Dirichlet distribution.
const WEIGHTS_ALPHA: f64 = 5.0;
const NOISE: f64 = 0.1;
const AR1_PER_QUARTER_HOUR: f64 = 0.95;

/// How a service uses GPUs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Class {
    /// Large models, each with a GPU for itself.
    Dedicated,
    /// Models of 2 to 40 GB in MIG slices.
    Medium,
    /// Models under 2 GB, four to a GPU.
    Small,
    /// No GPU at all.
    CpuOnly,
}

/// What one replica needs of a GPU.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Piece {
    /// All of it.
    Gpu,
    /// A MIG slice `1g.10gb`.
    Mig1g,
    /// A MIG slice `2g.20gb`.
    Mig2g,
    /// A MIG slice `3g.40gb`.
    Mig3g,
    /// A quarter of its time.
    Share,
    /// Nothing.
    None,
}

impl Class {
    /// All classes.
    pub const ALL: [Self; 4] = [Self::Dedicated, Self::Medium, Self::Small, Self::CpuOnly];

    /// For tables.
    pub fn title(self) -> &'static str {
        match self {
            Self::Dedicated => "dedicated",
            Self::Medium => "medium",
            Self::Small => "small",
            Self::CpuOnly => "CPU-only",
        }
    }

    /// How busy a replica keeps the piece of a GPU that it needs: the load that utilization is counted with.
    pub fn load(self) -> f64 {
        match self {
            Self::Dedicated => 0.7,
            Self::Medium => 0.6,
            Self::Small => 0.5,
            Self::CpuOnly => 0.0,
        }
    }

    /// The swing's amplitude, relative to the mean.
    fn swing(self) -> f64 {
        match self {
            Self::Dedicated => 0.2,
            Self::Medium | Self::CpuOnly => 0.5,
            Self::Small => 0.6,
        }
    }

    fn peak_hour(self) -> f64 {
        match self {
            Self::Dedicated | Self::Medium | Self::CpuOnly => 14.0,
            Self::Small => 22.0,
        }
    }
}

impl Piece {
    /// The class whose services need it.
    pub fn class(self) -> Class {
        match self {
            Self::Gpu => Class::Dedicated,
            Self::Mig1g | Self::Mig2g | Self::Mig3g => Class::Medium,
            Self::Share => Class::Small,
            Self::None => Class::CpuOnly,
        }
    }

    /// The resource that a pod asks for.
    pub fn resource(self) -> Option<&'static str> {
        match self {
            Self::Gpu => Some("nvidia.com/gpu"),
            Self::Mig1g => Some("nvidia.com/mig-1g.10gb"),
            Self::Mig2g => Some("nvidia.com/mig-2g.20gb"),
            Self::Mig3g => Some("nvidia.com/mig-3g.40gb"),
            Self::Share => Some("nvidia.com/gpu.shared"),
            Self::None => None,
        }
    }

    /// How much of a GPU it is: compute slices, and half a GPU for a 3g, which leaves no more than another 3g.
    pub fn gpus(self) -> f64 {
        match self {
            Self::Gpu => 1.0,
            Self::Mig1g => 1.0 / 7.0,
            Self::Mig2g => 2.0 / 7.0,
            Self::Mig3g => 0.5,
            Self::Share => 0.25,
            Self::None => 0.0,
        }
    }

    /// CPU in thousandths of a core, and memory in GiB, that one replica asks for.
    pub fn cpu_and_memory(self) -> (i64, i64) {
        match self {
            Self::Gpu => (8_000, 48),
            Self::Mig1g => (1_500, 6),
            Self::Mig2g => (3_000, 12),
            Self::Mig3g => (5_000, 24),
            Self::Share => (1_000, 4),
            Self::None => (2_000, 4),
        }
    }
}

/// One service.
#[derive(Debug, Clone, PartialEq)]
pub struct Service {
    /// Its name, e.g. `small-3`.
    pub name: String,
    /// What each replica needs.
    pub piece: Piece,
    /// How many replicas it wants at each step.
    pub wanted: Vec<u32>,
    /// The step at which a new version is rolled out.
    pub rollout: usize,
}

/// A day of all services.
#[derive(Debug, Clone, PartialEq)]
pub struct Day {
    /// The services.
    pub services: Vec<Service>,
    /// Into how many steps the day is cut.
    pub steps: usize,
}

impl Day {
    /// The day of that seed.
    pub fn generate(seed: u64, steps: usize) -> Self {
        let random = &mut ChaCha8Rng::seed_from_u64(seed);
        // A pod of the mix is so much of a GPU on average; that many pods make up the class's demand.
        let medium_gpus: f64 = PROFILE_MIX.iter().map(|(piece, share)| piece.gpus() * share).sum();
        let medium_pods = CLASS_MEAN_GPUS / medium_gpus;
        let mut groups = vec![(Piece::Gpu, SERVICES_PER_CLASS, CLASS_MEAN_GPUS)];
        groups.extend(PROFILE_MIX.map(|(piece, share)| (piece, SERVICES_PER_PROFILE, medium_pods * share)));
        groups.push((Piece::Share, SERVICES_PER_CLASS, CLASS_MEAN_GPUS / Piece::Share.gpus()));
        groups.push((Piece::None, SERVICES_PER_CLASS, CPU_MEAN_PODS));
        let mut services: Vec<Service> = Vec::new();
        for (piece, count, mean) in groups {
            for weight in dirichlet(count, random) {
                let number = services.iter().filter(|known| known.piece.class() == piece.class()).count();
                services.push(Service {
                    name: format!("{}-{number}", piece.class().title().to_lowercase()),
                    piece,
                    wanted: replicas(piece.class(), mean * weight, steps, random),
                    rollout: random.random_range(0..steps),
                });
            }
        }
        Self { services, steps }
    }

    /// How many replicas need this piece at a step.
    pub fn wanted(&self, piece: Piece, step: usize) -> u32 {
        self.services
            .iter()
            .filter(|service| service.piece == piece)
            .map(|service| service.wanted[step])
            .sum()
    }
}

/// Positive numbers that add up to 1.
fn dirichlet(count: usize, random: &mut impl Rng) -> Vec<f64> {
    let gamma = Gamma::new(WEIGHTS_ALPHA, 1.0).expect("both parameters are positive");
    let draws: Vec<f64> = (0..count).map(|_| gamma.sample(random)).collect();
    let sum: f64 = draws.iter().sum();
    draws.into_iter().map(|draw| draw / sum).collect()
}

fn replicas(class: Class, mean: f64, steps: usize, random: &mut impl Rng) -> Vec<u32> {
    let hours_per_step = 24.0 / steps as f64;
    let keep = AR1_PER_QUARTER_HOUR.powf(hours_per_step * 4.0);
    let peak = class.peak_hour() + random.random_range(-1.0..1.0);
    let mut noise: f64 = StandardNormal.sample(random);
    let mut out = Vec::with_capacity(steps);
    for step in 0..steps {
        let hour = step as f64 * hours_per_step;
        let swing = 1.0 + class.swing() * (std::f64::consts::TAU * (hour - peak) / 24.0).cos();
        out.push((mean * swing * (NOISE * noise).exp()).round() as u32);
        let fresh: f64 = StandardNormal.sample(random);
        noise = keep * noise + (1.0 - keep * keep).sqrt() * fresh;
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mean_gpus(class: Class) -> f64 {
        let days = 20;
        let all: f64 = (0..days)
            .flat_map(|seed| Day::generate(seed, 96).services)
            .filter(|service| service.piece.class() == class)
            .map(|service| service.piece.gpus() * f64::from(service.wanted.iter().sum::<u32>()) / 96.0)
            .sum();
        all / f64::from(days as u32)
    }

    #[test]
    fn a_seed_gives_one_day_and_another_seed_another() {
        assert_eq!(Day::generate(7, 96), Day::generate(7, 96));
        assert_ne!(Day::generate(7, 96), Day::generate(8, 96));
    }

    #[test]
    fn each_gpu_class_wants_about_the_same_share_of_the_cluster() {
        for class in [Class::Dedicated, Class::Medium, Class::Small] {
            let mean = mean_gpus(class);
            assert!((mean - CLASS_MEAN_GPUS).abs() < 0.5, "{class:?}: {mean}");
        }
    }

    #[test]
    fn small_models_peak_late_and_the_others_in_the_afternoon() {
        let day = Day::generate(1, 96);
        let at = |class: Class, hour: usize| -> u32 {
            let services = day.services.iter().filter(|service| service.piece.class() == class);
            services.map(|service| service.wanted[hour * 4]).sum()
        };
        assert!(at(Class::Small, 22) > 2 * at(Class::Small, 10));
        assert!(at(Class::Medium, 14) > 2 * at(Class::Medium, 2));
    }

    #[test]
    fn coarser_steps_want_about_the_same() {
        let total = |steps: usize| -> f64 {
            let day = Day::generate(3, steps);
            day.services.iter().flat_map(|s| &s.wanted).map(|&n| f64::from(n)).sum::<f64>() / steps as f64
        };
        assert!((total(96) - total(24)).abs() < 0.15 * total(96), "{} {}", total(96), total(24));
    }
}
