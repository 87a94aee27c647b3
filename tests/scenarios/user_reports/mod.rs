//! Defects that users reported: one scenario for each kind.

mod causes;
mod doctor;
mod faults;
mod hints;
mod kernel_counters;
mod owners;
mod skipped_probes;
mod verdicts;
