//! Events to connections: pure, without I/O, clock or aya type.
//!
//! A socket's identity is its pointer and its birth. Each life of a pointer gets a number; what
//! lived there before has ended by then, whether its end was seen or not. Within one life,
//! ESTABLISHED and accept() are two facts that may come in either order, so the verdict is made at
//! the end, from everything that was seen (`judge/verdict.rs`).

//!
//! `state/` is what is known, `judge/` concludes from it, `on/` has a handler for each kind of event.
//! `state` uses neither of the others, `judge` only `state`.

mod judge;
mod on;
mod state;
#[cfg(test)]
mod tests;

pub use state::listener::match_rank;
pub use state::select::Selection;
pub use state::{Correlator, Totals};
