//! The live map: a page that shows every GPU, who is on it, what is free, stranded, unhealthy or planned, why pods wait, and
//! where a pod would go that does not exist yet.
//!
//! ```text
//!   browser ──GET /, *.js, *.css──► assets        (static, in the binary)
//!           ──GET /api/v1/events──► stream ◄── hub ◄── paint ◄── snapshots, seats
//!           ──GET /api/v1/waiting/UID, POST /api/v1/what-if──► survey (pure)
//! ```
//!
//! It is read-only: nothing here holds a device, and no request changes anything. Nobody watching costs nothing: the
//! picture is made when the first reader comes and forgotten when the last one has gone. Filters go first: whatever takes
//! longer runs on a thread of its own, one at a time.
//!
//! Who may see what: on the loopback whoever reaches it (they could reach the verbs beside it, which bind pods); elsewhere
//! who has a bearer token with the rights for it (`access`). The files of the page itself are in every copy of the
//! program, so they need none.

mod access;
mod address;
mod assets;
mod body;
mod encode;
mod guard;
mod hub;
mod kinds;
mod manifest;
mod paint;
mod route;
mod scene;
mod serve;
mod stall;
mod stream;
mod survey;
mod waiting;

pub use self::address::{MapAddress, MapArgs};
pub use self::serve::{Page, serve};
