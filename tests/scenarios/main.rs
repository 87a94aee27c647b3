//! tcptrace against the real kernel. Every scenario makes real traffic in a private network
//! namespace, and asserts the contents of the JSON.
//!
//! `cargo xtask test` builds the programs and runs the scenarios as root.

mod a_full_time_wait;
mod accept_calls;
mod accepting;
mod attach_methods;
mod bad_input;
mod before_attach;
mod both_ends;
mod byte_counts;
mod causes;
mod cgroups;
mod closing;
mod commands;
mod config;
mod connection_end;
mod containers;
mod cpu_priority;
mod depths;
mod expect;
mod export;
mod families;
mod filters;
mod flight_recorder;
mod half_open;
mod io_uring;
mod kernel_threads;
mod listeners;
mod loss;
mod many_connections;
mod mptcp;
mod mutations;
mod output;
mod preexisting;
mod privileges;
mod races;
mod record;
mod replay;
mod segments;
mod teaching;
mod time_wait;
mod top;
mod trace_end;
mod unusual_clients;
mod user_reports;
mod why;
mod why_hooks;
mod wire;
