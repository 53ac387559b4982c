//! What the services want, in steps of a quarter of an hour.

use std::f64::consts::TAU;
use std::fmt;
use std::str::FromStr;

use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use rand_distr::{Distribution, Gamma, StandardNormal};

/// Hours of a step.
const STEP_HOURS: f64 = 0.25;
/// Steps of a week.
pub(super) const STEPS: usize = 7 * 24 * 4;
/// What each class wants on average, in GPUs.
const MEAN_GPUS: f64 = 20.0;
/// Services of a class, and of one profile of the MIG class.
const SERVICES: usize = 10;
const SERVICES_OF_PROFILE: usize = 5;
/// How alike the services of a class are in size: the parameter of the Dirichlet distribution of their weights.
const ALIKE: f64 = 5.0;
/// The noise of a service: its standard deviation in the logarithm, and how much of it stays from step to step.
const NOISE: f64 = 0.1;
const PERSISTENCE: f64 = 0.95;

/// What a pod asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) enum Form {
    /// A whole GPU.
    Whole,
    /// The slice of one, two or three compute slices: 0, 1 or 2.
    Slice(usize),
    /// A quarter of a shared GPU.
    Share,
}

impl Form {
    /// All of them, in the order of their [`index`](Self::index).
    pub const ALL: [Self; 5] = [Self::Whole, Self::Slice(0), Self::Slice(1), Self::Slice(2), Self::Share];

    /// Its place among all forms.
    pub fn index(self) -> usize {
        match self {
            Self::Whole => 0,
            Self::Slice(profile) => 1 + profile,
            Self::Share => 4,
        }
    }

    /// The class it is served with: whole, MIG or shared.
    pub fn class(self) -> usize {
        match self {
            Self::Whole => 0,
            Self::Slice(_) => 1,
            Self::Share => 2,
        }
    }

    /// What part of a GPU it stands for.
    pub fn gpus(self) -> f64 {
        match self {
            Self::Whole => 1.0,
            Self::Slice(0) => 1.0 / 7.0,
            Self::Slice(1) => 2.0 / 7.0,
            Self::Slice(_) => 0.5,
            Self::Share => 0.25,
        }
    }

    /// How far the demand swings by day, and the hour at which it peaks.
    fn day(self) -> (f64, f64) {
        match self {
            Self::Whole => (0.2, 14.0),
            Self::Slice(_) => (0.5, 14.0),
            Self::Share => (0.6, 22.0),
        }
    }
}

/// How many per cent of the MIG pods ask for 1g, 2g and 3g.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MigMix([u32; 3]);

/// Why a text is no mix of slices.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is no mix of 1g, 2g and 3g slices: write three numbers that make 100, such as 50/25/25")]
pub struct MigMixError(String);

impl MigMix {
    /// The mixes that are compared.
    pub const ALL: [Self; 3] = [Self([50, 25, 25]), Self([70, 20, 10]), Self([20, 40, 40])];
}

impl fmt::Display for MigMix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}/{}", self.0[0], self.0[1], self.0[2])
    }
}

impl FromStr for MigMix {
    type Err = MigMixError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let parts: Result<Vec<u32>, _> = text.split('/').map(str::parse).collect();
        match parts.as_deref() {
            Ok(&[one, two, three]) if [one, two, three].iter().map(|&n| u64::from(n)).sum::<u64>() == 100 => {
                Ok(Self([one, two, three]))
            }
            _ => Err(MigMixError(text.chars().take(40).collect())),
        }
    }
}

/// One service, and how many pods it wants in each step.
#[derive(Debug, Clone)]
pub(super) struct Service {
    pub form: Form,
    pub wanted: Vec<u32>,
}

/// All services of a week.
#[derive(Debug, Clone)]
pub(super) struct Week {
    pub services: Vec<Service>,
}

impl Week {
    /// The week of a seed.
    pub fn new(seed: u64, MigMix(mix): MigMix) -> Self {
        let mut random = ChaCha8Rng::seed_from_u64(seed);
        let mut services = Vec::new();
        let slice = |profile| Form::Slice(profile).gpus();
        let each: f64 = (0..3).map(|p| f64::from(mix[p]) / 100.0 * slice(p)).sum();
        for form in Form::ALL {
            let (pods, count) = match form {
                Form::Slice(p) => (MEAN_GPUS / each * f64::from(mix[p]) / 100.0, SERVICES_OF_PROFILE),
                other => (MEAN_GPUS / other.gpus(), SERVICES),
            };
            for weight in weights(count, &mut random) {
                services.push(Service { form, wanted: wanted(form, pods * weight, &mut random) });
            }
        }
        Self { services }
    }

    /// How many pods of a form are wanted in each step.
    pub fn of(&self, form: Form) -> Vec<u64> {
        let mut sums = vec![0; STEPS];
        for service in self.services.iter().filter(|service| service.form == form) {
            for (sum, &wanted) in sums.iter_mut().zip(&service.wanted) {
                *sum += u64::from(wanted);
            }
        }
        sums
    }
}

/// Weights that make 1, by a symmetric Dirichlet distribution.
fn weights(count: usize, random: &mut ChaCha8Rng) -> Vec<f64> {
    let gamma = Gamma::new(ALIKE, 1.0).expect("both parameters are positive");
    let drawn: Vec<f64> = (0..count).map(|_| gamma.sample(random)).collect();
    let sum: f64 = drawn.iter().sum();
    drawn.into_iter().map(|weight| weight / sum).collect()
}

fn wanted(form: Form, mean: f64, random: &mut ChaCha8Rng) -> Vec<u32> {
    let (swing, peak) = form.day();
    let peak = peak + random.random_range(-1.0..1.0);
    let mut noise: f64 = random.sample(StandardNormal);
    let step = |step: usize| {
        let hour = step as f64 * STEP_HOURS;
        let by_day = mean * (1.0 + swing * (TAU * (hour - peak) / 24.0).cos());
        let pods = (by_day * (NOISE * noise).exp()).round();
        let fresh: f64 = random.sample(StandardNormal);
        noise = PERSISTENCE * noise + (1.0 - PERSISTENCE * PERSISTENCE).sqrt() * fresh;
        pods.clamp(0.0, f64::from(u32::MAX)) as u32
    };
    (0..STEPS).map(step).collect()
}
