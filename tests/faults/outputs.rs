//! A full disk at each output.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Stdio;

use nix::mount::{MsFlags, mount, umount};
use nix::sys::signal::Signal;
use tests::programs::Programs;
use tests::run::{Ended, Running, tcptrace, tcptrace_trace};
use tests::traffic::*;
use tests::{Lab, Trace, eventually, invariants};

use crate::{DONE, FAILURE, ended, says};

const FULL: &str = "No space left on device";

/// A file system of a given size. It is unmounted when it is dropped.
struct Disk(tempfile::TempDir);

impl Disk {
    fn of_size(size: &str) -> Disk {
        let folder = tempfile::tempdir().expect("a folder");
        let (none, options) = (None::<&str>, format!("size={size}"));
        let options = Some(options.as_str());
        mount(
            none,
            folder.path(),
            Some("tmpfs"),
            MsFlags::empty(),
            options,
        )
        .expect("a small disk");
        Disk(folder)
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    /// Takes all free space.
    fn fill(&self) {
        let zeros = vec![0; 64 << 20];
        fs::write(self.path("filler"), zeros).expect_err("the disk is full");
    }

    fn files(&self) -> Vec<PathBuf> {
        let entries = fs::read_dir(self.0.path()).expect("the folder");
        let mut files: Vec<_> = entries.map(|it| it.expect("an entry").path()).collect();
        files.sort();
        files
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        let _ = umount(self.0.path());
    }
}

fn text(path: &Path) -> &str {
    path.to_str().expect("a printable path")
}

/// Makes connections until the tracer has ended.
fn ended_under_load(mut running: Running, port: u16) -> Ended {
    let programs = Programs::of(running.pid());
    while running.is_running() {
        storm(port, 10);
    }
    ended(running, &programs)
}

#[test]
fn a_full_disk_ends_a_trace_in_each_form() {
    for form in ["json", "text", "wide", "csv", "chrome", "pcapng"] {
        let lab = Lab::new();
        let port = lab.port();
        let disk = Disk::of_size("64k");
        let path = disk.path("output");
        let output = File::create(&path).expect("a file");
        let ports = port.to_string();
        let mut command = tcptrace_trace(&["-o", form, "-p", &ports, "-q"]);
        command.stdout(output).stderr(Stdio::piped());
        let running = Running::spawn(command);
        eventually("the first bytes", || {
            storm(port, 1);
            (fs::metadata(&path).expect("the file").len() > 0).then_some(())
        });
        let ended = ended_under_load(running, port);
        says(
            &ended,
            FAILURE,
            &format!("tcptrace: cannot write to standard output: {FULL}; the trace ends here"),
        );
        assert_eq!(
            fs::metadata(&path).expect("the file").len(),
            64 << 10,
            "{form}"
        );
    }
}

/// The recording beside a trace fails, and what fits the disk remains readable.
#[test]
fn a_full_disk_ends_each_recording() {
    for (args, is_trace) in [
        (&["-o", "json", "--write"][..], true),
        (&["-o", "json", "--zstd", "--write"], true),
        (&["record", "-o"], false),
        (&["record", "--zstd", "-o"], false),
    ] {
        let lab = Lab::new();
        let port = lab.port();
        let disk = Disk::of_size("256k");
        let path = disk.path("it.trace");
        let ports = port.to_string();
        let mode = std::env::var("TCPTRACE_TEST_ARGS").unwrap_or_default();
        let mode: Vec<&str> = mode.split_whitespace().collect();
        let running = Running::start(tcptrace(
            &[args, &[text(&path), "-p", &ports], &mode].concat(),
        ));
        eventually("the recording to begin", || {
            (fs::metadata(&path).ok()?.len() > 0).then_some(())
        });
        let ended = ended_under_load(running, port);
        let message = format!(
            "tcptrace: cannot write to {}: {FULL}; the trace ends here",
            path.display()
        );
        says(&ended, FAILURE, &message);
        if is_trace {
            let trace = Trace::read(&ended.stdout, lab.netns);
            invariants::check(&trace);
        }
        let replayed = Running::run_to_end(tcptrace(&["replay", text(&path), "-o", "json"]));
        assert_eq!(replayed.code, Some(FAILURE), "{}", replayed.stderr);
        assert_eq!(replayed.stderr.lines().count(), 1, "{}", replayed.stderr);
        let ends = replayed.stdout.matches(r#"{"event":"connection""#).count();
        assert!(ends > 4, "{args:?}: {ends} ends");
    }
}

/// The files that were complete before the disk was full can be replayed.
#[test]
fn a_full_disk_ends_a_recording_of_several_files() {
    let lab = Lab::alone();
    let port = lab.port();
    let disk = Disk::of_size("256k");
    let base = disk.path("it.trace");
    let ports = port.to_string();
    let running = Running::start(tcptrace(&[
        "record",
        "-o",
        text(&base),
        "--rotate",
        "64K",
        "-p",
        &ports,
    ]));
    eventually("the first file", || {
        (!disk.files().is_empty()).then_some(())
    });
    let ended = ended_under_load(running, port);
    let files = disk.files();
    let [complete @ .., last] = &files[..] else {
        panic!("no file")
    };
    let message = format!(
        "tcptrace: cannot write to {}: {FULL}; the trace ends here",
        last.display()
    );
    says(&ended, FAILURE, &message);
    assert!(complete.len() >= 2, "{files:?}");
    for file in complete {
        let replayed = Running::run_to_end(tcptrace(&["replay", text(file), "-o", "json"]));
        says(&replayed, DONE, "");
        invariants::check(&Trace::read(&replayed.stdout, lab.netns));
    }
}

/// With `--files`, the oldest file makes room for the next one.
#[test]
fn a_recording_that_keeps_few_files_does_not_fill_the_disk() {
    let lab = Lab::alone();
    let port = lab.port();
    let disk = Disk::of_size("512k");
    let base = disk.path("it.trace");
    let ports = port.to_string();
    let args = ["--rotate", "64K", "--files", "2", "-p", &ports];
    let running = Running::start(tcptrace(
        &[&["record", "-o", text(&base)], &args[..]].concat(),
    ));
    eventually("the first file", || {
        (!disk.files().is_empty()).then_some(())
    });
    let programs = Programs::of(running.pid());
    let ninth = disk.path("it.trace.0012");
    while !ninth.exists() {
        storm(port, 50);
    }
    running.signal(Signal::SIGINT);
    let ended = ended(running, &programs);
    says(&ended, DONE, "");
    assert_eq!(disk.files().len(), 2);
}

/// The flight recorder keeps its records in memory, so the disk matters only at a trigger.
#[test]
fn a_full_disk_ends_the_flight_recorder_at_a_trigger() {
    let lab = Lab::alone();
    let port = lab.port();
    let disk = Disk::of_size("64k");
    let base = disk.path("it.trace");
    let ports = port.to_string();
    let args = ["--keep", "1M", "--after", "100ms", "-p", &ports];
    let running = Running::start(tcptrace(
        &[&["record", "-o", text(&base)], &args[..]].concat(),
    ));
    eventually("the programs", || {
        (Programs::so_far(running.pid()).len() > 4).then_some(())
    });
    storm(port, 500);
    std::thread::sleep(std::time::Duration::from_millis(300));
    running.signal(Signal::SIGUSR1);
    let ended = ended_under_load(running, port);
    assert_eq!(ended.code, Some(FAILURE), "{ended:?}");
    let last = ended.stderr.lines().last().unwrap_or_default();
    assert_eq!(
        last,
        format!(
            "tcptrace: cannot write to {}: {FULL}; the trace ends here",
            disk.path("it.trace.0001").display()
        ),
        "{ended:?}"
    );
}

/// Records some connections in a file outside of the small disk.
fn recorded(lab: &Lab) -> tempfile::NamedTempFile {
    let file = tempfile::NamedTempFile::new().expect("a file");
    let port = lab.port();
    let ports = port.to_string();
    let running = Running::start(tcptrace_trace(&[
        "-o",
        "json",
        "-p",
        &ports,
        "--write",
        text(file.path()),
    ]));
    running
        .stdout()
        .wait_until("the first line", |lines| lines.first().map(drop));
    storm(port, 300);
    running.signal(Signal::SIGINT);
    says(&running.wait(), DONE, "");
    file
}

#[test]
fn offline_commands_report_a_full_disk() {
    let lab = Lab::new();
    let recording = recorded(&lab);
    let from = text(recording.path());
    for form in ["json", "text", "csv", "chrome"] {
        let disk = Disk::of_size("64k");
        let output = File::create(disk.path("output")).expect("a file");
        let mut command = tcptrace(&["replay", from, "-o", form]);
        command.stdout(output).stderr(Stdio::piped());
        let ended = Running::spawn(command).wait();
        says(
            &ended,
            FAILURE,
            &format!("tcptrace: cannot write to standard output: {FULL}"),
        );
    }
    let disk = Disk::of_size("64k");
    let output = File::create(disk.path("output")).expect("a file");
    let mut command = tcptrace(&["explain", from]);
    command.stdout(output).stderr(Stdio::piped());
    let ended = Running::spawn(command).wait();
    assert_eq!(ended.code, Some(FAILURE), "{ended:?}");
    assert_eq!(ended.stderr.lines().count(), 1, "{ended:?}");
    assert!(
        ended.stderr.contains("No space left on device"),
        "{ended:?}"
    );
}

/// A page is replaced when the new one is complete.
#[test]
fn a_report_on_a_full_disk_leaves_the_old_page() {
    let lab = Lab::new();
    let recording = recorded(&lab);
    let disk = Disk::of_size("64k");
    let page = disk.path("page.html");
    fs::write(&page, "the old page").expect("a file");
    disk.fill();
    let args = ["report", text(recording.path()), "-o", text(&page)];
    let ended = Running::run_to_end(tcptrace(&args));
    says(
        &ended,
        FAILURE,
        &format!("tcptrace: cannot write {}: {FULL}", page.display()),
    );
    let left = fs::read_to_string(&page).expect("the page");
    assert_eq!(left, "the old page");
    assert_eq!(
        disk.files(),
        [disk.path("filler"), page],
        "no other file is left"
    );
}

#[test]
fn demo_fails_on_a_full_disk() {
    let _lab = Lab::new();
    let full = File::options().write(true).open("/dev/full");
    let mut command = tcptrace(&["demo"]);
    command
        .stdout(full.expect("a full disk"))
        .stderr(Stdio::piped());
    let ended = Running::spawn(command).wait();
    assert_eq!(ended.code, Some(FAILURE), "{ended:?}");
    assert_eq!(ended.stderr.lines().count(), 1, "{ended:?}");
    assert!(
        ended.stderr.contains("No space left on device"),
        "{ended:?}"
    );
}
