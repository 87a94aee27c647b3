//! The files of a command line, and outputs that cannot be written: one line on stderr, the
//! documented exit code, and no file that is lost.

use std::fs::{self, File, OpenOptions};
use std::io::{Read, Write};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

const FAILURE: i32 = 1;
const USAGE: i32 = 2;

fn tcptrace(args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_tcptrace"));
    command.args(args).stdin(Stdio::null());
    command
}

/// A folder with a recording in it, and a link of each kind to that.
struct Folder {
    folder: tempfile::TempDir,
    text: Vec<u8>,
}

impl Folder {
    fn new() -> Folder {
        let golden = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/late_accept.jsonl");
        let folder = tempfile::tempdir().unwrap();
        let text = fs::read(golden).unwrap();
        let path = |name: &str| folder.path().join(name);
        fs::write(path("a"), &text).unwrap();
        fs::hard_link(path("a"), path("hard")).unwrap();
        std::os::unix::fs::symlink("a", path("soft")).unwrap();
        Folder { folder, text }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn run(&self, args: &[&str]) -> Command {
        let mut command = tcptrace(args);
        command.current_dir(self.folder.path());
        command
    }

    #[track_caller]
    fn is_untouched(&self) {
        assert!(
            fs::read(self.path("a")).unwrap() == self.text,
            "the recording has changed"
        );
    }
}

#[track_caller]
fn complains(output: &Output, code: i32, words: &str) {
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(code), "{stderr}");
    assert_eq!(stderr.lines().count(), 1, "{stderr}");
    assert!(
        stderr.starts_with("tcptrace: ") && stderr.contains(words),
        "{stderr}"
    );
}

#[test]
fn a_recording_is_not_written_while_it_is_read() {
    let folder = Folder::new();
    for name in ["a", "hard", "soft", "./a"] {
        for args in [
            &["replay", "a", "--write", name][..],
            &["replay", name, "--write", "a"],
            &["replay", "a", "--conn", "3", "--write", name],
            &["report", "a", "-o", name],
            &["report", name, "-o", "a"],
        ] {
            let output = folder.run(args).output().unwrap();
            complains(&output, USAGE, "read and written at once");
            folder.is_untouched();
        }
        // By standard input,
        for args in [
            &["replay", "-", "--write", name][..],
            &["report", "-", "-o", name],
        ] {
            let from = File::open(folder.path("a")).unwrap();
            let output = folder.run(args).stdin(from).output().unwrap();
            complains(&output, USAGE, "read and written at once");
            folder.is_untouched();
        }
        // and by standard output.
        for args in [
            &["replay", name][..],
            &["explain", name],
            &["report", name, "-o", "-"],
        ] {
            let to = OpenOptions::new()
                .append(true)
                .open(folder.path("a"))
                .unwrap();
            let mut command = folder.run(args);
            command.stdout(to).stderr(Stdio::piped());
            let output = command.spawn().unwrap().wait_with_output().unwrap();
            complains(&output, USAGE, "read and written at once");
            folder.is_untouched();
        }
    }
}

#[test]
fn a_file_has_one_output() {
    let folder = Folder::new();
    fs::write(folder.path("b"), "").unwrap();
    let to = File::create(folder.path("b")).unwrap();
    let mut command = folder.run(&["replay", "a", "--write", "b"]);
    command.stdout(to).stderr(Stdio::piped());
    let output = command.spawn().unwrap().wait_with_output().unwrap();
    complains(&output, USAGE, "two outputs");
}

#[test]
fn another_file_is_written() {
    let folder = Folder::new();
    fs::write(
        folder.path("b"),
        "what was there before, and is longer".repeat(1000),
    )
    .unwrap();
    for name in ["b", "new"] {
        let output = folder
            .run(&["replay", "a", "--write", name])
            .output()
            .unwrap();
        assert!(output.status.success(), "{output:?}");
        assert!(fs::read(folder.path(name)).unwrap() == folder.text);
    }
    let null = ["replay", "a", "--write", "/dev/null"];
    let output = folder.run(&null).stdout(Stdio::null()).output().unwrap();
    assert!(output.status.success(), "{output:?}");
    folder.is_untouched();
}

