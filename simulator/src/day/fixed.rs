//! GPUs that are divided once and for all.

use super::SERVED;
use super::demand::{Form, STEPS, Week};

/// How many 1g, 2g and 3g slices a GPU of each layout has.
const LAYOUTS: [[u64; 3]; 5] = [[7, 0, 0], [1, 3, 0], [2, 1, 1], [0, 2, 1], [0, 0, 2]];
/// The layout that holds one of each and fills the GPU.
const COMMON: [u64; 3] = LAYOUTS[2];
/// Shares of one GPU.
const SHARES: u64 = 4;

/// The pod-time of a form that so many places serve, for every number of places until more serve no more.
struct Curve(Vec<u64>);

impl Curve {
    fn of(wanted: &[u64]) -> Self {
        let peak = wanted.iter().copied().max().unwrap_or(0);
        Self((0..=peak).map(|places| wanted.iter().map(|&w| w.min(places)).sum()).collect())
    }

    fn served(&self, places: u64) -> u64 {
        let last = self.0.len() - 1;
        self.0[usize::try_from(places).unwrap_or(last).min(last)]
    }

    fn all(&self) -> u64 {
        self.served(u64::MAX)
    }
}

fn is_served(served: u64, wanted: u64) -> bool {
    served as f64 >= SERVED * wanted as f64
}

/// The least number of GPUs that passes.
fn least(passes: impl Fn(u64) -> bool) -> u64 {
    (0..).find(|&gpus| passes(gpus)).unwrap_or(u64::MAX)
}

/// GPUs for the classes that have no layout: whole and shared.
fn simple(week: &Week, form: Form, places: u64) -> u64 {
    let curve = Curve::of(&week.of(form));
    least(|gpus| is_served(curve.served(gpus * places), curve.all()))
}

fn slices(week: &Week) -> [Curve; 3] {
    [0, 1, 2].map(|profile| Curve::of(&week.of(Form::Slice(profile))))
}

fn is_mig_served(curves: &[Curve; 3], places: [u64; 3]) -> bool {
    let served: u64 = curves.iter().zip(places).map(|(curve, places)| curve.served(places)).sum();
    is_served(served, curves.iter().map(Curve::all).sum())
}

/// GPUs of each class: whole, MIG in the common layout, shared.
fn split(week: &Week) -> [u64; 3] {
    let curves = slices(week);
    let mig = least(|gpus| is_mig_served(&curves, COMMON.map(|slices| slices * gpus)));
    [simple(week, Form::Whole, 1), mig, simple(week, Form::Share, SHARES)]
}

/// So many for each class, with its peak known.
pub(super) fn hand_split(week: &Week) -> usize {
    to_usize(split(week).iter().sum())
}

/// A third for each class: the means are equal.
pub(super) fn by_means(week: &Week) -> usize {
    to_usize(3 * split(week).into_iter().max().unwrap_or(0))
}

/// The best numbers of five layouts for the MIG class, known in hindsight.
pub(super) fn expert(week: &Week) -> usize {
    let curves = slices(week);
    let mig = least(|gpus| any_division(gpus, &LAYOUTS, [0; 3], &|places| is_mig_served(&curves, places)));
    to_usize(simple(week, Form::Whole, 1) + mig + simple(week, Form::Share, SHARES))
}

/// Whether some division of `gpus` among the layouts passes.
fn any_division(
    gpus: u64,
    layouts: &[[u64; 3]],
    places: [u64; 3],
    passes: &dyn Fn([u64; 3]) -> bool,
) -> bool {
    let Some((layout, rest)) = layouts.split_first() else { return gpus == 0 && passes(places) };
    let with = |count: u64| [0, 1, 2].map(|p| places[p] + count * layout[p]);
    if rest.is_empty() {
        return passes(with(gpus));
    }
    (0..=gpus).any(|count| any_division(gpus - count, rest, with(count), passes))
}

/// One whole GPU for each pod; whoever waits longest is served first.
pub(super) fn whole(week: &Week) -> usize {
    let mut steps = vec![[0_u64; 3]; STEPS];
    for form in Form::ALL {
        for (wanted, of_form) in steps.iter_mut().zip(week.of(form)) {
            wanted[form.class()] += of_form;
        }
    }
    let all = [0, 1, 2].map(|class| steps.iter().map(|wanted| wanted[class]).sum());
    let passes = |gpus| queue(&steps, gpus).into_iter().zip(all).all(|(served, all)| is_served(served, all));
    to_usize(least(passes))
}

/// Pod-time that each class is served on so many whole GPUs.
fn queue(steps: &[[u64; 3]], gpus: u64) -> [u64; 3] {
    let (mut running, mut served) = ([0_u64; 3], [0_u64; 3]);
    // Who waits, in the order of arrival: a class and how many.
    let mut waiting: Vec<(usize, u64)> = Vec::new();
    for all_wanted in steps {
        for (class, &wanted) in all_wanted.iter().enumerate() {
            let queued: u64 = waiting.iter().filter(|(c, _)| *c == class).map(|(_, count)| count).sum();
            let mut surplus = (running[class] + queued).saturating_sub(wanted);
            for (_, count) in waiting.iter_mut().rev().filter(|(c, _)| *c == class) {
                let gone = surplus.min(*count);
                *count -= gone;
                surplus -= gone;
            }
            running[class] -= surplus;
            waiting.push((class, wanted.saturating_sub(running[class] + queued)));
        }
        let mut free = gpus - running.iter().sum::<u64>();
        for (class, count) in &mut waiting {
            let starts = free.min(*count);
            *count -= starts;
            free -= starts;
            running[*class] += starts;
        }
        waiting.retain(|(_, count)| *count > 0);
        (0..3).for_each(|class| served[class] += running[class]);
    }
    served
}

fn to_usize(gpus: u64) -> usize {
    usize::try_from(gpus).unwrap_or(usize::MAX)
}
