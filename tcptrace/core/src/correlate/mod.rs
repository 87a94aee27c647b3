//! The correlator: it assigns events to connections and judges each connection by its evidence.
//!
//! A socket is identified by its kernel address and its birth, because the kernel reuses addresses.
//! Each birth at an address begins a connection record with a new connection number (`conn`). It
//! ends the previous record at that address, even if no event showed the end of that record.
//! ESTABLISHED and accept() can come in either order. Therefore the verdict is made at the end of
//! the connection, from all the evidence.
//!
//! `state/` holds what is known, `judge/` draws conclusions from it, and `on/` has a handler for each
//! kind of event. `state` uses neither of the others, and `judge` uses only `state`.

mod judge;
mod on;
mod state;
#[cfg(test)]
mod tests;

pub use state::listener::match_rank;
pub use state::select::Selection;
pub use state::{Correlator, Totals};
