//! tcptrace against the real kernel: every scenario is a script of real traffic in a network
//! namespace of its own, and says what the JSON must show.
//!
//! `cargo xtask test` builds what they need and runs them as root.

mod accepting;
mod calls;
mod closing;
mod crowds;
mod earlier;
mod families;
mod listeners;
mod oddities;
