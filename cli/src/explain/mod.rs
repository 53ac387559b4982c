//! `kubectl stowage explain POD`: why a pod waits, or where it is and why there.

mod facts;
mod numbers;
mod page;

use anyhow::{Result, bail};

use crate::answer::Answer;
use crate::page::Page;
use crate::world::World;

pub use self::facts::{Explanation, held_up, terms};

/// Explains the pods of that name, in one namespace or in all.
///
/// # Errors
/// Where there is no such pod.
pub fn explain(world: &World, namespace: Option<&str>, name: &str) -> Result<Answer> {
    let name = name.strip_prefix("pod/").or(name.strip_prefix("pods/")).unwrap_or(name);
    let found = world.pods.iter().filter(|pod| pod.name() == name);
    let pods: Vec<_> = found.filter(|pod| namespace.is_none_or(|ns| pod.namespace() == ns)).collect();
    if pods.is_empty() {
        match namespace {
            Some(namespace) => bail!(
                "no pod {name:?} in namespace {namespace:?} that runs or waits: use -n NAMESPACE, or -A for all"
            ),
            None => bail!("no pod {name:?} in any namespace that runs or waits"),
        }
    }
    let explained: Vec<Explanation> = pods.into_iter().map(|pod| Explanation::of(world, pod)).collect();
    let mut page = Page::default();
    for explanation in &explained {
        page.gap();
        page::write(explanation, &mut page);
    }
    match &explained[..] {
        [one] => Answer::new(page, one),
        all => Answer::new(page, &all),
    }
}
