//! Fuzz targets: functions that take any bytes and must neither panic, nor hang, nor grow.
//!
//! `cargo xtask fuzz` runs them in libFuzzer. `cargo test` runs them over the inputs that are stored
//! beside them: a small corpus, and each input that has found a fault.

pub mod btf;
pub mod command_line;
pub mod conditions;
pub mod elf;
pub mod events;
pub mod host_files;
pub mod recording;
pub mod records;

/// A target: its name, which is also that of its program and of the folder of its corpus, and its
/// function.
pub type Target = (&'static str, fn(&[u8]));

/// Every target.
pub const TARGETS: [Target; 8] = [
    ("records", records::run),
    ("recording", recording::run),
    ("events", events::run),
    ("btf", btf::run),
    ("command_line", command_line::run),
    ("conditions", conditions::run),
    ("elf", elf::run),
    ("host_files", host_files::run),
];
