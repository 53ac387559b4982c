//! The value of what is idle: which node and which GPUs a request should go to, over a whole cluster.
//!
//! [`place`](super::place()) knows what a node offers under which resource name; this module knows what the
//! *cluster* is worth to the requests that are likely to come. It sees a node as idle CPU, idle memory and, GPU by
//! GPU, idle thousandths; a request as a [`Shape`]; and what is to come as a [`Mix`] of shapes, known or
//! [learned](Learner) from the pods seen. A [`Value`] made of a mix and the cluster's [`Supply`] says what a placement
//! costs. A [`Fleet`] finds the cheapest in the whole cluster: it scores nodes in equal state once, and again
//! only what a placement has touched.
//!
//! # What a placement costs
//!
//! The sum of four terms, in thousandths of a GPU; less is better:
//!
//! - what becomes a **fragment**: idle GPU that a request of the mix, drawn at random, could not use;
//! - what is **stranded**: idle GPU that is left when the node is filled with requests of one shape, for each shape;
//! - what the **cut** wastes: an idle piece of a GPU is worth the best set of requests that fit it, each at its dual
//!   price in the linear program that packs the mix into the fewest GPUs, as far as the node has the CPU and the
//!   memory for them; the rest of the piece is waste. It weighs most: the others only break its ties;
//! - the **price** of the GPU's model: how much of the mix depends on it, by the GPUs it could use instead. It
//!   keeps requests that may go anywhere off the models that others need.
//!
//! All of it is whole numbers, so that a cost is the same in any order of summation and on any machine.
//!
//! It knows no resource name, no pod and no node name: the caller keeps nodes in a list, and gives places in it.

mod class;
mod cut;
mod cutting;
mod index;
mod learner;
mod mix;
mod node;
mod value;

#[cfg(test)]
mod tests;

pub use index::{Best, Fleet};
pub use learner::Learner;
pub use mix::{Mix, Supply};
pub use node::{GPU_MILLI, Models, Node, Shape};
pub use value::{Cost, Spot, Value, Weights};
