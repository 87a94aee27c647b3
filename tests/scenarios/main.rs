//! tcptrace against the real kernel: every scenario is a script of real traffic in a network
//! namespace of its own, and says what the JSON must show.
//!
//! `cargo xtask test` builds what they need and runs them as root.

mod a_minute;
mod accepting;
mod both_ends;
mod calls;
mod carriers;
mod causes;
mod cgroups;
mod closing;
mod commands;
mod crowds;
mod depths;
mod earlier;
mod ended;
mod ending;
mod expect;
mod families;
mod field;
mod figures;
mod filters;
mod flight;
mod half_open;
mod inside;
mod io_uring;
mod listeners;
mod loss;
mod mptcp;
mod oddities;
mod older;
mod output;
mod races;
mod record;
mod refusals;
mod replay;
mod segments;
mod teaching;
mod teeth;
mod time_wait;
mod top;
mod wire;
mod yielding;
