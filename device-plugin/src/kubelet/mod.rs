//! The kubelet's sockets: what we serve to it, how we register, and what we ask it.
//!
//! For each resource there is a gRPC server of its own on a socket of its own. It lives through one registration
//! (a [`life`]): the kubelet deletes every socket in its folder when it starts, and looks plugins up by resource
//! name when an old connection ends, so a new registration under an old socket name can be mistaken for the old
//! one. Whatever ends a life, the next one begins with a new server under a new name.

mod allocate;
pub mod folder;
pub mod life;
mod offers;
pub mod pod_resources;
pub mod service;
pub mod sockets;
mod supervise;

pub use offers::offer_all;