#[test]
fn a_named_pipe_that_nobody_reads_is_no_output() {
    let folder = Folder::new();
    let pipe = folder.path("pipe");
    assert!(
        Command::new("mkfifo")
            .arg(&pipe)
            .status()
            .unwrap()
            .success()
    );
    for args in [
        &["replay", "a", "--write", "pipe"][..],
        &["report", "a", "-o", "pipe"],
    ] {
        let output = folder.run(args).output().unwrap();
        complains(&output, FAILURE, "nobody reads the named pipe pipe");
    }
    let open = OpenOptions::new()
        .read(true)
        .write(true)
        .open(&pipe)
        .unwrap();
    let output = folder
        .run(&["replay", "a", "--write", "pipe"])
        .output()
        .unwrap();
    assert!(output.status.success(), "{output:?}");
    let mut first = [0; 9];
    (&open).read_exact(&mut first).unwrap();
    assert_eq!(&first, br#"{"event":"#);
}

#[test]
fn an_output_that_is_full_is_told_and_one_that_is_closed_is_not() {
    let folder = Folder::new();
    for args in [
        &["replay", "a"][..],
        &["replay", "a", "-o", "csv"],
        &["explain", "a"],
        &["report", "a", "-o", "-"],
        &["--help"],
        &["--version"],
        &["--fields", "help"],
    ] {
        let full = OpenOptions::new().write(true).open("/dev/full").unwrap();
        let mut command = folder.run(args);
        command.stdout(full).stderr(Stdio::piped());
        let output = command.spawn().unwrap().wait_with_output().unwrap();
        complains(&output, FAILURE, "No space left on device");

        let (reader, writer) = std::io::pipe().unwrap();
        drop(reader);
        let mut command = folder.run(args);
        command.stdout(writer).stderr(Stdio::piped());
        let output = command.spawn().unwrap().wait_with_output().unwrap();
        assert!(
            output.status.success() && output.stderr.is_empty(),
            "{args:?}: {output:?}"
        );
    }
}

/// Whether a message can be written does not change the exit code.
#[test]
fn messages_that_nobody_can_read_are_lost() {
    let folder = Folder::new();
    for args in [
        &["replay", "missing"][..],
        &["explain", "missing"],
        &["report", "missing", "-o", "page"],
        &["--bogus"],
        &["-o", "chrome", "--fields", "conn"],
        &["top"],
    ] {
        let full = OpenOptions::new().write(true).open("/dev/full").unwrap();
        let mut command = folder.run(args);
        let status = command.stdout(Stdio::null()).stderr(full).status().unwrap();
        assert_eq!(status.code(), Some(USAGE), "{args:?}");
    }
}

#[test]
fn a_hostile_name_of_a_file_does_not_reach_the_terminal() {
    let output = tcptrace(&["replay", "no\x1b[31m\u{202e}\nsuch"])
        .output()
        .unwrap();
    complains(&output, USAGE, "no\\u{1b}[31m\\u{202e}\\nsuch");
}

/// Half a gigabyte in one line, compressed to some kilobytes.
#[test]
fn a_line_without_an_end_does_not_take_all_memory() {
    const MEBIBYTE: usize = 1 << 20;
    let folder = Folder::new();
    for begin in ["#", r#"{"begin":"#, "{"] {
        let file = File::create(folder.path("bomb.zst")).unwrap();
        let mut bomb = zstd::stream::write::Encoder::new(file, 1).unwrap();
        bomb.write_all(begin.as_bytes()).unwrap();
        let many = vec![b'a'; MEBIBYTE];
        (0..512).for_each(|_| bomb.write_all(&many).unwrap());
        bomb.finish().unwrap();
        for args in [
            &["replay", "bomb.zst"][..],
            &["replay", "bomb.zst", "--conn", "1"],
        ] {
            let mut command = folder.run(args);
            // SAFETY: one async-signal-safe call.
            unsafe {
                command.pre_exec(|| {
                    let limit = libc::rlimit {
                        rlim_cur: 400 * MEBIBYTE as u64,
                        rlim_max: 400 * MEBIBYTE as u64,
                    };
                    match libc::setrlimit(libc::RLIMIT_AS, &limit) {
                        0 => Ok(()),
                        _ => Err(std::io::Error::last_os_error()),
                    }
                });
            }
            let output = command.output().unwrap();
            complains(&output, USAGE, "bomb.zst");
        }
    }
}

/// Twelve times as many take twelve times as long, not a hundred times.
#[test]
fn a_session_with_many_filters_is_told_at_once() {
    let folder = Folder::new();
    let text = String::from_utf8(folder.text.clone()).unwrap();
    let first = text.lines().next().unwrap();
    let mut session: serde_json::Value = serde_json::from_str(first).unwrap();
    let filters = (0..200_000).map(|n| (format!("filter {n}"), "a value".into()));
    session["filters"] = serde_json::Value::Object(filters.collect());
    fs::write(
        folder.path("many"),
        text.replacen(first, &session.to_string(), 1),
    )
    .unwrap();
    let began = Instant::now();
    let output = folder.run(&["replay", "many"]).output().unwrap();
    assert!(output.status.success());
    assert!(
        began.elapsed() < Duration::from_secs(60),
        "{:?}",
        began.elapsed()
    );
}
