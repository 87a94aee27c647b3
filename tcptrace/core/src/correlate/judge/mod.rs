//! Judgements: pure functions that draw conclusions from the state.

pub mod cause;
pub mod connection;
pub mod ending;
mod half_open;
pub mod late;
pub mod lookahead;
pub mod verdict;
