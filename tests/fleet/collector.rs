//! Rotel, an OpenTelemetry collector. It logs what it receives, and forwards it to another receiver.

use std::net::TcpStream;
use std::process::Command;

use nix::sys::signal::Signal;
use tests::eventually;
use tests::run::Running;
use tests::traffic::LOOPBACK;

/// The port for OTLP over HTTP.
pub const PORT: u16 = 4318;

pub struct Collector(Running);

impl Collector {
    /// Starts the collector in the namespace of this thread, and waits until it listens.
    pub fn start(forward_to: &str) -> Collector {
        let packages = super::file("target/tables/lib");
        let versions = std::fs::read_dir(&packages)
            .unwrap_or_else(|error| panic!("{packages:?}: {error}; cargo xtask test --install"));
        let mut programs = versions.filter_map(|version| {
            let program = version.ok()?.path().join("site-packages/rotel/rotel-agent");
            program.exists().then_some(program)
        });
        let program = programs.next().expect("rotel; cargo xtask test --install");
        let mut command = Command::new(program);
        command
            .args(["start", "--batch-timeout", "50ms"])
            .args(["--debug-log", "metrics", "--debug-log", "traces"])
            .args(["--debug-log-verbosity", "detailed"])
            .args(["--exporter", "otlp", "--otlp-exporter-protocol", "http"])
            .args(["--otlp-exporter-endpoint", forward_to])
            .env("NO_COLOR", "1");
        let running = Running::start(command);
        eventually("the collector", || {
            TcpStream::connect((LOOPBACK, PORT)).ok()
        });
        Collector(running)
    }

    /// Returns the log so far.
    pub fn log(&self) -> String {
        self.0.stdout().lines().join("\n")
    }

    pub fn kill(self) {
        self.0.signal(Signal::SIGKILL);
        self.0.wait();
    }
}
