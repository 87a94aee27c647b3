//! Recordings of scenarios, for tcptrace/tests/golden.
//!
//! With `TCPTRACE_TEST_RECORD=1` each trace is limited to the scenario's ports. At its end it
//! prints its recording in base64, between two lines with the scenario's name. This way recordings
//! leave a VM as well: `cargo xtask test --only vms` passes the variable on.

use std::path::PathBuf;
use std::sync::atomic::{AtomicU32, Ordering};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;

use crate::Lab;

/// The recording of one trace.
pub struct Recording {
    path: PathBuf,
    ports: String,
}

impl Recording {
    /// Creates a recording if `TCPTRACE_TEST_RECORD` is set.
    pub fn wanted(lab: &Lab) -> Option<Recording> {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        std::env::var_os("TCPTRACE_TEST_RECORD")?;
        let ports = format!("{}-{}", lab.ports.first, lab.ports.last);
        let n = NEXT.fetch_add(1, Ordering::Relaxed);
        let name = format!("tcptrace-{}-{n}.trace", std::process::id());
        let path = std::env::temp_dir().join(name);
        Some(Recording { path, ports })
    }

    /// Returns the arguments for tcptrace.
    pub fn args(&self) -> [&str; 4] {
        let path = self.path.to_str().expect("a path in UTF-8");
        ["--write", path, "-p", &self.ports]
    }

    /// Prints the recording after the trace has ended.
    pub fn print(&self) {
        let thread = std::thread::current();
        let name = thread.name().unwrap_or_default();
        let bytes = std::fs::read(&self.path).expect("the recording");
        println!(
            "recording {name}\n{}\nend of {name}",
            STANDARD.encode(bytes)
        );
        std::fs::remove_file(&self.path).expect("remove the recording");
    }
}
