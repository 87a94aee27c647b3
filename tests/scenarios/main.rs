//! tcptrace against the real kernel: every scenario is a script of real traffic in a network
//! namespace of its own, and says what the JSON must show.
//!
//! `cargo xtask test` builds what they need and runs them as root.

mod accepting;
mod calls;
mod carriers;
mod closing;
mod commands;
mod crowds;
mod earlier;
mod ending;
mod families;
mod filters;
mod listeners;
mod loss;
mod oddities;
mod output;
mod refusals;
mod segments;
mod teeth;
