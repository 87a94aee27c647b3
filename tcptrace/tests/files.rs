//! Files named on the command line, and outputs that cannot be written: one line on stderr, the
//! documented exit code, and no file is destroyed.

use std::fs::{self, File, OpenOptions};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

use tcptrace_core::recording::{Block, Header, Item, LONGEST, Reader, item};

const FAILURE: i32 = 1;
const USAGE: i32 = 2;

fn tcptrace(args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_tcptrace"));
    command.args(args).stdin(Stdio::null());
    command
}

/// A folder with a recording `a`, and a hard and a symbolic link to it.
struct Folder {
    folder: tempfile::TempDir,
    bytes: Vec<u8>,
}

impl Folder {
    fn new() -> Folder {
        let golden = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/late_accept.trace");
        let folder = tempfile::tempdir().unwrap();
        let bytes = fs::read(golden).unwrap();
        let path = |name: &str| folder.path().join(name);
        fs::write(path("a"), &bytes).unwrap();
        fs::hard_link(path("a"), path("hard")).unwrap();
        std::os::unix::fs::symlink("a", path("soft")).unwrap();
        Folder { folder, bytes }
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
            fs::read(self.path("a")).unwrap() == self.bytes,
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
            &["report", "a", "-o", name][..],
            &["report", name, "-o", "a"],
        ] {
            let output = folder.run(args).output().unwrap();
            complains(&output, USAGE, "read and written at once");
            folder.is_untouched();
        }
        // Input from standard input.
        let from = File::open(folder.path("a")).unwrap();
        let mut command = folder.run(&["report", "-", "-o", name]);
        let output = command.stdin(from).output().unwrap();
        complains(&output, USAGE, "read and written at once");
        folder.is_untouched();
        // Output to standard output.
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
fn a_file_receives_at_most_one_output() {
    let folder = Folder::new();
    fs::write(folder.path("b"), "").unwrap();
    let to = File::create(folder.path("b")).unwrap();
    // The command line is checked before the permission to trace.
    let mut command = folder.run(&["--write", "b"]);
    command.stdout(to).stderr(Stdio::piped());
    let output = command.spawn().unwrap().wait_with_output().unwrap();
    complains(&output, USAGE, "two outputs");
}

#[test]
fn an_existing_or_new_output_file_is_written_completely() {
    let folder = Folder::new();
    let old = "what was there before, and is longer".repeat(100_000);
    fs::write(folder.path("b"), old).unwrap();
    for name in ["b", "new"] {
        let output = folder.run(&["report", "a", "-o", name]).output().unwrap();
        assert!(output.status.success(), "{output:?}");
        let page = fs::read_to_string(folder.path(name)).unwrap();
        assert!(page.trim_end().ends_with("</html>"), "{}", page.len());
    }
    folder.is_untouched();
}

#[test]
fn a_named_pipe_without_a_reader_is_an_error() {
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
        &["--write", "pipe"][..],
        &["record", "-o", "pipe"],
        &["report", "a", "-o", "pipe"],
    ] {
        let output = folder.run(args).output().unwrap();
        complains(&output, FAILURE, "nobody reads the named pipe pipe");
    }
}

#[test]
fn a_full_output_is_an_error_and_a_closed_pipe_is_success() {
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

/// An unwritable message does not change the exit code.
#[test]
fn a_message_that_cannot_be_written_does_not_change_the_exit_code() {
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
fn a_hostile_file_name_is_escaped_in_messages() {
    let output = tcptrace(&["replay", "no\x1b[31m\u{202e}\nsuch"])
        .output()
        .unwrap();
    complains(&output, USAGE, "no\\u{1b}[31m\\u{202e}\\nsuch");
}

/// Tests half a gigabyte compressed to some kilobytes, and a sparse file of that size.
#[test]
fn a_huge_block_is_refused_within_400_mib() {
    const MEBIBYTE: usize = 1 << 20;
    let folder = Folder::new();
    let mut bomb = Header::new("0.1.0").to_bytes().to_vec();
    let mut blocks = Block::default();
    let contents = vec![b'a'; LONGEST];
    let compressed = zstd::bulk::compress(&contents, 1).unwrap();
    for _ in 0..32 {
        bomb.extend(blocks.head(&compressed, Some(LONGEST)));
        bomb.extend(&compressed);
    }
    fs::write(folder.path("bomb"), bomb).unwrap();
    let mut sparse = Header::new("0.1.0").to_bytes().to_vec();
    sparse.extend(blocks.head(&[], None));
    fs::write(folder.path("sparse"), sparse).unwrap();
    let file = OpenOptions::new().write(true).open(folder.path("sparse"));
    file.unwrap().set_len(512 * MEBIBYTE as u64).unwrap();
    for args in [
        &["replay", "bomb"][..],
        &["replay", "bomb", "--conn", "1"],
        &["replay", "sparse"],
    ] {
        let mut command = folder.run(args);
        // SAFETY: setrlimit is async-signal-safe.
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
        complains(&output, USAGE, "its beginning");
    }
}

/// The time must grow in proportion to the number of filters, not with its square.
#[test]
fn a_session_with_many_filters_is_replayed_within_a_minute() {
    let folder = Folder::new();
    let (mut begin, mut reader) = Reader::open(&folder.bytes[..]).unwrap();
    begin.filters = (0..200_000)
        .map(|n| (format!("filter {n}"), "a value".into()))
        .collect();
    let mut contents = vec![];
    while let Some(next) = reader.next() {
        match next {
            Item::Input(input) => item(&input, &mut contents),
            Item::Gap => panic!("the recording is whole"),
        }
    }
    let mut bytes = Header::new("0.1.0").to_bytes().to_vec();
    let mut blocks = Block::default();
    for contents in [begin.item(), contents] {
        bytes.extend(blocks.head(&contents, None));
        bytes.extend(contents);
    }
    fs::write(folder.path("many"), bytes).unwrap();
    let began = Instant::now();
    let output = folder.run(&["replay", "many"]).output().unwrap();
    assert!(output.status.success());
    assert!(
        began.elapsed() < Duration::from_secs(60),
        "{:?}",
        began.elapsed()
    );
}

#[test]
fn a_report_replaces_a_foreign_file_beside_the_recording_only_by_force() {
    let folder = Folder::new();
    let page = folder.path("a.html");
    fs::write(&page, "my notes").unwrap();
    let output = folder.run(&["report", "a"]).output().unwrap();
    complains(
        &output,
        USAGE,
        "a.html exists and is no page of tcptrace; to replace it: tcptrace report a --force",
    );
    assert_eq!(fs::read(&page).unwrap(), b"my notes");
    for args in [&["report", "a", "--force"][..], &["report", "a"]] {
        let output = folder.run(args).output().unwrap();
        assert_eq!(output.status.code(), Some(0), "{output:?}");
        let text = fs::read_to_string(&page).unwrap();
        assert!(text.contains("<title>tcptrace report</title>"), "{args:?}");
    }
    folder.is_untouched();
}
