//! What holds for the workspace as a whole; the tests are in `tests/`. Here is what several of them need.

pub mod pages;
