//! What of a pod runs at once, and so is asked for together: kube-scheduler's rule, for whatever adds up.

use crate::request::Role;

/// Something that containers ask for, and that adds up.
pub trait Amount: Clone + Default {
    /// Adds another.
    fn add(&mut self, other: &Self);
    /// Raises each part of it to that of another, where the other has more.
    fn raise(&mut self, other: &Self);
}

/// The most that a pod asks for at one time, of what its containers ask for in the order in which they start.
///
/// Containers and sidecars run together. Init containers run one after another, each beside the sidecars that were
/// started before it; so the larger of the two counts.
pub fn at_once<A: Amount>(containers: impl IntoIterator<Item = (Role, A)>) -> A {
    let (mut running, mut sidecars, mut starting) = (A::default(), A::default(), A::default());
    for (role, asked) in containers {
        if role == Role::App {
            running.add(&asked);
            continue;
        }
        let mut together = sidecars.clone();
        together.add(&asked);
        starting.raise(&together);
        if role == Role::Sidecar {
            running.add(&asked);
            sidecars = together;
        }
    }
    running.raise(&starting);
    running
}
