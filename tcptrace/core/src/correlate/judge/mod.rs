//! Conclusions from the state: pure functions of it.

pub mod cause;
pub mod connection;
pub mod ending;
mod half_open;
pub mod lookahead;
pub mod verdict;
