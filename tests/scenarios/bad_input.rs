//! Bad input and unsuitable environments: one line on stderr with cause and remedy, and the
//! documented exit code.

use std::os::fd::AsRawFd;
use std::os::unix::process::CommandExt;

use tests::run::{Ended, Running, tcptrace, tcptrace_trace};

const FAILURE: i32 = 1;
const USAGE: i32 = 2;
const NOT_PERMITTED: i32 = 3;

/// Asserts that tcptrace gave up before tracing, with this exit code and one line on stderr that
/// has all these words.
#[track_caller]
fn refuses(ended: &Ended, code: i32, words: &[&str]) {
    assert_eq!(ended.code, Some(code), "{ended:?}");
    assert_eq!(ended.stdout, "", "no trace began");
    complains(ended, words);
}

#[track_caller]
fn complains(ended: &Ended, words: &[&str]) {
    assert_eq!(ended.stderr.lines().count(), 1, "{ended:?}");
    for word in words {
        assert!(ended.stderr.contains(word), "{word:?} in {ended:?}");
    }
}

#[test]
fn an_invalid_port_is_refused() {
    for port in ["http", "0", "65536", "-1", "80,", "9-8"] {
        let ended = Running::run_to_end(tcptrace(&[&format!("--port={port}")]));
        refuses(&ended, USAGE, &["--port"]);
    }
}

#[test]
fn a_file_that_is_no_recording_is_refused() {
    let name = format!("tcptrace-{}-damaged.trace", std::process::id());
    let file = std::env::temp_dir().join(name);
    std::fs::write(&file, "nothing that was recorded\n").expect("a file");
    let path = file.to_str().expect("a printable path");
    let ended = Running::run_to_end(tcptrace(&["replay", path]));
    std::fs::remove_file(&file).expect("the file");
    refuses(&ended, USAGE, &[path, "it is not a recording"]);

    let ended = Running::run_to_end(tcptrace(&["replay", path]));
    refuses(&ended, USAGE, &[path, "No such file"]);
}

#[test]
fn an_unknown_flag_is_refused() {
    let ended = Running::run_to_end(tcptrace(&["--prot", "80"]));
    refuses(&ended, USAGE, &["--prot"]);
}

#[test]
fn a_command_line_of_another_tool_gets_the_right_command() {
    for (args, hint) in [
        (&["--json"][..], "use -o json: tcptrace -o json"),
        (&["sleep", "1"], "goes behind --: tcptrace -- sleep 1"),
        (
            &["-o", "csv", "replay", "FILE"],
            "tcptrace replay -o csv FILE",
        ),
    ] {
        let ended = Running::run_to_end(tcptrace(args));
        refuses(&ended, USAGE, &[hint]);
    }
}

#[test]
fn an_unwritable_output_file_is_refused() {
    let file = "/no/such/folder/trace.trace";
    let ended = Running::run_to_end(tcptrace_trace(&["-o", "json", "--write", file]));
    refuses(&ended, FAILURE, &[file, "No such file or directory"]);
}

#[test]
fn tracing_without_privileges_is_refused() {
    const NOBODY: u32 = 65534;
    // By descriptor, because the binary may lie in a folder without access for other users.
    let binary = std::fs::File::open(tcptrace(&[]).get_program()).unwrap();
    let path = format!("/proc/self/fd/{}", binary.as_raw_fd());
    let mut command = std::process::Command::new(path);
    command.uid(NOBODY).gid(NOBODY).current_dir("/");
    let ended = Running::run_to_end(command);
    refuses(&ended, NOT_PERMITTED, &["CAP_BPF", "CAP_PERFMON"]);
}
