//! What people's own problems have shown to be told wrongly: one scenario for each kind.

mod causes;
mod doctor;
mod faults;
mod hints;
mod kernels;
mod misses;
mod owners;
mod stopped_tracer;
mod verdicts;
